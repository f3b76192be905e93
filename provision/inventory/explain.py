"""The documentation of tables, as `provision explain` prints it: keys, types, defaults and docstrings."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from provision.inventory.inventory import toml_value
from provision.inventory.json_schema import field_docs
from provision.inventory.problems import tables_in
from provision.inventory.secrets import SecretSource
from provision.inventory.settings import Tables
from provision.inventory.tables.base import Table, fields_of, options_of
from provision.inventory.tables.runner_keys import TABLES, KeysOf, describe_kind, keys_of
from provision.url import Url

_TYPES = {
    str: "string",
    bool: "boolean",
    int: "number",
    float: "number",
    Path: "local path",
    SecretSource: "secret",
    Url: "URL",
}


def table_list(tables: Tables) -> str:
    """One line for each table: its notation, and the first line of its docstring."""
    rows = [(options_of(table).brackets, _headline(table)) for table in tables]
    width = max(len(written) for written, _ in rows) + 2
    return "\n".join(f"  {written:<{width}}{headline}" for written, headline in rows)


def find_table(tables: Tables, name: str) -> tuple[str, type[Table]] | None:
    """The table of a dotted name, and its notation: `registry.certificate` is [registry.certificate]."""
    first, *rest = name.split(".")
    table = tables.get(first)
    if table is None:
        return None
    written = options_of(table).brackets
    for key in rest:
        field = fields_of(table).get(key)
        table = next(tables_in(field.annotation), None) if field else None
        if table is None:
            return None
        written = _below(written, key)
    return written, table


def explain_keys(tables: Tables, name: str) -> str | None:
    """The keys of one of gitlab-runner's tables, such as `runners.docker` or `runners.cache.s3`; None for other names."""
    first, *rest = name.split(".")
    table = tables.get(first)
    field = fields_of(table).get(rest[0]) if table and rest else None
    marks = [mark for one in (field.annotation, *get_args(field.annotation)) for mark in get_args(one)] if field else []
    found = next((one.table for one in marks if isinstance(one, KeysOf)), None)
    for key in rest[1:]:
        kind = keys_of(found).get(key, "").strip("[]") if found else ""
        found = kind if kind in TABLES else None
    if found is None:
        return None
    rows = [f"  {key}  ({describe_kind(kind)})" for key, kind in keys_of(found).items()]
    return "\n".join([f"table [{name}], with gitlab-runner's own keys", "", *rows])


def explain_table(written: str, table: type[Table]) -> str:
    """A table's documentation, then those of the tables in it."""
    lines = [f"table {written}", "", *_indented(inspect.cleandoc(table.__doc__ or "")), ""]
    docs = field_docs(table)
    for key, field in fields_of(table).items():
        default = "required" if field.is_required() else _default(field.get_default(call_default_factory=True))
        lines += [f"  {key}  ({_type(field.annotation)}{f', {default}' if default else ''})"]
        lines += [f"  {line}".rstrip() for line in _indented(docs.get(key, ""))]
    text = "\n".join(lines)
    for key, field in fields_of(table).items():
        for inner in tables_in(field.annotation):
            text += f"\n\n{explain_table(_below(written, key, field.annotation), inner)}"
    return text


def _below(written: str, key: str, annotation: Any = None) -> str:
    name = written.strip("[]")
    return f"[{name}.{key}.NAME]" if get_origin(annotation) is dict else f"[{name}.{key}]"


def _headline(table: type[Table]) -> str:
    first = inspect.cleandoc(table.__doc__ or "").partition("\n")[0]
    return first.removeprefix(f"{options_of(table).brackets}: ")


def _indented(text: str) -> list[str]:
    return [f"  {line}".rstrip() for line in text.splitlines()]


def _default(value: Any) -> str:
    if value is None or value in ((), {}):
        return ""
    return f"default {toml_value(value)}" if isinstance(value, str | int | float | tuple) else f"default {value}"


def _type(annotation: Any) -> str:
    return " or ".join(dict.fromkeys(_type_names(annotation))) or "value"


def _type_names(annotation: Any) -> Iterator[str]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _type_names(arguments[0])
    elif origin in (Union, UnionType):
        for one in arguments:
            yield from _type_names(one)
    elif origin is Literal:
        yield from (toml_value(one) for one in arguments)
    elif origin in (tuple, list):
        yield f"array of {_type(arguments[0])}s"
    elif origin is dict or (isinstance(annotation, type) and issubclass(annotation, Table)):
        yield "table"
    elif annotation in _TYPES:
        yield _TYPES[annotation]
    elif isinstance(annotation, type) and annotation is not type(None):
        yield annotation.__name__.lower()
