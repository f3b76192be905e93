"""Trees of tables: their deep merge, the paths of keys as tuples and in TOML notation, and their lines in a file.

Of two tables the later one wins, key by key; everything but tables is replaced whole.

Lines are for messages only. The text is parsed by tree-sitter-toml: half as much code as a scanner of our own was, with the
same lines for 4,000 generated documents. The text is valid TOML, since tomllib has read it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tree_sitter import Node

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


def lines_of(text: str) -> dict[KeyPath, int]:
    """Every key path of a valid TOML text with the line (from 1) of its first occurrence."""
    import tree_sitter_toml  # only messages need lines: reading stays fast
    from tree_sitter import Language, Parser

    tree = Parser(Language(tree_sitter_toml.language())).parse(text.encode())
    lines: dict[KeyPath, int] = {}
    tables_seen: dict[KeyPath, int] = {}  # by array of tables
    for node in _children(tree.root_node):
        if node.type == "pair":
            _add_pair(node, (), lines)
        else:
            key, *pairs = _children(node)
            path: KeyPath = ()
            names = _key(key)
            for place, name in enumerate(names, 1):
                path += (name,)
                lines.setdefault(path, _line(node))
                if place == len(names) and node.type == "table_array_element":
                    tables_seen[path] = tables_seen.get(path, 0) + 1
                if path in tables_seen:
                    path += (tables_seen[path] - 1,)
                    lines.setdefault(path, _line(node))
            for pair in pairs:
                _add_pair(pair, path, lines)
    return lines


def _add_pair(node: Node, path: KeyPath, lines: dict[KeyPath, int]) -> None:
    key, value = _children(node)
    for name in _key(key):
        path += (name,)
        lines.setdefault(path, _line(node))
    _add_value(value, path, lines)


def _add_value(node: Node, path: KeyPath, lines: dict[KeyPath, int]) -> None:
    if node.type == "array":
        for place, one in enumerate(_children(node)):
            lines.setdefault((*path, place), _line(one))
            _add_value(one, (*path, place), lines)
    elif node.type == "inline_table":
        for one in _children(node):
            _add_pair(one, path, lines)


def _key(node: Node) -> list[str]:
    """The names in a key: `a."b c".d` has three."""
    if node.type == "dotted_key":
        return [name for one in _children(node) for name in _key(one)]
    text = (node.text or b"").decode()
    return [text if node.type == "bare_key" else str(tomllib.loads(f"key={text}")["key"])]


def _children(node: Node) -> Iterator[Node]:
    return (one for one in node.named_children if one.type != "comment")


def _line(node: Node) -> int:
    return node.start_point.row + 1


def line_in(file: str, path: KeyPath) -> int:
    """The line of a key in a file, or 0 when it is not known."""
    try:
        return lines_of(Path(file).read_text("utf-8")).get(path, 0)
    except (OSError, ValueError):  # not a file (`--set`), or changed after it was read: the message has only the key
        return 0
