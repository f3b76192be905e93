"""Fake runs and expected texts for the tests of the reports."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from provision.engine.events import Event

HERE = Path(__file__).parent
EventsOf = Callable[[str], list[Event]]


@pytest.fixture(scope="session")
def script() -> Path:
    """The script that plays fake runs."""
    return HERE / "fake_runs.py"


@pytest.fixture(scope="session")
def events_of(script: Path) -> EventsOf:
    """`events_of("first")`: the events of a fake run."""
    spec = importlib.util.spec_from_file_location("fake_runs", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda name: [event for _, event in module.RUNS[name]()]


@pytest.fixture
def expected() -> Callable[[str, str], None]:
    """`expected("first.txt", text)` compares with the file in `expected/`; PROVISION_KEEP=1 replaces that file."""

    def compare(name: str, text: str) -> None:
        path = HERE / "expected" / name
        if os.environ.get("PROVISION_KEEP"):
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8")

    return compare
