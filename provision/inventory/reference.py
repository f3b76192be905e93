"""The documentation of tables from their classes: JSON Schema for editors (`provision schema`), text for `provision explain`.

The texts are the docstrings of tables and fields.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from pydantic_core import core_schema

from provision.inventory.inventory import toml_value
from provision.inventory.problems import tables_in
from provision.inventory.secrets import SCHEMA, SecretSource
from provision.inventory.settings import Tables
from provision.inventory.tables.base import Table, fields_of, options_of
from provision.inventory.tables.host import HostTable
from provision.inventory.tables.runner_keys import TABLES, KeysOf, describe_kind, keys_of
from provision.url import Url


def schema(tables: Tables) -> dict[str, Any]:
    """JSON Schema (2020-12) of an inventory file with these tables."""
    by_model, generated = models_json_schema(
        [(table, "validation") for table in [*tables, HostTable]], schema_generator=_WithDocstrings
    )
    properties = {options_of(table).name: _property(table, by_model[table, "validation"]) for table in tables}
    definitions = _clean(generated["$defs"])
    host = definitions[by_model[HostTable, "validation"]["$ref"].rpartition("/")[2]]["properties"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Inventory of provision",
        "type": "object",
        "properties": {
            "hosts": _by_name("The hosts; ranges such as runner-[01:20] expand.", HostTable.__doc__, host | properties),
            "groups": _by_name("Settings of the hosts of a group.", "Tables as at the top level.", properties),
            **properties,
        },
        "additionalProperties": False,
        "$defs": definitions,
    }


def field_docs(table: type[Table]) -> dict[str, str]:
    """The docstrings below a table's fields, by their keys in the file; those of base classes are included."""
    found: dict[str, str] = {}
    for base in reversed(table.__mro__):
        if issubclass(base, Table) and base is not Table:
            found |= _docs_in(base)
    names = zip(table.model_fields, fields_of(table), strict=True)
    return {key: found[name] for name, key in names if name in found}


class _WithDocstrings(GenerateJsonSchema):
    """Adds the fields' docstrings. No key is required that another layer (a group, a host, a file) may add."""

    def model_schema(self, schema: core_schema.ModelSchema) -> dict[str, Any]:
        found = super().model_schema(schema)
        table = schema["cls"]
        if issubclass(table, Table):
            for key, text in field_docs(table).items():
                found["properties"][key]["description"] = text
            if options_of(table).occurs != "array":  # arrays are never merged, so each is complete
                found.pop("required", None)
        return found


def _property(table: type[Table], reference: dict[str, Any]) -> dict[str, Any]:
    occurs = options_of(table).occurs
    if occurs == "array":
        return {"type": "array", "items": reference}
    return {"type": "object", "additionalProperties": reference} if occurs == "named" else reference


def _by_name(description: str, of_each: str | None, properties: dict[str, Any]) -> dict[str, Any]:
    each = {"description": of_each, "type": "object", "properties": properties, "additionalProperties": False}
    return {"description": description, "type": "object", "additionalProperties": each}


def _clean(node: Any) -> Any:
    """Removes null, which TOML lacks, and titles that repeat the keys."""
    if isinstance(node, list):
        return [_clean(one) for one in node]
    if not isinstance(node, dict):
        return node
    titles = {"title"} if isinstance(node.get("title"), str) and node["title"] != SCHEMA["title"] else set()
    node = {key: _clean(value) for key, value in node.items() if key not in titles}
    if node.get("default", 0) is None:
        del node["default"]
    branches = [one for one in node.get("anyOf", ()) if one != {"type": "null"}]
    if len(branches) == 1:
        del node["anyOf"]
        node = {**branches[0], **node}
    elif branches:
        node["anyOf"] = branches
    return node


def _docs_in(table: type) -> dict[str, str]:
    """The docstrings below the fields that a class itself defines, by the fields' names."""
    try:
        (parsed,) = ast.parse(textwrap.dedent(inspect.getsource(table))).body
    except (OSError, TypeError, SyntaxError):  # a class that was not written in a file
        return {}
    body = parsed.body if isinstance(parsed, ast.ClassDef) else []
    found = {}
    for field, text in pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            found[field.target.id] = inspect.cleandoc(str(text.value.value))
    return found


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
