"""What a setting holds: plain values, and the two answers that are none.

What a Ruby string literal says. Source: Ruby's doc/syntax/literals.rdoc.

Values as Ruby source, the way an ops person would write them, safe whatever they hold.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from provision.errors import Refused
from provision.secret import Secret

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


_CONTROL = {"n": "\n", "t": "\t", "s": " ", "r": "\r", "e": "\x1b", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_ESCAPE = re.compile(
    r"\\(?:u\{\s*(?P<many>[0-9A-Fa-f]+(?:\s+[0-9A-Fa-f]+)*)\s*\}|u(?P<four>[0-9A-Fa-f]{4})"
    r"|x(?P<hex>[0-9A-Fa-f]{1,2})|(?P<octal>[0-7]{1,3})|(?P<odd>[cCMux])|(?P<other>.))",
    re.DOTALL,
)
_CLOSING = {"(": ")", "[": "]", "{": "}", "<": ">"}


class Unreadable(Exception):
    """The literal holds what is left to Ruby: bytes that are no text, control notation."""


def quoted(opening: str, inner: str) -> str:
    """The text of a literal that begins with `opening` (`'`, `"`, `%q(`, `%|` …). Raises Unreadable."""
    inner = inner.replace("\r\n", "\n")  # as Ruby's lexer does
    delimiter = opening[-1]
    if opening == "'" or opening.startswith("%q"):
        ends = re.escape(delimiter + _CLOSING.get(delimiter, delimiter) + "\\")
        return re.sub(rf"\\([{ends}])", r"\1", inner)
    return unescape(inner)


def unescape(inner: str) -> str:
    """Double-quoted text with its escapes resolved. Raises Unreadable."""
    return _ESCAPE.sub(_resolve, inner) if "\\" in inner else inner


def _resolve(found: re.Match[str]) -> str:
    if found["many"] or found["four"]:
        try:
            return "".join(chr(int(code, 16)) for code in (found["many"] or found["four"]).split()).encode().decode()
        except (ValueError, OverflowError) as error:
            raise Unreadable from error
    if found["hex"] or found["octal"]:
        code = int(found["hex"], 16) if found["hex"] else int(found["octal"], 8)
        if code > 127:
            raise Unreadable
        return chr(code)
    if found["odd"]:
        raise Unreadable
    other = found["other"]
    return "" if other == "\n" else _CONTROL.get(other, other)


def heredoc(opening: str, body: str) -> str:
    """The text of a heredoc: `opening` is `<<~'EOS'` and the like, `body` its whole lines. Raises Unreadable."""
    body = body.replace("\r\n", "\n")
    raw = "'" in opening
    if not raw and re.search(r"(?<!\\)(?:\\\\)*\\\n", body):
        raise Unreadable  # a continued line: left to Ruby
    if opening.startswith("<<~"):
        if "\t" in body or (not raw and set(body) & set("\\#")):
            raise Unreadable  # tabs count as columns; escapes and `#` bend Ruby's idea of the margin
        lines = body.split("\n")
        if any(line and not line.strip(" ") for line in lines):
            raise Unreadable  # Ruby 3.1 counts the line after one of blanks alone wrongly
        margin = min((len(line) - len(line.lstrip(" ")) for line in lines if line.strip(" ")), default=0)
        body = "\n".join(line[min(margin, len(line) - len(line.lstrip(" "))) :] for line in lines)
    return body if raw else unescape(body)


_WIDTH = 100  # an array longer than this goes on lines of its own
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\x1b": "\\e"}
_INTERPOLATES = re.compile(r"#(?=[{$@])")


def render(value: Value, *, indent: int = 0, inline: bool = False, ascii_only: bool = False) -> str:
    """Ruby source for `value`; lines after the first are indented by `indent` spaces, ended by \\n.

    Secrets come out in clear: the result is for the file alone. `inline` keeps it on one line, `ascii_only` writes
    other letters as escapes, for files that are not UTF-8. Raises Refused for what Ruby source cannot say.
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
    """A Ruby string literal, on one line: single quotes where nothing needs an escape, else double ones."""
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
