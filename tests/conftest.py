"""Fixtures of unit and property tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="module")
def omnibus() -> Iterator[Any]:
    """One Ruby for all gitlab.rb of a module."""
    from tests.support.omnibus_ruby import Omnibus  # it imports the editor

    process = Omnibus()
    yield process
    process.close()
