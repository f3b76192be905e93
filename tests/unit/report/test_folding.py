"""Equal results of many hosts are joined; different ones are not."""

from __future__ import annotations

import pytest

from provision.engine.events import ChangeEvent, ErrorEvent, HostSummary, Message, Start, TaskDone
from provision.report.folding import RunLog, fold_changes, fold_counts, fold_errors, fold_messages, fold_names


@pytest.mark.parametrize(
    ("names", "folded"),
    [
        ("", ""),
        ("gitlab", "gitlab"),
        ("web1", "web1"),
        ("web1 web2", "web[1:2]"),
        ("web1 web3", "web[1,3]"),
        ("web8 web9 web10 web11", "web[8:11]"),
        ("runner-01 runner-02 runner-03 runner-07", "runner-[01:03,07]"),
        ("runner-08 runner-09 runner-10 gitlab", "runner-[08:10], gitlab"),
        ("web9 web09 web10 web11", "web[09:11,9]"),
        ("web1.eu2 web2.eu2 web3.eu2", "web[1:3].eu2"),
        ("web1.eu1 web1.eu2 web1.eu3", "web1.eu[1:3]"),
        ("10.0.0.8 10.0.0.9 10.0.0.10", "10.0.0.[8:10]"),
        ("b a b", "b, a"),
        ("web3 web1 web2", "web[1:3]"),
        ("web099 web100 web101", "web[099:101]"),
    ],
)
def test_names_with_consecutive_numbers_become_ranges(names: str, folded: str) -> None:
    """The width of padded numbers is kept."""
    assert fold_names(names.split()) == folded


def test_names_beyond_the_limit_are_counted() -> None:
    """The first folded parts are shown, and the names in the others are counted."""
    assert fold_names(["alpha", "beta", "web1", "web2", "web3"], limit=2) == "alpha, beta and 3 more"
    scattered = [f"web{number:03}" for number in range(0, 500, 5)]
    assert fold_names([*scattered, "web001", "alpha"], limit=3) == "web[000:001,005,010] and 98 more"


def log_of(*events: ChangeEvent | ErrorEvent | Message) -> RunLog:
    """A log of a run on web1, web2 and web3."""
    log = RunLog()
    log.add(Start(("t",), ("web1", "web2", "web3"), False))
    for event in events:
        log.add(event)
    return log


def change(host: str, summary: str, *, diff: str = "", seconds: float = 0.0) -> ChangeEvent:
    """A change that was applied."""
    return ChangeEvent(host, "t", "File x", "update", summary, diff, True, seconds=seconds)


def test_changes_of_the_same_hosts_form_a_group() -> None:
    """A change that fewer hosts share is a group of its own; the slowest host's seconds are kept."""
    log = log_of(
        change("web2", "write x", seconds=2.0), change("web1", "write x", seconds=1.0), change("web1", "write y")
    )
    groups = [
        (group.hosts, [one.summary for one in group.changes], group.seconds) for group in fold_changes(log, diffs=False)
    ]
    assert groups == [(("web1", "web2"), ["write x"], (2.0,)), (("web1",), ["write y"], (0.0,))]


def test_changes_with_other_diffs_are_apart_only_if_diffs_are_shown() -> None:
    """Without diffs the reader could not see the difference."""
    log = log_of(change("web1", "write x", diff="+a"), change("web2", "write x", diff="+b"))
    assert len(fold_changes(log, diffs=True)) == 2
    assert len(fold_changes(log, diffs=False)) == 1


def test_equal_messages_are_joined_and_answers_to_ctrl_c_dropped() -> None:
    """When the run has ended, what it was about to stop after is of no use."""
    log = log_of(
        Message("web2", "t", "x"), Message("web1", "t", "x"), Message("web1", "t", "stopping after: y", "stopping")
    )
    assert [(hosts, message.text) for hosts, message in fold_messages(log)] == [(("web1", "web2"), "x")]


def error(host: str, text: str) -> ErrorEvent:
    """A failed change."""
    return ErrorEvent(host, "t", "File x", "ChangeFailed", text, "")


def test_errors_that_differ_in_the_hosts_name_show_the_folded_names() -> None:
    """The text is the same for all, with the names in place of the name."""
    (group,) = fold_errors(log_of(error("web1", "web1: full"), error("web2", "web2: full")))
    assert (group.hosts, group.error.text, group.similar) == (("web1", "web2"), "web[1:2]: full", False)


def test_errors_that_differ_in_numbers_are_similar_unless_each_is_wanted() -> None:
    """The first text is shown, and marked as one of several."""
    log = log_of(error("web1", "10.0.0.1: refused"), error("web2", "10.0.0.2: refused"))
    (group,) = fold_errors(log)
    assert (group.error.text, group.similar) == ("10.0.0.1: refused", True)
    assert len(fold_errors(log, each=True)) == 2


def test_hosts_to_rerun_are_those_with_errors() -> None:
    """In inventory order; none if the whole run must be repeated anyway."""
    assert log_of(error("web3", "x"), error("web1", "y")).hosts_to_rerun == ["web1", "web3"]
    assert log_of(*(error(f"web{number}", "x") for number in (1, 2, 3))).hosts_to_rerun == []
    assert log_of().hosts_to_rerun == []


def test_counts_are_joined_only_above_a_number_of_hosts() -> None:
    """Equal counts share a group; seconds are a range."""
    hosts = {"web1": HostSummary(1, seconds=2.0), "web2": HostSummary(1, seconds=1.0), "web3": HostSummary(0, failed=1)}
    joined = [(group.hosts, group.fastest, group.slowest) for group in fold_counts(log_of(), hosts, above=2)]
    assert joined == [(("web1", "web2"), 1.0, 2.0), (("web3",), 0.0, 0.0)]
    assert len(fold_counts(log_of(), hosts, above=3)) == 3


def test_changes_fold_by_what_is_shown() -> None:
    """Two hosts may do the same by different scripts; the reader sees one change."""
    log = log_of(change("web1", "write x")._replace(id="a"), change("web2", "write x")._replace(id="b"))
    assert [group.hosts for group in fold_changes(log, diffs=True)] == [("web1", "web2")]


def test_events_are_folded_as_they_come() -> None:
    """If a thousand hosts have equal events, each event is kept once. Diffs are kept only if they are shown."""
    kept = {}
    for keep_diffs in (True, False):
        log = RunLog(keep_diffs=keep_diffs)
        names = tuple(f"web{number}" for number in range(1000))
        log.add(Start(("t",), names, False))
        for number, name in enumerate(names):
            log.add(change(name, "write x", diff=f"+{number % 10}", seconds=number / 1000))
            log.add(Message(name, "t", "x"))
            log.add(error(name, f"{name}: full"))
            log.add(TaskDone(name, "t", "failed", 1.0, 1, "Write x."))
        kept[keep_diffs] = len(log.changes), len(log.messages), len(log.errors)
        assert log.errors_count == 1000
        assert [(len(one.hosts), max(one.seconds)) for one in fold_changes(log, diffs=False)] == [(1000, 0.999)]
        assert [len(one.hosts) for one in fold_errors(log)] == [1000]
    assert kept == {True: (10, 1, 1), False: (1, 1, 1)}
