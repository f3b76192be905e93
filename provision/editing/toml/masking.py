"""Secrets in config.toml, and its masked diff.

The scan recognises strings, comments and keys. It also works on TOML that is not valid, since the diff of a broken file
must not print secrets either.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from provision.editing.diff import Span, masked_diff
from provision.secret import is_secret_name, secret_values

_ENVIRONMENT: Final = "environment"  # `NAME=value` for jobs: any of them may be a secret, whatever its name
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_TOKEN = re.compile(
    r'''(?P<comment>\#[^\n]*)|(?P<string>"""(?:\\.|[^\\])*?(?:"{3,5}|\Z)|\'\'\'.*?(?:'{3,5}|\Z)'''
    r"""|"(?:\\.|[^"\\\n])*(?:"|(?=\n)|\Z)|'[^'\n]*(?:'|(?=\n)|\Z))"""
    r"""|(?P<word>[A-Za-z0-9_+:-]+)|(?P<sign>[=\[\]{},.])|(?P<newline>\n)|(?P<rest>.)""",
    re.DOTALL,
)


def diff(before: str, after: str, path: str = "/etc/gitlab-runner/config.toml") -> str:
    """Return the masked diff of two config.toml texts; see `find_secrets` for what is masked."""
    return masked_diff(path, before, after, find_secrets)


def find_secrets(content: bytes) -> Iterator[Span]:
    """Find the values of secret-looking keys, of keys in tables with such a name, and all values of `environment`.

    In comments and in strings these are the values after secret-looking names. In a secret string of the form
    `NAME=value`, the name is printed.
    """
    text = content.decode("latin-1")  # one letter for each byte, so that offsets are those of the content
    scan = _Scan()
    for token in _TOKEN.finditer(text):
        kind, part = token.lastgroup or "", token.group()
        secret = scan.is_secret_value(kind, part)
        if secret and kind == "word":
            yield token.span()
        elif secret:
            yield _inner(token)
        elif kind in ("comment", "string"):
            yield from ((token.start() + first, token.start() + last) for first, last in secret_values(part))
        scan.advance(kind, part)


def _inner(string: re.Match[str]) -> Span:
    """The span of a string's value: without its quotes, and without the name in `NAME=value`."""
    part = string.group()
    quote = part[:3] if part[:3] in ('"""', "'''") else part[:1]
    closed = len(part) >= 2 * len(quote) and part.endswith(quote)
    start, end = string.start() + len(quote), string.end() - (len(quote) if closed else 0)
    name = _VARIABLE.match(string.string, start, end)
    return (name.end() if name else start), end


@dataclass
class _Scan:
    """The position of the scan: in a header, in a key or in a value, and whether the value is secret.

    inherited  the name of the header, or the key of an enclosing table, names a secret
    secret     the key of the current value names a secret, or `inherited` is true
    names      the words of the current header or key
    outer      open brackets, each with the values of `inherited` and `secret` before it
    """

    inherited: bool = False
    secret: bool = False
    in_key: bool = True
    in_header: bool = False
    names: list[str] = field(default_factory=list)
    outer: list[tuple[str, bool, bool]] = field(default_factory=list)

    def is_secret_value(self, kind: str, part: str) -> bool:
        """Whether this token is a value to mask."""
        readable = self.in_header or self.in_key or not self.secret or part in ("true", "false")
        return kind in ("string", "word") and not readable

    def advance(self, kind: str, part: str) -> None:
        """Move past one token."""
        if kind in ("string", "word"):
            self.names.append(part.strip("\"'"))
        elif part == "=" and not self.in_header:
            if not self.in_key:
                self.outer.clear()  # not TOML: an array was left open, and the next pair begins
            self.in_key, self.secret = False, self.inherited or self._has_secret_name()
        elif part == "[" and self.in_key and not self.outer:
            self.in_header, self.names = True, []
        elif part in ("[", "{") and not self.in_header:
            self.outer.append((part, self.inherited, self.secret))
            if part == "{":
                self.inherited, self.in_key, self.names = self.secret, True, []
        elif part in ("]", "}") and self.outer and not self.in_header:
            _, self.inherited, self.secret = self.outer.pop()
            self.in_key = False
        elif part == "," and self.outer and self.outer[-1][0] == "{":
            self.in_key, self.names = True, []
        elif kind == "newline":
            self._end_line()

    def _end_line(self) -> None:
        if self.in_header:
            self.in_header, self.inherited = False, self._has_secret_name()
        if not self.outer:
            self.in_key = True
        self.names = []

    def _has_secret_name(self) -> bool:
        return any(is_secret_name(name) or name == _ENVIRONMENT for name in self.names)
