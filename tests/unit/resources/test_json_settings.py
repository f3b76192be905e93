"""`JsonSettings`: our keys in a JSON file that others write too."""

from __future__ import annotations

import json
from typing import Any

import pytest

from provision.errors import ProbeFailed, Refused
from provision.resources import Handler, JsonSettings, Result
from provision.resources.base import Change
from provision.shell import Command, sh
from provision.testing import NO_FILE, file_is, observe, planned

RESTART = Handler("restart-docker", "restart docker", sh("true"))
PATH = "/etc/docker/daemon.json"


def settings(**wanted: Any) -> JsonSettings:
    """Wanted keys, spelt with `_` for `-`."""
    return JsonSettings(PATH, {key.replace("_", "-"): one for key, one in wanted.items()}, notify=(RESTART,))


def plan(resource: JsonSettings, found: Result, ours: list[str] | None = None) -> list[Change]:
    """The changes, for a file and the keys that we once set."""
    return planned(resource, observe(resource, {"file": found}, record=ours))


def written(change: Change) -> Any:
    """The data that the change writes."""
    assert isinstance(change.run, Command)
    return json.loads(change.run.stdin)


def test_bare() -> None:
    """No file: created with our keys, which are recorded; the restart is notified."""
    (change,) = plan(settings(debug=True), NO_FILE)
    assert (change.summary, change.action) == (f"create {PATH}", "create")
    assert written(change) == {"debug": True}
    assert change.record == ["debug"]
    assert change.notify == (RESTART,)
    assert change.diff.splitlines()[3:] == ["+{", '+  "debug": true', "+}"]


def test_partly_applied() -> None:
    """Other people's keys stay, in their order; ours are set."""
    (change,) = plan(settings(debug=True, mtu=1400), file_is('{"bip": "10.0.0.1/24", "debug": false}'))
    assert (change.summary, change.action) == (f"update {PATH}", "update")
    assert list(written(change).items()) == [("bip", "10.0.0.1/24"), ("debug", True), ("mtu", 1400)]


def test_converged_in_any_layout() -> None:
    """Spaces, the order of keys and keys of others do not matter."""
    assert plan(settings(debug=True), file_is('{ "x":1,\n\n"debug" : true }'), ["debug"]) == []


def test_a_key_that_we_once_set_and_dropped_goes() -> None:
    """A key of others with the same history does not exist: only what is on record is taken out."""
    (change,) = plan(settings(debug=True), file_is('{"debug": true, "mtu": 1400, "bip": "x"}'), ["debug", "mtu"])
    assert written(change) == {"debug": True, "bip": "x"}
    assert change.record == ["debug"]


def test_nothing_wanted_any_more() -> None:
    """The last of our keys goes and nothing is on record; others' stay."""
    (change,) = plan(settings(), file_is('{"mtu": 1400, "bip": "x"}'), ["mtu"])
    assert written(change) == {"bip": "x"}
    assert change.record is None


@pytest.mark.parametrize("found", [NO_FILE, file_is(""), file_is("{}")])
def test_nothing_wanted_and_nothing_there(found: Result) -> None:
    """No file is written just to hold nothing."""
    assert plan(settings(), found) == []


def test_an_empty_file_counts_as_an_empty_object() -> None:
    """As dockerd itself takes it."""
    (change,) = plan(settings(debug=True), file_is("\n"))
    assert change.action == "update"
    assert written(change) == {"debug": True}


def test_true_is_not_one() -> None:
    """Values of other types that Python holds equal are different."""
    (change,) = plan(settings(debug=True), file_is('{"debug": 1}'))
    assert written(change) == {"debug": True}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{\n"a": 1,\n}', r"line 3: not JSON: "),
        ("[1]", "holds no JSON object"),
        ('"text"', "holds no JSON object"),
    ],
)
def test_broken_json_is_never_written_over(content: str, problem: str) -> None:
    """Refused, with the line where the parser stumbled."""
    with pytest.raises(Refused, match=problem) as caught:
        plan(settings(debug=True), file_is(content))
    assert "not overwritten" in caught.value.hint


def test_broken_encoding() -> None:
    """Not UTF-8: an error with a message."""
    with pytest.raises(ProbeFailed, match="is not UTF-8"):
        plan(settings(debug=True), file_is(b'{"a": "\xff"}'))


def test_broken_reading() -> None:
    """The host's own words."""
    with pytest.raises(ProbeFailed, match="Permission denied"):
        plan(settings(debug=True), Result(stderr=b"cat: Permission denied", code=1))
