"""Tests on real hosts of a lab."""

from pathlib import Path

import pytest

from tests.support.labs import lab_factory, mark_as_lab, trial_factory

__all__ = ["lab_factory", "trial_factory"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of this folder."""
    mark_as_lab(items, Path(__file__).parent)
