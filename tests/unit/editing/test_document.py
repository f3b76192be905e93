"""The editing kernel: splices, line endings, and the check that reads a result back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from provision.editing.document import Document, Splice, check_read_back, same
from provision.errors import Refused


def test_splices() -> None:
    """Replacements, removals and insertions are applied at once; insertions at one place keep their order."""
    document = Document(b"one two three")
    splices = [Splice(8, 13, b"3"), Splice(0, 0, b"<"), Splice(3, 7), Splice(0, 0, b"[")]
    assert document.splice(splices) == b"<[one 3"
    assert document.splice([Splice(4, 7, b"2")], 4, 7) == b"2"
    assert document.splice([]) == document.content


@pytest.mark.parametrize("splices", [[Splice(0, 3), Splice(2, 4)], [Splice(0, 9)]], ids=["overlap", "outside"])
def test_splices_that_overlap(splices: list[Splice]) -> None:
    """They are an error of the caller."""
    with pytest.raises(AssertionError):
        Document(b"abcdef").splice(splices)


def test_lines() -> None:
    """Lines are found by any offset in them; a byte order mark stands before the first one."""
    document = Document(b"\xef\xbb\xbfone\r\n  two\r\n\tthree")
    assert (document.start, document.newline) == (3, "\r\n")
    assert [document.line(at) for at in (3, 8, 16)] == [1, 2, 3]
    assert [document.line_start(at) for at in (4, 9, 19)] == [3, 8, 15]
    assert [document.line_end(at) for at in (3, 10, 16)] == [8, 15, 21]
    assert [document.indentation(at) for at in (3, 10, 16)] == ["", "  ", "\t"]
    assert document.encode("a\nb") == b"a\r\nb"
    assert Document(b"a\nb\nc\r\n").newline == "\n"


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (1, 1, True),
        (1, True, False),
        (1, 1.0, False),
        (float("nan"), float("nan"), True),
        ({"a": [1], "b": 2}, {"b": 2, "a": [1]}, True),
        ({"a": [1]}, {"a": [True]}, False),
        ([1, 2], [1], False),
        (None, None, True),
    ],
)
def test_same(one: Any, other: Any, equal: bool) -> None:
    """Values are compared with their types, in any order of keys."""
    assert same(one, other) is equal


def read(content: bytes) -> dict[str, Any]:
    """A parser for the check."""
    try:
        return dict(json.loads(content))
    except ValueError as error:
        raise Refused("x.json line 1: not JSON", hint="fix it") from error


def test_a_result_that_reads_back_as_planned_is_returned() -> None:
    """It is the very content."""
    content = b'{"a": 1}'
    assert check_read_back("x.json", content, read, {"a": 1}, "by hand") is content


@pytest.mark.parametrize(
    ("content", "planned", "why"),
    [
        (b'{"a": 1}', {"a": 2}, "a does not read back as planned"),
        (b'{"a": 1, "b": 1}', {"a": 1}, "b does not read back as planned"),
        (b'{"a": 1}', {"a": 1, "b": 1}, "b does not read back as planned"),
        (b"{", {"a": 1}, "the result is not valid: x.json line 1: not JSON"),
    ],
    ids=["value", "too many", "missing", "not valid"],
)
def test_a_result_that_does_not_is_refused(content: bytes, planned: dict[str, Any], why: str) -> None:
    """The message names the key and what to do."""
    with pytest.raises(Refused) as caught:
        check_read_back("x.json", content, read, planned, "by hand")
    assert caught.value.text == f"x.json cannot be edited safely: {why}"
    assert caught.value.hint == "by hand"
