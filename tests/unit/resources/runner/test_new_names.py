"""Runners without a token that have another name in the inventory now."""

from __future__ import annotations

import pytest

from provision.resources.runner.registrations import Candidate, RunnerRecord, under_new_names

URL = "https://gitlab.example.com"
KEYS = ("executor", "name")
RECORD = RunnerRecord(URL, "f", 7, created=True, keys=KEYS, scope="instance_type")
OTHER = RECORD._replace(fingerprint="g", id=8)


def candidate(name: str, keys: tuple[str, ...] = KEYS) -> Candidate:
    """A runner of the inventory."""
    return Candidate(name, URL, keys, "instance_type")


def test_one_left_and_one_came() -> None:
    """It is the same runner; the one that stays is unchanged."""
    found = under_new_names({"old": RECORD, "kept": OTHER}, ["kept", "new"], [candidate("kept"), candidate("new")])
    assert found == {"new": RECORD, "kept": OTHER}


@pytest.mark.parametrize(
    "changes",
    [
        {"url": "https://other.example.com"},
        {"keys": ("executor", "limit", "name")},
        {"scope": "project_type 7"},
        {"created": False},
    ],
    ids=["another server", "other keys", "of another project", "not created by us"],
)
def test_one_that_differs_in_more_than_its_name(changes: dict[str, object]) -> None:
    """It is another runner."""
    before = RECORD._replace(**changes)
    assert under_new_names({"old": before}, ["new"], [candidate("new")]) == {"old": before}


def test_several_could_be_meant() -> None:
    """Then none is, whichever side has two."""
    two = {"a": RECORD, "b": OTHER}
    assert under_new_names(two, ["new"], [candidate("new")]) == two
    one = {"a": RECORD}
    assert under_new_names(one, ["x", "y"], [candidate("x"), candidate("y")]) == one


def test_two_with_different_keys() -> None:
    """Each is recognised."""
    other = OTHER._replace(keys=("executor",))
    found = under_new_names({"a": RECORD, "b": other}, ["x", "y"], [candidate("x", ("executor",)), candidate("y")])
    assert found == {"y": RECORD, "x": other}


def test_no_records() -> None:
    """A first run."""
    assert under_new_names({}, ["new"], [candidate("new")]) == {}


@pytest.mark.parametrize("record", [RECORD, RECORD._replace(scope=""), RunnerRecord()])
def test_a_record_is_read_as_it_was_written(record: RunnerRecord) -> None:
    """state.json keeps its keys of version 0.1.0."""
    assert RunnerRecord.parse(record.data()) == record
    assert set(record.data()) - {"scope"} == {"url", "fingerprint", "id", "made", "keys"}
