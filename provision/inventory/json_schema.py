"""The inventory's JSON Schema, for editors (`provision schema`). Descriptions are the fields' docstrings."""

from __future__ import annotations

import ast
import inspect
import textwrap
from itertools import pairwise
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from pydantic_core import core_schema

from provision.inventory.secrets import SCHEMA
from provision.inventory.settings import Tables
from provision.inventory.tables.base import Table, fields_of, options_of
from provision.inventory.tables.host import HostTable


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
