"""What all tables share, and the checks that several of them need."""

from __future__ import annotations

import math
import re
from typing import Any
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict

from provision.inventory.secrets import SecretSource
from provision.inventory.tree import KeyPath


class Table(BaseModel):
    """A table whose keys are all known; values are never coerced (`"5"` is no number)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Wrong(ValueError):
    """A value that is refused; `at` is where it stands below the table that is checked."""

    def __init__(self, text: str, *at: str | int) -> None:
        super().__init__(text)
        self.at: KeyPath = at


def version(text: str | None) -> str | None:
    """A package version, `*` allowed."""
    if text is not None and (text.startswith("-") or not re.fullmatch(r"[A-Za-z0-9.+:~*-]+", text)):
        raise ValueError(f'expected a package version such as "19.3.0" or "5:29.*", got {text!r}')
    return text


def base_url(text: str, *, path: bool, example: str) -> str:
    """An http(s) URL without user, query and closing slash; with or without a path."""
    parts = split_url(text)
    ok = parts is not None and parts.hostname and parts.scheme in ("http", "https") and not re.search(r"\s", text)
    if parts is None or not ok or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(f'expected a URL with its scheme, such as "{example}", got {text!r}')
    if not path and parts.path.strip("/"):
        raise ValueError(f'expected a URL without a path, such as "{example}", got {text!r}')
    return text.rstrip("/")


def split_url(text: str) -> SplitResult | None:
    """The URL's parts, or None when it is malformed."""
    try:
        parts = urlsplit(text)
        return parts if parts.port is None or parts.port > 0 else None
    except ValueError:
        return None


def port_of(url: str) -> int:
    """The port of a checked URL, the scheme's own by default."""
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def host_path(text: str) -> str:
    """An absolute path on the host."""
    if not text.startswith("/"):
        raise ValueError(f"expected an absolute path on the host, got {text!r}")
    return text


def plain_data(value: Any, *at: str | int) -> Any:
    """Free-form data of strings, numbers, booleans, arrays, tables and secrets: what JSON and Ruby know too."""
    if isinstance(value, dict):
        for key, one in value.items():
            plain_data(one, *at, key)
    elif isinstance(value, list):
        for place, one in enumerate(value):
            plain_data(one, *at, place)
    elif not isinstance(value, str | int | float | SecretSource) or (isinstance(value, float) and not finite(value)):
        raise Wrong(f"expected a string, number, boolean, array or table, got {value}", *at)
    return value


def finite(value: float) -> bool:
    """No nan, no inf."""
    return math.isfinite(value)
