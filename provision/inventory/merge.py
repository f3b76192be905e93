"""Deep merge of tables: the later one wins, key by key; everything but tables is replaced whole."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import Any

Tree = dict[str, Any]


def merge(base: Tree, over: Tree) -> Tree:
    """A new table with all of `base` and `over`; neither is changed. Arrays, also of tables, are replaced whole."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def merge_all(layers: Iterable[Tree]) -> Tree:
    """All layers merged, weakest first."""
    return reduce(merge, layers, {})
