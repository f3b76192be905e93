"""Secrets: a type that prints as `***`, and names that indicate a secret.

`str()`, `repr()`, formatting and pickling of a `Secret` give `***`. `reveal()` returns the text. Only code that writes
the text to a command's standard input, to a file that must contain it, or to an API calls it. `provision.masking` replaces
every secret of this process in text from elsewhere (a program's output, a diff). `is_secret_name` is the only list of key
names whose values are treated as secrets: the inventory, the diffs and the messages use it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from provision.masking import MASK, mask, register

__all__ = [
    "MASK",
    "Secret",
    "is_secret_name",
    "mask",
    "mask_secret_values",
    "reveal",
    "revealed",
    "secret_texts",
    "secret_values",
]


class Secret:
    """Text that must not be shown. Two secrets are equal when their texts are; an empty one is false."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text
        register(text)

    def reveal(self) -> str:
        """Return the text: for standard input, for files that must contain it, and for APIs."""
        return self._text

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(("Secret", self._text))

    def __bool__(self) -> bool:
        return bool(self._text)

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (MASK,)


def reveal(value: str | Secret) -> str:
    """Return the text of a secret, or the plain text itself."""
    return value.reveal() if isinstance(value, Secret) else value


def secret_texts(value: Any) -> set[str]:
    """Return the texts of all secrets inside nested mappings, lists and tuples."""
    if isinstance(value, Secret):
        return {value.reveal()}
    if isinstance(value, Mapping):
        return {text for item in value.values() for text in secret_texts(item)}
    if isinstance(value, list | tuple):
        return {text for item in value for text in secret_texts(item)}
    return set()


def revealed(value: Any) -> Any:
    """Return the same nested data with each secret replaced by its text: mappings as dicts, tuples as lists."""
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, Mapping):
        return {key: revealed(item) for key, item in value.items()}
    return [revealed(item) for item in value] if isinstance(value, list | tuple) else value


_SECRET_WORD = (
    r"(?:tokens?|passw(?:or)?ds?|passphrases?|(?:require|auth)_?pass|masterauth|secrets?|credentials?|authorization"
    r"|auth_?config|key_?base|(?:(?<=[_-])|(?<![^\W\d_]))dsn|json_?key"
    r"|(?:(?<=[_-])|(?<![^\W\d_]))salt"
    r"|(?:access|secret|api|private|account|shared|signing|encryption|internal|deterministic|encryption_?primary)_?keys?(?:_?id)?)"
)
_SECRET_NAME = re.compile(rf"{_SECRET_WORD}(?:_?(?:value|text|string|json|pem|hash|base64|\d+))?\Z", re.IGNORECASE)
_NOT_SECRET: Final = frozenset({"server_tokens"})  # NGINX: whether it shows its version


def is_secret_name(name: str) -> bool:
    """Return whether the value under this key is treated as a secret.

    The name must end in a word such as token, password, secret, credentials or private_key, in any case, with `-` or
    `_` or nothing between the words. Names of a secret's attributes are not secret: token_expires_at, secret_file,
    password_min_length, ssl_certificate_key (a path).
    """
    name = name.replace("-", "_")
    return _SECRET_NAME.search(name) is not None and name.lower() not in _NOT_SECRET


# Each of these words contains one of the stems: text without a stem is not searched.
_STEMS: Final = ("token", "pass", "secret", "credential", "auth", "key", "dsn", "salt")
_WORD_IN_TEXT = re.compile(_SECRET_WORD.replace("_?", "[_-]?"), re.IGNORECASE)
_NAME_LETTER = re.compile(r"[\w-]")
_VALUE_BEHIND = re.compile(
    r"""\\?["']?\]?(?:[ \t]*+(?:=>|[=:])[ \t]++|=>|(?P<tight>[=:])|[ \t]++(?=\\?["']))"""
    r"""(?:\[(?P<list>[ \t]*["'][^\]\n]*)|\\"(?P<escaped>[^"\n]*?)(?=\\"|\n|\Z)|"(?P<double>(?:\\.|[^"\\\n])*)|'(?P<single>[^'\n]*)"""
    r"""|(?!(?:true|false|nil|null)\b|[{\[])(?P<plain>(?(tight)[^\s"']|[^\n"])+))"""
)


def secret_values(text: str) -> Iterator[tuple[int, int]]:
    """Find values after secret-looking names in free text: comments, scripts, YAML in strings, broken files.

    Yields (start, end) of each value without its quotes. It reads `NAME=value`, `name: value`, `name = value`,
    `'name' => 'value'` and `name "value"`. An unquoted value after `NAME=` or `name:` ends at white space; after
    `name: ` or `name = ` it ends with the line.
    """
    lower = text.lower()
    if not any(stem in lower for stem in _STEMS):
        return
    done = 0
    for word in _WORD_IN_TEXT.finditer(text):
        if word.start() < done:
            continue
        start, end = word.span()
        while start > done and _NAME_LETTER.match(text, start - 1):
            start -= 1
        while _NAME_LETTER.match(text, end):
            end += 1
        found = _VALUE_BEHIND.match(text, end) if is_secret_name(text[start:end]) else None
        if found is not None:
            done = found.end()
            first, last = found.span(str(found.lastgroup))
            if first < last:
                yield first, last


def mask_secret_values(text: str) -> str:
    """Return free text with the values after secret-looking names replaced by `***`; see `secret_values`."""
    pieces, at = [], 0
    for start, end in secret_values(text):
        pieces += [text[at:start], MASK]
        at = end
    return "".join([*pieces, text[at:]])
