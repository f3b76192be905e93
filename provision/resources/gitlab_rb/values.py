"""What a setting holds: plain values, and the two answers that are none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from provision.errors import Refused
from provision.secret import Secret
from provision.values import dataclass

# Any: the nesting is recursive, and callers hand in whatever their inventory's models hold.
Value: TypeAlias = str | Secret | bool | int | float | Sequence[Any] | Mapping[str, Any] | None
Plain: TypeAlias = Any
"""A value as Ruby would hold it: str, Symbol, bool, int, float, None, list, dict; NotLiteral inside where unknown."""


class Symbol(str):
    """A Ruby symbol as a value (`:debug`). It reads as its name, and differs from the string of that name."""

    __slots__ = ()


@dataclass(frozen=True)
class NotLiteral:
    """Something is set, and only Ruby knows what: `line` (1-based) and the reason, for the message."""

    line: int
    why: str = "computed by Ruby"


class Missing:
    """Nothing in the file sets it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


MISSING: Final = Missing()


def plain(value: Value, where: str) -> Plain:
    """`value` with secrets revealed, as str, bool, int, float, None, list and dict only.

    Raises Refused, naming `where`, for what gitlab.rb cannot say: dates, infinities, broken unicode.
    """
    if isinstance(value, Secret):
        value = value.reveal()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, str):
        if any("\ud800" <= char <= "\udfff" for char in value):
            raise Refused(f"{where}: the text holds half of a UTF-16 pair", hint="write it as valid Unicode")
        return value if type(value) is Symbol else str(value)
    if isinstance(value, Mapping):
        return {plain(str(key), where): plain(item, where) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [plain(item, where) for item in value]
    raise Refused(
        f"{where}: gitlab.rb cannot hold a value of type {type(value).__name__}",
        hint="use text, a finite number, true, false, an array or a table",
    )


def secrets_in(value: Value) -> set[str]:
    """The texts of all secrets inside `value`."""
    if isinstance(value, Secret):
        return {value.reveal()}
    if isinstance(value, Mapping):
        return {text for item in value.values() for text in secrets_in(item)}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return {text for item in value for text in secrets_in(item)}
    return set()


def same(one: Plain, other: Plain) -> bool:
    """Equal to Ruby: `1`, `1.0` and `true` differ, the order of keys does not count."""
    if isinstance(one, NotLiteral) or isinstance(other, NotLiteral) or type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(item, other[key]) for key, item in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return repr(one) == repr(other) if isinstance(one, float) else bool(one == other)  # -0.0 is not 0.0


def lookup(value: Plain, keys: Sequence[str]) -> Plain:
    """What stands under `keys` inside `value`: MISSING where nothing does, NotLiteral where it cannot be known."""
    for key in keys:
        if isinstance(value, NotLiteral):
            return value
        if not isinstance(value, dict) or key not in value:
            return MISSING
        value = value[key]
    return value
