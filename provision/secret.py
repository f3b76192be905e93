"""A secret is a type that does not print itself.

`str()`, `repr()`, formatting, pickling into a log or a traceback: all show `***`. Whoever needs the
text says `reveal()`, and the only callers are those that write it to a command's standard input, to a
file meant to hold it, or to an API. `mask` blanks every secret revealed so far out of a text that
came from elsewhere (a program's output, a diff).
"""

from __future__ import annotations

import base64
import json
import re
import threading
from typing import Final
from urllib.parse import quote

MASK: Final = "***"
_SHORTEST_MASKED: Final = 4  # masking shorter texts would blank innocent letters everywhere


class Secret:
    """Text that must not be shown. Equal to another by content; hashable; falsy when empty."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text
        _remember(text)

    def reveal(self) -> str:
        """The text itself: for standard input, files meant to hold it, and APIs."""
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
    """The text of a secret, or the plain text itself."""
    return value.reveal() if isinstance(value, Secret) else value


_known: set[str] = set()
_known_lock = threading.Lock()


def _remember(text: str) -> None:
    """Notes the forms in which a secret may come back in a program's output."""
    forms = {text, json.dumps(text)[1:-1], quote(text, safe=""), base64.b64encode(text.encode()).decode()}
    forms |= {line for line in text.splitlines() if len(line) >= 16}  # a key's lines, one by one
    with _known_lock:
        _known.update(form for form in forms if len(form) >= _SHORTEST_MASKED)


def mask(text: str) -> str:
    """`text` with every secret that this process knows replaced by `***`."""
    with _known_lock:
        known = sorted(_known, key=len, reverse=True)
    for form in known:
        if form in text:
            text = text.replace(form, MASK)
    return text


_SECRET_NAME = re.compile(
    r"(?:token|password|passwd|passphrase|secret|secret_?key|access_?key|access_?key_?id|api_?key"
    r"|private_?key|account_?key|signing_?key|key_base|sentry_dsn)$",
    re.IGNORECASE,
)


def is_secret_name(key: str) -> bool:
    """Whether a string under this key is taken for a secret."""
    return _SECRET_NAME.search(key) is not None
