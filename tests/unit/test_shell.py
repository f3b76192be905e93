"""Commands as values."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import pytest

from provision.secret import Secret
from provision.shell import Command, sh


@pytest.mark.parametrize(
    ("arguments", "script"),
    [
        (("/etc/motd",), "cat -- /etc/motd"),
        (("it's",), "cat -- 'it'\"'\"'s'"),
        (("",), "cat -- ''"),
        ((5,), "cat -- 5"),
        ((PurePosixPath("/a b"),), "cat -- '/a b'"),
        ((["a", "b c"],), "cat -- a 'b c'"),
        ((("a", "b"),), "cat -- a b"),
        (([],), "cat -- "),
    ],
)
def test_quoting(arguments: tuple[Any, ...], script: str) -> None:
    """One quoted word an argument, several for a list."""
    assert sh("cat -- %s", *arguments).script == script


def test_percent_signs() -> None:
    """Doubled in the template, single in the script."""
    assert sh("date +%%s; echo %s", "50%").script == "date +%s; echo 50%"


@pytest.mark.parametrize("arguments", [(), ("a", "b")])
def test_a_count_that_does_not_fit(arguments: tuple[str, ...]) -> None:
    """A mistake of who wrote it, at once."""
    with pytest.raises(TypeError):
        sh("cat %s", *arguments)


@pytest.mark.parametrize("value", [Secret("x"), None, 1.5, b"bytes", {"a": 1}, object()])
def test_what_is_no_argument(value: Any) -> None:
    """Secrets above all; and nothing is turned into text by chance."""
    with pytest.raises(TypeError, match=r"cannot be a shell argument: pass it on standard input"):
        sh("echo %s", value)


def test_reading() -> None:
    """Text, bytes or a secret on standard input; the command itself is unchanged, equal ones are equal."""
    cat = sh("cat")
    assert cat.reading("ü").stdin == "ü".encode()
    assert cat.reading(b"\xff").stdin == b"\xff"
    assert cat.reading(Secret("s3cret")) == Command("cat", b"s3cret")
    assert cat == Command("cat")
    assert "s3cret" not in repr(cat.reading(Secret("s3cret")))
    assert len({sh("cat"), sh("cat"), cat.reading("x")}) == 2
