"""What a .dockerignore excludes, by table; the same table is held against Docker itself in tests/lab."""

from __future__ import annotations

import pytest

from provision.formats.build_context import Ignore
from tests.support.ignore import CASES, LATER_CASES


def kept(text: str, paths: tuple[str, ...]) -> list[str]:
    """The files that are not excluded."""
    ignore = Ignore.parse(text)
    found = []
    for path in paths:
        fits, parts = ignore.none, path.split("/")
        for depth in range(len(parts)):
            fits = ignore.fits("/".join(parts[: depth + 1]), fits)
        if not ignore.excluded(fits):
            found.append(path)
    return found


@pytest.mark.parametrize(("text", "paths", "left"), CASES + LATER_CASES)
def test_patterns(text: str, paths: tuple[str, ...], left: tuple[str, ...]) -> None:
    """What stays of some files."""
    assert kept(text, paths) == list(left)


WRONG = [("!", "line 1"), ("a\n[b", "line 2"), ("a\n\n# c\n!  \n", "line 4"), ("[", "brackets")]


@pytest.mark.parametrize(("text", "why"), WRONG)
def test_what_is_no_pattern(text: str, why: str) -> None:
    """Docker refuses these, too; here the line is named."""
    with pytest.raises(ValueError, match=why):
        Ignore.parse(text)
