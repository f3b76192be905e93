"""Inventories written for a test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from provision.engine.catalogue import load_inventory as load
from provision.errors import InventoryError
from provision.inventory import Inventory

# seven lines: what a test adds stands from line 8 on
ESTATE = """\
[hosts.gitlab]
groups = ["gitlab"]
[hosts."runner-[01:03]"]
address = "198.18.0.[1:3]"
groups = ["runners"]
[gitlab]
external_url = "https://gitlab.example.com"
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file that others cannot read: `write(text, name, mode)`."""

    def write(text: str, name: str = "inventory.toml", mode: int = 0o600) -> Path:
        path = tmp_path / name
        path.write_text(text, "utf-8")
        path.chmod(mode)
        return path

    return write


@pytest.fixture
def write_estate(write: Callable[..., Path]) -> Callable[..., Path]:
    """Writes a small estate with more text behind it, from line 8 on."""
    return lambda more="", **how: write(ESTATE + more, **how)


@pytest.fixture
def estate(write_estate: Callable[..., Path]) -> Callable[..., Inventory]:
    """Loads the small estate with more text behind it, and `--set` values."""

    def estate(more: str = "", overrides: Sequence[str] = ()) -> Inventory:
        return load([write_estate(more)], overrides)

    return estate


@pytest.fixture
def mistake(write_estate: Callable[..., Path]) -> Callable[..., str]:
    """`mistake(more, expected)`: the message with an expected text, from the number of its line on. The error has a hint."""

    def mistake(more: str, expected: str) -> str:
        path = write_estate(more)
        with pytest.raises(InventoryError) as caught:
            load([path])
        messages = [text for text in caught.value.text.splitlines() if expected in text]
        assert messages, caught.value.text
        assert messages[0].startswith(f"{path}:")
        assert caught.value.hint
        return messages[0].removeprefix(f"{path}:")

    return mistake
