"""Host scripts and their exit codes: each script is a file `NAME.sh` in POSIX sh, and `script` turns it into a command.

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

# Exit codes of our scripts, which programs do not use.
CHANGED_MEANWHILE: Final = 79
NOTHING_CHANGED: Final = 113
NOT_READY: Final = 114  # GitLab or its registry answers 502 or 503; the last line of standard error names the address
NO_PROGRAM: Final = 127
"""The shell's exit code for a program that is not installed."""
# curl's exit codes: (cause, remedy).  Source: curl(1), EXIT CODES
CURL_FAILURES: Final = {
    6: ("its name does not resolve on the host", "check the name and the host's DNS"),
    7: ("the connection is refused", "check address, port and firewall, and that the service runs"),
    28: ("no answer in time", "check the routes and firewalls between the host and the server"),
    35: ("the TLS handshake fails", "check scheme and port: the port may not serve https"),
    NO_PROGRAM: ("curl is not installed on the host", "apt-get install curl"),
    60: (
        "its certificate is not trusted on the host",
        "name its CA in registry.certificate.ca, or install it on the host",
    ),
}


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


def curl_failure(code: int) -> str:
    """The cause of an exit code of curl, as text."""
    return CURL_FAILURES[code][0] if code in CURL_FAILURES else f"curl failed with exit code {code}"


def curl_remedy(cause: str) -> str:
    """What to do about a cause that `curl_failure` returned; "" for an unknown one."""
    return dict(CURL_FAILURES.values()).get(cause, "")
