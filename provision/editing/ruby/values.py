"""The paths and values of gitlab.rb settings, and writing them as Ruby source.

A value that Ruby would hold is plain data: str, Symbol, bool, int, float, None, list, dict. Two more answers exist:
`MISSING` (nothing in the file sets it) and `NotLiteral` (only Ruby can compute it).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from provision.errors import Refused
from provision.secret import Secret

# Any: the nesting is recursive, and callers pass the values of the inventory's models.
Value: TypeAlias = str | Secret | bool | int | float | Sequence[Any] | Mapping[str, Any] | None
"""A wanted value. It may contain secrets at any depth."""
Plain: TypeAlias = Any
"""A value as in Ruby. It contains `NotLiteral` for each computed part."""
Path: TypeAlias = tuple[str, ...]
"""A setting: ("external_url",) is `external_url`, ("nginx", "enable") is `nginx['enable']`."""

_ROOT = re.compile(r"[a-z_][A-Za-z0-9_]*\Z")


class Symbol(str):
    """A Ruby symbol as a value (`:debug`). Its text is its name; it differs from the string of that name."""

    __slots__ = ()


@dataclass(frozen=True, eq=False)
class NotLiteral:
    """A value that only Ruby can compute. It is equal to nothing, not even to itself.

    line  the line in the file, from 1
    why   the reason, for messages
    """

    line: int
    why: str = "computed by Ruby"

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]  # an object that equals nothing cannot be a key


class Missing:
    """The type of `MISSING`: nothing in the file sets it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


MISSING: Final = Missing()


def plain(value: Value, where: str) -> Plain:
    """Return `value` as plain data, with secrets revealed.

    Raises Refused, naming `where`, for what gitlab.rb cannot hold: dates, infinities, half of a UTF-16 pair.
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


def lookup(value: Plain, keys: Sequence[str]) -> Plain:
    """Return the value under `keys` in nested hashes: MISSING if there is none, NotLiteral if it is computed."""
    for key in keys:
        if isinstance(value, NotLiteral):
            return value
        if not isinstance(value, dict) or key not in value:
            return MISSING
        value = value[key]
    return value


_WIDTH = 100  # columns; a longer array is written one element a line
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\x1b": "\\e"}
_INTERPOLATES = re.compile(r"#(?=[{$@])")


def render(value: Value, *, indent: int = 0, inline: bool = False, ascii_only: bool = False) -> str:
    """Return Ruby source for `value`, with secrets in clear: use the result for the file only.

    indent      spaces before every line but the first; lines end in \\n
    inline      keep it on one line
    ascii_only  write other letters as escapes, for files that are not UTF-8

    Raises Refused for a value that Ruby source cannot express.
    """
    return _render(plain(value, "gitlab.rb"), indent, inline, ascii_only)


def _render(value: Plain, indent: int, inline: bool, ascii_only: bool) -> str:
    if value is None:
        return "nil"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return (":" if isinstance(value, Symbol) else "") + render_string(value, ascii_only=ascii_only)
    if isinstance(value, list):
        return _array(value, indent, inline, ascii_only)
    pairs = [(render_string(key, ascii_only=ascii_only), item) for key, item in value.items()]
    if not pairs:
        return "{}"
    if inline:
        return "{ " + ", ".join(f"{key} => {_render(item, 0, True, ascii_only)}" for key, item in pairs) + " }"
    lines = [f"{key} => {_render(item, indent + 2, False, ascii_only)}" for key, item in pairs]
    return _block("{", lines, "}", indent)


def _array(value: list[Plain], indent: int, inline: bool, ascii_only: bool) -> str:
    flat = "[" + ", ".join(_render(item, 0, True, ascii_only) for item in value) + "]"
    if inline or (indent + len(flat) <= _WIDTH and not any(isinstance(item, dict) and item for item in value)):
        return flat
    return _block("[", [_render(item, indent + 2, False, ascii_only) for item in value], "]", indent)


def _block(opening: str, lines: list[str], closing: str, indent: int) -> str:
    inner = " " * (indent + 2)
    return f"{opening}\n{inner}" + f",\n{inner}".join(lines) + "\n" + " " * indent + closing


def render_string(text: str, *, ascii_only: bool = False) -> str:
    """Return a Ruby string literal on one line: in single quotes where nothing needs an escape, else in double ones."""
    printable = text.isprintable() and (text.isascii() or not ascii_only)
    if printable and "'" not in text and "\\" not in text:
        return f"'{text}'"
    parts = [_escaped(char, ascii_only) for char in text]
    for found in _INTERPOLATES.finditer(text):
        parts[found.start()] = "\\#"
    return '"' + "".join(parts) + '"'


def _escaped(char: str, ascii_only: bool) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable() and (char.isascii() or not ascii_only):
        return char
    return f"\\u{{{ord(char):x}}}"


def covers(outer: Path, inner: Path) -> bool:
    """Return whether `outer` is `inner` or a hash that holds it."""
    return inner[: len(outer)] == outer


def related(one: Path, other: Path) -> bool:
    """Return whether setting one of the paths affects the other."""
    return covers(one, other) or covers(other, one)


def setting_name(path: Path) -> str:
    """Return the path in Ruby notation: `registry['nginx']['enable']`. Raises Refused if it cannot be a setting."""
    if not path or not _ROOT.match(path[0]):
        raise Refused(
            f"{'.'.join(path) or '(nothing)'} is not the name of a gitlab.rb setting",
            hint="the first part must be a Ruby method's name, like gitlab_rails",
        )
    return path[0] + "".join(f"[{render_string(key)}]" for key in path[1:])


def statement(path: Path, value: str) -> str:
    """Return the statement that sets `path` to the Ruby source `value`: a call for one part, else an assignment."""
    if len(path) > 1:
        return f"{setting_name(path)} = {value}"
    # Without parentheses Ruby takes a brace for a block and may take a minus for a subtraction.
    return f"{setting_name(path)}({value})" if value[:1] in ("{", "-") else f"{setting_name(path)} {value}"


def nginx_path(version: str) -> Path:
    """Return the path of the registry's NGINX settings in GitLab `version` ("19.3.0", "19.3.0-ce.0", "v19.3.0+ce.0").

    From 19.2 on it is `registry['nginx']`. Older versions ignore it silently and read `registry_nginx`.
    Raises Refused when the text does not begin with a version.
    """
    found = re.match(r"v?(\d+)\.(\d+)", version.strip())
    if not found:
        raise Refused(f"{version!r} is not a GitLab version", hint="expected something like 19.3.0 or 19.3.0-ce.0")
    return ("registry", "nginx") if (int(found[1]), int(found[2])) >= (19, 2) else ("registry_nginx",)
