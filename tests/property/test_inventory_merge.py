"""Merging of tables, and where their keys stand: laws that hold for any of them."""

from __future__ import annotations

import copy
import tomllib
from typing import Any

import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from provision.inventory.tree import lines_of, merge, merge_all

keys = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=4)
words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\r"), max_size=6)
leaves = st.integers(-9, 9) | st.booleans() | words
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=8
)
trees = st.dictionaries(keys, values, max_size=4)


@given(trees, trees)
def test_merge_of_two(base: dict[str, Any], over: dict[str, Any]) -> None:
    """Every leaf comes from the stronger table where it has one, else from the weaker; neither table is touched."""
    before = copy.deepcopy((base, over))
    merged = merge(base, over)
    assert (base, over) == before
    assert merged.keys() == base.keys() | over.keys()
    for key, value in merged.items():
        if key not in over:
            assert value == base[key]
        elif isinstance(value, dict) and isinstance(base.get(key), dict):
            assert value == merge(base[key], over[key])
        else:
            assert value == over[key]


@given(trees)
def test_nothing_changes_nothing(tree: dict[str, Any]) -> None:
    """An empty table is neutral, and merging a table with itself gives itself."""
    assert merge(tree, {}) == merge({}, tree) == merge(tree, tree) == tree


@given(st.lists(trees, max_size=4))
def test_last_layer_wins(layers: list[dict[str, Any]]) -> None:
    """All leaves of the strongest layer are in the result."""
    merged = merge_all(layers)
    assert merge(merged, layers[-1] if layers else {}) == merged


@given(trees)
def test_every_key_has_its_line(tree: dict[str, Any]) -> None:
    """The scanner finds exactly the key paths of the document, however it is written."""
    text = tomlkit.dumps(tree)
    parsed = tomllib.loads(text)
    found = lines_of(text)
    assert set(found) == set(_paths(parsed))
    lines = text.splitlines() or [""]
    assert all(1 <= line <= len(lines) for line in found.values())


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    parts: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        parts = list(value.items())
    elif isinstance(value, list):
        parts = list(enumerate(value))
    here = [path] if path else []
    return here + [one for part, below in parts for one in _paths(below, (*path, part))]
