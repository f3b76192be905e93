"""A table as TOML, laid out as gitlab-runner's encoder does: two spaces a level, a blank line above [[…]]."""

from __future__ import annotations

import datetime
import json
import re
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def dumps(table: dict[str, Any]) -> str:
    """The whole file."""
    return _body(table, (), "")


def _body(table: dict[str, Any], path: tuple[str, ...], indent: str) -> str:
    text = "".join(f"{indent}{_key(key)} = {_value(value)}\n" for key, value in table.items() if not _nested(value))
    for key, value in table.items():
        inner = (*path, key)
        name = ".".join(_key(part) for part in inner)
        if isinstance(value, dict):
            text += ("\n" if not path else "") + f"{indent}[{name}]\n" + _body(value, inner, indent + "  ")
        elif _nested(value):
            for one in value:
                text += f"\n{indent}[[{name}]]\n" + _body(one, inner, indent + "  ")
    return text


def _nested(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else json.dumps(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0")
    if isinstance(value, list):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {_value(one)}" for key, one in value.items()) + "}"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
