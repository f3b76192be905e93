"""Host scripts: each is a file `NAME.sh` in POSIX sh, and `script` turns it into a command.

A script reads its arguments as "$1", "$2", …, and secrets and file contents on standard input. Its leading comment
describes what it expects and prints. A line `. ./lib/NAME.sh` is replaced by the text of that file, so that the command
is one text and needs no file on the host.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Final

from provision.shell import Argument, Command, sh

FOLDER: Final = Path(__file__).parent
_INCLUDE: Final = re.compile(r"^\. \./lib/(\w+)\.sh\n", re.MULTILINE)
_HEADER: Final = re.compile(r"\A(?:#.*\n|\n)+")


def script(name: str, *arguments: Argument) -> Command:
    """The script `NAME.sh` with its arguments; a list gives several. Raises TypeError for a Secret.

    The text begins with the script's name, which error messages show, and ends with a newline: texts can be joined.
    """
    return Command(f"# {name}.sh\n{_set(arguments)}\n{body(name)}")


@cache
def body(name: str) -> str:
    """The script's text with its libraries in it, without leading comments."""
    return _INCLUDE.sub(lambda found: body(f"lib/{found[1]}"), source(name))


def source(name: str) -> str:
    """The script's text without its leading comments. Raises OSError for an unknown name."""
    return _HEADER.sub("", (FOLDER / f"{name}.sh").read_text(encoding="utf-8"))


def file_text(name: str) -> str:
    """The script's whole text, for a file on the host. Raises ValueError for one that includes a library."""
    text = (FOLDER / f"{name}.sh").read_text(encoding="utf-8")
    if _INCLUDE.search(text):
        raise ValueError(f"{name}.sh includes a library: it cannot be a file on a host")
    return text


def _set(arguments: tuple[Argument, ...]) -> str:
    return sh(" ".join(["set --", *("%s" for _ in arguments)]), *arguments).script
