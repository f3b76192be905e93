"""Key paths: the position of a value in a TOML file, as a tuple and in TOML notation.

Deep merge of tables: the later one wins, key by key; everything but tables is replaced whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import reduce
from typing import Any

KeyPath = tuple[str | int, ...]


def dotted(path: KeyPath) -> str:
    """`("hosts", "runner-[01:20]", "groups", 0)` as `hosts."runner-[01:20]".groups[0]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else f'"{part}"')
    return text


Tree = dict[str, Any]


def merge(base: Tree, over: Tree) -> Tree:
    """A new table with all of `base` and `over`; neither is changed. Arrays, including arrays of tables, are replaced as a whole."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def merge_all(layers: Iterable[Tree]) -> Tree:
    """All layers merged, weakest first."""
    return reduce(merge, layers, {})
