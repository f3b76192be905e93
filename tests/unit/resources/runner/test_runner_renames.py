"""Runners without a token that got another name in the inventory."""

from __future__ import annotations

from typing import Any

import pytest

from provision.resources.runner.entries import Sought, follow

URL = "https://gitlab.example.com"
KEYS = ("executor", "name")


def record(url: str = URL, keys: tuple[str, ...] = KEYS, scope: str = "instance_type", *, made: bool = True) -> Any:
    """What state.json has of one."""
    return {"url": url, "keys": list(keys), "scope": scope, "made": made, "fingerprint": "f", "id": 7}


def sought(name: str, url: str = URL, keys: tuple[str, ...] = KEYS, scope: str = "instance_type") -> Sought:
    """A runner of the inventory."""
    return Sought(name, url, keys, scope)


def test_one_went_and_one_came() -> None:
    """It is the same; what stays is not touched."""
    records = {"old": record(), "kept": record()}
    assert follow(records, ["kept", "new"], [sought("kept"), sought("new")]) == {
        "new": records["old"],
        "kept": records["kept"],
    }


@pytest.mark.parametrize(
    "before",
    [
        record(url="https://other.example.com"),
        record(keys=("executor", "limit", "name")),
        record(scope="project_type 7"),
        record(made=False),
    ],
    ids=["another server", "other keys", "of another project", "not made by us"],
)
def test_one_that_differs_in_more_than_its_name(before: Any) -> None:
    """It is another runner."""
    assert follow({"old": before}, ["new"], [sought("new")]) == {"old": before}


def test_more_than_one_could_be_meant() -> None:
    """Nothing is guessed, whichever side there are two of."""
    two = {"a": record(), "b": record()}
    assert follow(two, ["new"], [sought("new")]) == two
    one = {"a": record()}
    assert follow(one, ["x", "y"], [sought("x"), sought("y")]) == one


def test_two_of_different_kinds() -> None:
    """Each finds its own."""
    records = {"a": record(), "b": record(keys=("executor",))}
    found = follow(records, ["x", "y"], [sought("x", keys=("executor",)), sought("y")])
    assert found == {"y": records["a"], "x": records["b"]}


def test_nothing_on_record() -> None:
    """A first run."""
    assert follow({}, ["new"], [sought("new")]) == {}
