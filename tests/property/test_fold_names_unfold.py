"""Folded host names stand for the same hosts."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from provision.report.folding import fold_names

NAMES = st.lists(
    st.from_regex(r"\A(?:[ab]-?)?[0-9]{1,3}(?:\.[xy][0-9]{0,2})?\Z|\A[a-c]\Z", fullmatch=True), unique=True, max_size=30
)


def unfold(text: str) -> Iterator[str]:
    """The reverse, written independently of the code under test."""
    for piece in text.split(", ") if text else []:
        match = re.fullmatch(r"(.*)\[(.*)\](.*)", piece)
        if not match:
            yield piece
            continue
        before, ranges, after = match.groups()
        for one in ranges.split(","):
            low, _, high = one.partition(":")
            for number in range(int(low), int(high or low) + 1):
                yield f"{before}{number:0{len(low)}}{after}"


@given(NAMES)
def test_unfolds_to_the_same_names(names: list[str]) -> None:
    """No name is lost, added or changed by folding."""
    assert sorted(unfold(fold_names(names))) == sorted(names)
