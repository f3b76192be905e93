"""Tests of faults, on real hosts of a lab."""

from pathlib import Path

import pytest

from tests.support.labs import harness_factory, lab_factory, mark_as_lab

__all__ = ["harness_factory", "lab_factory"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of this folder."""
    mark_as_lab(items, Path(__file__).parent)
