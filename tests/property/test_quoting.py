"""Whatever an argument holds, a real shell gets it as one word, and runs nothing of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import PurePosixPath

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from provision.secret import Secret
from provision.shell import Command, sh

SHELLS = [path for name in ("dash", "bash", "busybox") if (path := shutil.which(name))]
# No NUL: no argument of a program can hold one.
words = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=40)
nasty = st.text("'\"\\$`;&|<>(){}[]*?~#!%= \t\n\r-éß\u2028\x01\x7f", max_size=12)
texts = st.one_of(words, nasty)
SEPARATOR = b"\0"


def printed(command: Command, shell: str) -> list[bytes]:
    """What `printf %s\\0` prints of each argument."""
    argv = [shell, "sh", "-c", command.script] if shell.endswith("busybox") else [shell, "-c", command.script]
    ended = subprocess.run(argv, capture_output=True, check=True, env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"})
    assert ended.stderr == b""
    return ended.stdout.split(SEPARATOR)[:-1]


def echo(values: Sequence[str]) -> Command:
    """Prints each value, and a NUL after it."""
    return sh("printf '%%s\\000' %s", list(values))


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(values=st.lists(texts, min_size=1, max_size=6))
@example(values=["", " ", "'", "''", "\\", "\n", "$(reboot)", "`reboot`", "-n", "--", "%s", "%%", "a'b\"c$d", "*", "~"])
def test_arguments_arrive_as_they_are(shell: str, values: list[str]) -> None:
    """In every shell that may be /bin/sh."""
    assert printed(echo(values), shell) == [one.encode() for one in values]


@settings(max_examples=60, deadline=None)
@given(values=st.lists(texts, min_size=1, max_size=6))
def test_each_place_takes_one_argument(values: list[str]) -> None:
    """Places in the template and arguments of a list make the same script."""
    template = " ".join(["%s"] * len(values))
    assert sh(template, *values) == sh("%s", values) == sh("%s", tuple(values))


@settings(max_examples=60, deadline=None)
@given(text=texts, number=st.integers())
def test_percent_signs_of_arguments_are_left_alone(text: str, number: int) -> None:
    """Only the template's own are read."""
    assert sh("100%% %s", text).script.startswith("100% ")
    assert sh("%s", number).script.strip("'") == str(number)
    assert sh("%s", f"%s{text}%d") == sh("%s", [f"%s{text}%d"])


@settings(max_examples=50, deadline=None)
@given(parts=st.lists(st.text("abc '\"$\n", min_size=1, max_size=8), min_size=1, max_size=4))
def test_paths_are_words(parts: list[str]) -> None:
    """A path object is its text."""
    path = PurePosixPath("/", *parts)
    assert sh("cat -- %s", path) == sh("cat -- %s", str(path))


@settings(max_examples=50, deadline=None)
@given(text=texts)
def test_a_secret_is_refused_everywhere(text: str) -> None:
    """Alone, in a list, in a list of lists."""
    for arguments in ([Secret(text)], [[Secret(text)]], [("a", Secret(text))]):
        with pytest.raises(TypeError, match="pass it on standard input"):
            sh("echo %s", *arguments)


@settings(max_examples=40, deadline=None)
@given(data=st.one_of(st.binary(max_size=200), texts.map(str.encode)))
def test_standard_input_is_in_no_script_and_no_repr(data: bytes) -> None:
    """It is carried beside the script, whole."""
    command = sh("cat").reading(data)
    assert (command.script, command.stdin) == ("cat", data)
    assert repr(command) == "Command(script='cat')"
