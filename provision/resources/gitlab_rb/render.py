"""Values as Ruby source, the way an ops person would write them, safe whatever they hold."""

from __future__ import annotations

import re

from provision.resources.gitlab_rb.values import Plain, Symbol, Value, plain

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
