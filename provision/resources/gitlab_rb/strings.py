"""What a Ruby string literal says. Source: Ruby's doc/syntax/literals.rdoc."""

from __future__ import annotations

import re

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
