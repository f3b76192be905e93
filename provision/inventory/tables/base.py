"""What all tables share, and the checks that several of them need."""

from __future__ import annotations

import math
import re
from typing import Any

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
