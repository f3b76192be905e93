"""Values and statements as TOML text, written by tomlkit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from provision.resources.runner_toml.model import Key, Table, dotted


def statement(keys: Sequence[str], value: Any, indent: str, newline: str) -> str:
    """One line `keys = value`; tables are written inline."""
    return f"{indent}{dotted(tuple(keys))} = {_item(value).as_string()}{newline}"


def changed(text: str, path: Sequence[Key], value: Any, newline: str) -> str:
    """A statement with the value at `path` (its keys, and on into inline tables) replaced or added."""
    import tomlkit

    document = tomlkit.parse(text)
    table: Any = _at(document, path[:-1])
    last: Any = path[-1]
    if isinstance(table, list) and last == len(table):
        table.append(_item(value))
        return document.as_string()
    old: Any = table[last] if isinstance(table, list) or last in table else None
    many = isinstance(value, list) and bool(value) and "\n" in getattr(old, "as_string", str)()
    table[last] = _lines(value, text) if many else _item(value)
    written: str = document.as_string()
    return written.replace("\r\n", "\n").replace("\n", newline) if many else written


def without(text: str, path: Sequence[Key]) -> str:
    """A statement with what stands at `path`, inside its inline value, taken out."""
    import tomlkit

    document = tomlkit.parse(text)
    del _at(document, path[:-1])[path[-1]]
    return document.as_string()


def section(path: Sequence[str], table: Table, indent: str, step: str, newline: str, *, array: bool = False) -> str:
    """A header and all under it, laid out as gitlab-runner does: keys one step in, tables after the keys."""
    name = dotted(tuple(path))
    text = f"{indent}[[{name}]]{newline}" if array else f"{indent}[{name}]{newline}"
    inner = indent + step
    for key, value in table.items():
        if not is_table(value) and not is_tables(value):
            text += statement((key,), value, inner, newline)
    for key, value in table.items():
        if is_table(value):
            text += section((*path, key), value, inner, step, newline)
        elif is_tables(value):
            for one in value:
                text += newline + section((*path, key), one, inner, step, newline, array=True)
    return text


def is_table(value: Any) -> bool:
    """It is written under a header of its own."""
    return isinstance(value, dict)


def is_tables(value: Any) -> bool:
    """It is written as `[[…]]`: an array of tables that has some."""
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _at(node: Any, path: Sequence[Key]) -> Any:
    for key in path:
        node = node[key]
    return node


def _item(value: Any) -> Any:
    """tomlkit's item, with every table in it inline."""
    import tomlkit

    if isinstance(value, dict):
        inline = tomlkit.inline_table()
        for key, one in value.items():
            inline[key] = _item(one)
        return inline
    if isinstance(value, list):
        array = tomlkit.array()
        for one in value:
            array.append(_item(one))
        return array
    return tomlkit.item(value)


def _lines(values: list[Any], text: str) -> Any:
    """An array with one element a line, as far in as the statement's own elements are."""
    import tomlkit

    first, *rest = text.split("\n")
    outer = first[: len(first) - len(first.lstrip(" \t"))]
    inner = next((line[: len(line) - len(line.lstrip(" \t"))] for line in rest if line.strip()[:1] in {'"', "'"}), "")
    array = tomlkit.array()
    for value in values:
        array.add_line(_item(value), indent=inner or f"{outer}  ")
    array.add_line(indent=outer)
    return array
