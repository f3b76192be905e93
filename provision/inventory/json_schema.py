"""The inventory's JSON Schema, for editors (`provision schema`). Descriptions are the fields' docstrings."""

from __future__ import annotations

import ast
import inspect
import textwrap
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from provision.inventory.tables.base import Table

_WHOLE: Final = ("Runner", "Image", "App")  # arrays are never merged: what is in one stands whole in one place
SECRET: Final[dict[str, Any]] = {
    "title": "Secret",
    "description": "A secret: an environment variable, a file, a command's output, a question, or the text itself.",
    "oneOf": [
        {"type": "string"},
        *(
            {"type": "object", "properties": {kind: value}, "required": [kind], "additionalProperties": False}
            for kind, value in {
                "env": {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
                "file": {"type": "string", "minLength": 1},
                "command": {"type": "array", "items": {"type": "string"}, "minItems": 1},
                "prompt": {"type": "string", "minLength": 1},
            }.items()
        ),
    ],
}


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of an inventory file. Keys that a group or host may add are never required."""
    from provision.inventory.tables.host import HostTable
    from provision.inventory.tables.settings import Settings

    generated = Settings.model_json_schema()
    definitions = {name: _clean(table) for name, table in generated["$defs"].items()}
    for table in _below(Settings):
        _describe(definitions[table.__name__], table)
    for name, definition in definitions.items():
        if name not in _WHOLE:
            definition.pop("required", None)
    tables = _clean(generated)["properties"]
    host = _clean(HostTable.model_json_schema())
    _describe(host, HostTable)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Inventory of provision",
        "type": "object",
        "properties": {
            "hosts": _tables(
                "The hosts; ranges such as runner-[01:20] expand.", HostTable, host["properties"] | tables
            ),
            "groups": _tables("What holds for the hosts of a group instead.", Settings, tables),
            **tables,
        },
        "additionalProperties": False,
        "$defs": definitions,
    }


def field_docs(table: type[Table]) -> dict[str, str]:
    """The docstrings under a table's fields, by the key that stands in the file; those of parents included."""
    found: dict[str, str] = {}
    for base in reversed(table.__mro__):
        if base.__module__.startswith("provision."):
            found |= _docs_in(base)
    return {field.alias or name: found[name] for name, field in table.model_fields.items() if name in found}


def _tables(description: str, table: type[Table], properties: dict[str, Any]) -> dict[str, Any]:
    one = {"description": table.__doc__, "type": "object", "properties": properties, "additionalProperties": False}
    return {"description": description, "type": "object", "additionalProperties": one}


def _describe(definition: dict[str, Any], table: type[Table]) -> None:
    for key, text in field_docs(table).items():
        definition["properties"][key]["description"] = text


def _clean(node: Any) -> Any:
    """Without what TOML has not (null) and what says nothing (titles made of keys)."""
    if isinstance(node, list):
        return [_clean(one) for one in node]
    if not isinstance(node, dict):
        return node
    node = {key: _clean(value) for key, value in node.items() if key != "title" or value == SECRET["title"]}
    if node.get("default", 0) is None:
        del node["default"]
    branches = [one for one in node.get("anyOf", ()) if one != {"type": "null"}]
    if len(branches) == 1:
        del node["anyOf"]
        node = {**branches[0], **node}
    elif branches:
        node["anyOf"] = branches
    return node


def _below(model: type[Table]) -> set[type[Table]]:
    """All tables below one."""
    from provision.inventory.problems import tables_in

    found: set[type[Table]] = set()
    for field in model.model_fields.values():
        for table in tables_in(field.annotation):
            found |= {table, *_below(table)}
    return found


def _docs_in(table: type) -> dict[str, str]:
    (parsed,) = ast.parse(textwrap.dedent(inspect.getsource(table))).body
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
