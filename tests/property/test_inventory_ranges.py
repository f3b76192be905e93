"""Ranges: what any of them expands to."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from provision.inventory.ranges import expand, expand_pair, has_range

texts = st.text(st.characters(codec="ascii", exclude_characters="[]:"), max_size=8)
spans = st.tuples(st.integers(0, 500), st.integers(0, 40), st.integers(0, 4))


@given(texts, spans, texts)
def test_one_range(before: str, span: tuple[int, int, int], after: str) -> None:
    """It counts from start to end by one, as wide as the start at least, with all around it kept."""
    start, more, width = span
    written = str(start).zfill(width)
    names = expand(f"{before}[{written}:{start + more}]{after}")
    numbers = [name[len(before) : len(name) - len(after)] for name in names]
    assert [int(number) for number in numbers] == list(range(start, start + more + 1))
    assert all(len(number) == max(len(written), len(str(int(number)))) for number in numbers)
    assert all(name.startswith(before) and name.endswith(after) for name in names)


@given(texts)
def test_no_range(text: str) -> None:
    """Without a range a name stands for itself."""
    assert not has_range(text)
    assert expand(text) == [text]


@given(st.integers(0, 20), st.integers(0, 9), st.integers(0, 20), st.integers(0, 9), texts)
def test_ranges_multiply(first: int, more: int, second: int, extra: int, between: str) -> None:
    """Two ranges give every pair, the last one counting fastest, and no name twice when they are set apart."""
    names = expand(f"a[{first}:{first + more}]-{between}-[{second}:{second + extra}]")
    assert names == [
        f"a{one}-{between}-{two}" for one in range(first, first + more + 1) for two in range(second, second + extra + 1)
    ]
    assert len(set(names)) == len(names)


@given(st.integers(0, 200), st.integers(0, 30), st.integers(0, 200))
def test_addresses_go_in_step(start: int, more: int, other: int) -> None:
    """The n-th name has the n-th address."""
    pairs = expand_pair(f"h[{start}:{start + more}]", f"10.0.0.[{other}:{other + more}]")
    assert pairs == [(f"h{start + n}", f"10.0.0.{other + n}") for n in range(more + 1)]
