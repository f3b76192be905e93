"""Many hosts: barriers, failures that stay where they are, hosts that are not reached."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from provision.engine.events import Start, Summary, TaskDone
from provision.errors import ConnectionLost, HostKeyError, Locked, ProbeFailed, Unreachable, UsageError
from provision.resources.base import Resource
from provision.tasks.base import Host, Task


def test_plays_are_barriers(engine: Any, toys: Any) -> None:
    """No host begins the second play before every host is through the first."""
    begun = threading.Event()
    order: list[str] = []

    def slow(key: str) -> None:
        begun.wait(5)
        order.append(f"slow {key}")

    def quick(key: str) -> None:
        order.append(f"quick {key}")
        begun.set()

    sessions = {"slow": toys.Host(on_set=slow), "quick": toys.Host(on_set=quick)}
    told = engine(sessions, [toys.task("one", toys.Toy("1"))], [toys.task("two", toys.Toy("2"))])
    assert order[:2] == ["quick 1", "slow 1"]
    assert sorted(order[2:]) == ["quick 2", "slow 2"]
    assert {one.partition(" ")[2] for one in told.statuses[:2]} == {"one changed"}


def test_hosts_of_one_play_work_side_by_side(engine: Any, toys: Any) -> None:
    """Both are inside their change at the same time."""
    together = threading.Barrier(2, timeout=5)
    hosts = {name: toys.Host(on_set=lambda _: together.wait() and 0) for name in ("web1", "web2")}
    told = engine(hosts, [toys.task("one", toys.Toy("1"))])
    assert told.summary.failed == 0
    assert not together.broken


def test_forks_limit_how_many_work_at_once(engine: Any, toys: Any) -> None:
    """With one fork, never two."""
    lock = threading.Lock()
    most: list[int] = [0, 0]

    def work(_: str) -> None:
        with lock:
            most[0] += 1
            most[1] = max(most)
        threading.Event().wait(0.01)
        with lock:
            most[0] -= 1

    hosts = {f"web{number}": toys.Host(on_set=work) for number in range(5)}
    engine(hosts, [toys.task("one", toys.Toy("1"), toys.Toy("2"))], forks=1)
    assert most[1] == 1


def test_a_failure_stays_on_its_host(engine: Any, toys: Any) -> None:
    """Its further tasks are skipped, in later plays too; the others go on, and nobody waits for it."""
    sessions = {"bad": toys.Host(on_set=lambda key: int(key == "2")), "good": toys.Host()}
    tasks = [toys.task(name, toys.Toy(name)) for name in "123"]
    told = engine(sessions, tasks, [toys.task("4", toys.Toy("4"))])
    mine = {host: [one for one in told.statuses if one.startswith(host)] for host in sessions}
    assert mine["bad"] == ["bad 1 changed", "bad 2 failed", "bad 3 skipped", "bad 4 skipped"]
    assert mine["good"] == ["good 1 changed", "good 2 changed", "good 3 changed", "good 4 changed"]
    assert (told.summary.failed, told.summary.unreachable, told.summary.changed) == (1, 0, 5)
    bad = told.summary.hosts["bad"]
    assert (bad.ok, bad.changed, bad.failed, bad.skipped, bad.unreachable) == (1, 1, 1, 2, False)


def test_an_error_says_where_and_what_next(engine: Any, toys: Any) -> None:
    """Host, task, resource, the change in words and the program's own."""
    told = engine({"bad": toys.Host(on_set=lambda _: 1)}, [toys.task("t", toys.Toy("x"))])
    (error,) = told.errors
    assert (error.host, error.task, error.resource, error.error) == ("bad", "t", "Toy x", "ChangeFailed")
    assert error.text == "set x to on: toy broke"
    assert error.hint == "fix the cause on the host, then rerun the command"


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("cat: write error: No space left on device", "the disk is full"),
        ("E: Could not get lock /var/lib/dpkg/lock", "another package manager"),
        ("touch: cannot touch 'x': Read-only file system", "mounted read-only"),
    ],
)
def test_what_the_host_is_at_fault_for_is_explained(engine: Any, toys: Any, said: str, hint: str) -> None:
    """What programs say, and what to do then."""
    from provision.shell import Result

    host = toys.Host()
    host.answers = {"toy-set": Result(b"", said.encode(), 1), **host.answers}
    told = engine({"bad": host}, [toys.task("t", toys.Toy("x"))])
    assert hint in told.errors[0].hint


@pytest.mark.parametrize("error", [Unreachable("no route"), HostKeyError("another key")])
def test_unreachable_is_not_failed(engine: Any, toys: Any, error: Exception) -> None:
    """Its first task says so, the others are skipped; the reachable host does its work."""
    told = engine({"gone": error, "here": toys.Host()}, [toys.task("1", toys.Toy("1")), toys.task("2")])
    assert [one for one in told.statuses if one.startswith("gone")] == ["gone 1 unreachable", "gone 2 skipped"]
    assert (told.summary.failed, told.summary.unreachable) == (0, 1)
    assert told.summary.hosts["gone"].unreachable
    assert (told.errors[0].task, told.errors[0].error) == ("", type(error).__name__)
    assert told.summary.hosts["here"].changed == 1


def test_a_host_that_refuses_us_has_failed(engine: Any, toys: Any) -> None:
    """It was reached: another run holds it."""
    told = engine({"held": Locked("by alice")}, [toys.task("1"), toys.task("2")])
    assert told.statuses == ["held 1 failed", "held 2 skipped"]
    assert (told.summary.failed, told.summary.unreachable) == (1, 0)


def test_a_connection_that_breaks_under_way(engine: Any, toys: Any) -> None:
    """Unreachable from then on; what was done is counted."""

    def on_set(key: str) -> None:
        if key == "2":
            raise ConnectionLost("gone")

    told = engine({"web1": toys.Host(on_set=on_set)}, [toys.task(name, toys.Toy(name)) for name in "123"])
    assert told.statuses == ["web1 1 changed", "web1 2 unreachable", "web1 3 skipped"]
    assert (told.summary.failed, told.summary.unreachable, told.summary.changed) == (0, 1, 1)


def test_a_first_look_that_fails(engine: Any, toys: Any) -> None:
    """Told for the host, at its first task."""
    host = toys.Host()
    host.answers = {"toy-get": ProbeFailed("the shell ended")}
    told = engine({"web1": host}, [toys.task("1", toys.Toy("1")), toys.task("2")])
    assert told.statuses == ["web1 1 failed", "web1 2 skipped"]
    assert told.errors[0].text == "the shell ended"
    assert host.closed


def test_a_broken_record_of_ours_is_told(engine: Any, toys: Any) -> None:
    """state.json was mended by hand, and badly: nothing is done on that host."""
    host = toys.Host()
    host.answers = {"state.json": "{broken", **host.answers}
    told = engine({"web1": host}, [toys.task("1", toys.Toy("1"))])
    assert told.statuses == ["web1 1 failed"]
    assert "state.json cannot be read" in told.errors[0].text
    assert host.was_set == []


def test_sessions_are_closed_whatever_happens(engine: Any, toys: Any) -> None:
    """The host's lock hangs on it."""
    sessions = {"good": toys.Host(), "bad": toys.Host(on_set=lambda _: 1)}
    told = engine(sessions, [toys.task("1", toys.Toy("1"))])
    assert all(one.closed for one in sessions.values())
    assert told.closed == 1


def test_a_fault_of_ours_ends_the_run_after_the_others(engine: Any, toys: Any) -> None:
    """A bug in a resource is no error of the host: it comes out, sessions closed, listeners closed."""

    class Buggy(toys.Toy):  # type: ignore[misc]
        def plan(self, seen: Any) -> Any:
            raise KeyError(f"bug at {len(seen)}")

    sessions = {"buggy": toys.Host(), "good": toys.Host()}
    told_at: list[Any] = []
    with pytest.raises(KeyError, match="bug"):
        engine(
            sessions,
            (["buggy"], [toys.task("1", Buggy("1"))]),
            (["good"], [toys.task("2", toys.Toy("2"))]),
            run=lambda run: told_at.extend(run.listeners),
        )
    assert all(one.closed for one in sessions.values())
    assert sessions["good"].was_set == ["2"]
    assert told_at[0].closed == 1


def test_bad_input_ends_the_run_before_anything_is_contacted(engine: Any, toys: Any) -> None:
    """Every task is asked what it wants of every host first."""

    def function(host: Host) -> Iterator[Resource]:
        """Wants what the inventory lacks."""
        raise UsageError(f"{host.name}: give it a url")
        yield

    host = toys.Host()
    with pytest.raises(UsageError, match="web1: give it a url"):
        engine({"web1": host}, [toys.task("1", toys.Toy("1")), Task("2", "all", function)])
    assert host.batches == []


class TestEvents:
    """The order that reports rest on."""

    def test_from_start_to_summary(self, engine: Any, toys: Any) -> None:
        """Start first, Summary last, each task of each host ends once."""
        told = engine({"b": toys.Host(), "a": toys.Host()}, [toys.task("1", toys.Toy("1")), toys.task("2")])
        assert told.events[0] == Start(("toys",), ("b", "a"), check=False)
        assert isinstance(told.events[-1], Summary)
        assert sorted(told.statuses) == ["a 1 changed", "a 2 ok", "b 1 changed", "b 2 ok"]
        assert list(told.summary.hosts) == ["b", "a"]

    def test_changes_come_before_the_end_of_their_task(self, engine: Any, toys: Any) -> None:
        """Step, output, change, end."""
        told = engine({"web1": toys.Host()}, [toys.task("1", toys.Toy("1"), toys.Toy("2"))])
        kinds = [type(one).__name__ for one in told.events if type(one).__name__ not in ("Start", "Summary")]
        assert kinds == [
            "Step",  # connecting
            "Step",  # looking
            "Step",  # looking, the task's own
            "Step",
            "Output",
            "ChangeSeen",
            "Step",
            "Output",
            "ChangeSeen",
            "Step",  # looking again
            "TaskDone",
        ]

    def test_a_task_says_how_long_it_took_and_how_much_it_changed(self, engine: Any, toys: Any) -> None:
        """And its headline, for people."""
        told = engine({"web1": toys.Host()}, [toys.task("1", toys.Toy("1"), toys.Toy("2"))])
        (done,) = [one for one in told.events if isinstance(one, TaskDone)]
        assert (done.changes, done.headline) == (2, "Toys are as they should be.")
        assert 0 <= done.seconds < 5

    def test_notes_are_told_once(self, engine: Any, toys: Any) -> None:
        """Not again when it is looked at again."""
        told = engine({"web1": toys.Host()}, [toys.task("1", toys.Toy("1", remark="mind the gap"))])
        assert told.texts == ["mind the gap"]
