"""How a value is told in a message: its type and, unless it may be secret, what it says."""

from __future__ import annotations

from typing import Any

from provision.inventory.keys import KeyPath
from provision.inventory.recognise import is_secret_name
from provision.inventory.secrets import SecretSource


def shown(value: Any, loc: KeyPath = ()) -> str:
    """A value for a message: what it is and, unless it may be secret, what it says."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, SecretSource):
        return "a secret"
    kind = {str: "the string", bool: "the boolean", int: "the number", float: "the number"}.get(type(value), "")
    if any(isinstance(part, str) and is_secret_name(part) for part in loc):
        return f"{kind or 'a value'} ***"
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
    text = text if len(text) <= 60 else text[:57] + "…"
    return f'{kind} "{text}"' if isinstance(value, str) else f"{kind} {text}".strip()
