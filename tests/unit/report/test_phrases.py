"""Counts, durations, sizes, and the one sentence on how a run ended."""

from __future__ import annotations

import pytest

from provision.engine.events import ChangeEvent, ErrorEvent, HostSummary, Summary
from provision.report.folding import RunLog
from provision.report.text import describe_change, describe_result, duration, failure_label, place, size

NONE, CHANGED = HostSummary(), HostSummary(changed=7)
ONE = {"a": CHANGED}
THREE = {"a": CHANGED, "b": CHANGED, "c": NONE}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (0.84, "0.8 s"), (59.9, "59.9 s"), (59.96, "1 min 00 s"), (123, "2 min 03 s"), (3720, "1 h 02 min")],
)
def test_durations_are_rounded_to_what_matters(seconds: float, text: str) -> None:
    """Tenths of seconds matter only below a minute."""
    assert duration(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0 B"), (999, "999 B"), (12_340, "12.3 kB"), (4_000_000, "4.0 MB")])
def test_sizes_use_decimal_units(number: int, text: str) -> None:
    """A kB is a thousand bytes."""
    assert size(number) == text


@pytest.mark.parametrize(
    ("summary", "text", "tone"),
    [
        (Summary(False, 14, 0, 0, 41.2, THREE), "14 changes on 2 of 3 hosts, 41.2 s", "good"),
        (Summary(False, 1, 0, 0, 1, ONE), "1 change on 1 host, 1.0 s", "good"),
        (Summary(False, 0, 0, 0, 0.8, dict.fromkeys("abc", NONE)), "Nothing to change on 3 hosts, 0.8 s", "good"),
        (Summary(True, 0, 0, 0, 0.8, dict.fromkeys("abc", NONE)), "Nothing to change on 3 hosts, 0.8 s", "good"),
        (
            Summary(True, 14, 0, 0, 1, THREE),
            "14 changes pending on 2 of 3 hosts, nothing was changed, 1.0 s",
            "warning",
        ),
        (Summary(False, 0, 2, 0, 1, THREE), "2 of 3 hosts failed, no changes, 1.0 s", "bad"),
        (Summary(False, 0, 0, 1, 1, THREE), "1 of 3 hosts unreachable, no changes, 1.0 s", "bad"),
        (
            Summary(True, 5, 1, 1, 1, THREE),
            "1 of 3 hosts failed, 1 unreachable, 5 changes pending on 2 hosts, nothing was changed, 1.0 s",
            "bad",
        ),
        (Summary(False, 4, 0, 0, 9, THREE, True), "Interrupted after 9.0 s: 4 changes on 2 of 3 hosts", "bad"),
        (Summary(False, 4, 1, 0, 9, ONE, True), "Interrupted after 9.0 s: 4 changes on 1 host, 1 failed", "bad"),
    ],
)
def test_result_says_how_the_run_ended(summary: Summary, text: str, tone: str) -> None:
    """One sentence for each way in which a run ends."""
    assert describe_result(RunLog(summary=summary)) == (text, tone)


def test_result_without_a_summary_says_that_the_run_broke_off() -> None:
    """An exception of ours ended it."""
    assert describe_result(RunLog()) == ("The run did not complete", "bad")


def test_changes_are_worded_by_what_became_of_them() -> None:
    """Applied, only planned, resting on changes that are planned, or not applied."""
    planned = ChangeEvent("h", "t", "r", "run", "start docker", "", False)
    applied = ChangeEvent("h", "t", "r", "run", "start docker", "", True)
    predicted = ChangeEvent("h", "t", "r", "run", "start docker", "", False, predicted=True, requires="apt")
    assert describe_change(planned, check=True) == "would start docker"
    assert describe_change(applied, check=False) == "start docker"
    assert describe_change(predicted, check=True) == "would start docker (predicted: requires apt)"
    assert describe_change(planned, check=False) == "not applied: start docker"


def test_hosts_that_cannot_be_logged_in_to_are_unreachable() -> None:
    """Errors of the whole Unreachable branch of the tree, and no other."""
    kinds = ("Unreachable", "LoginRefused", "ChangeFailed", "NoSuchError")
    labels = [failure_label(ErrorEvent("h", "", "", kind, "", "")) for kind in kinds]
    assert labels == ["UNREACHABLE", "UNREACHABLE", "FAILED", "FAILED"]


def test_place_leaves_out_what_is_not_known() -> None:
    """No colons without a name."""
    assert place("web1", "", "File x") == "web1: File x"
