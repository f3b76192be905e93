"""Many hosts: barriers, failures that concern one host, unreachable hosts."""

from __future__ import annotations

import resource
import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from provision.engine.assemble import Options, assemble, open_files
from provision.engine.events import Output, Start, StartedPlay, Summary, TaskDone
from provision.engine.run import HostPlay, HostWork, Run, Workers
from provision.errors import ConnectionLost, HostKeyError, Locked, ProbeFailed, Unreachable, UsageError
from provision.resources.base import Resource
from provision.ssh.dial import Dialler
from provision.ssh.session import Session, Target
from provision.tasks.base import Host, Task


def test_plays_are_barriers(engine: Any, toys: Any) -> None:
    """No host begins the second play before every host has finished the first."""
    begun = threading.Event()
    order: list[str] = []

    def slow(key: str) -> None:
        begun.wait(5)
        order.append(f"slow {key}")

    def quick(key: str) -> None:
        order.append(f"quick {key}")
        begun.set()

    sessions = {"slow": toys.Host(on_set=slow), "quick": toys.Host(on_set=quick)}
    report = engine(sessions, [toys.task("one", toys.Toy("1"))], [toys.task("two", toys.Toy("2"))])
    assert order[:2] == ["quick 1", "slow 1"]
    assert sorted(order[2:]) == ["quick 2", "slow 2"]
    assert {one.partition(" ")[2] for one in report.statuses[:2]} == {"one changed"}


def test_hosts_of_one_play_work_in_parallel(engine: Any, toys: Any) -> None:
    """Both are inside their change at the same time."""
    together = threading.Barrier(2, timeout=5)
    hosts = {name: toys.Host(on_set=lambda _: together.wait() and 0) for name in ("web1", "web2")}
    report = engine(hosts, [toys.task("one", toys.Toy("1"))])
    assert report.summary.failed == 0
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


@pytest.mark.parametrize(
    ("cores", "files", "forks"),
    [
        *((1, 1024, 32), (2, 1024, 32), (3, 1024, 48), (4, 1024, 52), (64, resource.RLIM_INFINITY, 52)),
        *((8, 256, 48), (8, 128, 16), (8, 64, 1), (8, 20, 1)),
    ],
)
def test_by_default_forks_follow_from_cores_and_open_files(
    cores: int, files: int, forks: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """At least 32 hosts at once, at most 52, and fewer if the limit of open files is low. --forks replaces the number."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr("resource.getrlimit", lambda _: (files, resource.RLIM_INFINITY))
    inventory = tmp_path / "inventory.toml"
    inventory.write_text('[hosts.web]\ngroups = ["runners"]\n')
    assert assemble(Options(("docker",), (inventory,)))[0].forks == forks
    assert assemble(Options(("docker",), (inventory,), forks=7))[0].forks == 7


@pytest.mark.parametrize(
    ("soft", "hard", "stay", "raised", "spare"),
    [
        (1024, 4096, False, None, 700),  # 32 of 700 sessions at once
        (200, 4096, False, 924, 700),
        (1024, 4096, True, 1592, 700),  # all 700 sessions
        (512, 1000, True, 1000, 108),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, True, None, 700),
    ],
)
def test_the_limit_of_open_files_is_raised(
    soft: int, hard: int, stay: bool, raised: int | None, spare: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is raised to what the sessions of a run need and dialling can use, but not beyond the hard limit."""
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr("resource.getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr("resource.setrlimit", lambda _, both: limits.append(both))
    assert open_files(700, 32, stay=stay) == spare
    assert limits == ([(raised, hard)] if raised is not None else [])


def test_a_run_that_needs_more_open_files_than_there_can_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is refused before any host is contacted. The hint says what to do."""
    monkeypatch.setattr("resource.getrlimit", lambda _: (256, 512))
    with pytest.raises(
        UsageError, match="700 hosts need 892 open files, but this system allows a process 512"
    ) as caught:
        open_files(700, 32, stay=True)
    assert "ulimit -Hn" in caught.value.hint


def test_a_failure_stays_on_its_host(engine: Any, toys: Any) -> None:
    """Its further tasks are skipped, also in later plays; the other hosts continue and do not wait for it."""
    sessions = {"bad": toys.Host(on_set=lambda key: int(key == "2")), "good": toys.Host()}
    tasks = [toys.task(name, toys.Toy(name)) for name in "123"]
    report = engine(sessions, tasks, [toys.task("4", toys.Toy("4"))])
    mine = {host: [one for one in report.statuses if one.startswith(host)] for host in sessions}
    assert mine["bad"] == ["bad 1 changed", "bad 2 failed", "bad 3 skipped", "bad 4 skipped"]
    assert mine["good"] == ["good 1 changed", "good 2 changed", "good 3 changed", "good 4 changed"]
    assert (report.summary.failed, report.summary.unreachable, report.summary.changed) == (1, 0, 5)
    bad = report.summary.hosts["bad"]
    assert (bad.ok, bad.changed, bad.failed, bad.skipped, bad.unreachable) == (1, 1, 1, 2, False)


def test_an_error_has_place_and_hint(engine: Any, toys: Any) -> None:
    """Host, task, resource, the change's summary and the program's output."""
    report = engine({"bad": toys.Host(on_set=lambda _: 1)}, [toys.task("t", toys.Toy("x"))])
    (error,) = report.errors
    assert (error.host, error.task, error.resource, error.error) == ("bad", "t", "Toy x", "ChangeFailed")
    assert error.text == "set x to on: toy broke"
    assert error.hint == "fix the cause on the host, then rerun the command"


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ("cat: write error: No space left on device", "the disk is full"),
        ("E: Could not get lock /var/lib/dpkg/lock", "another package manager"),
        ("touch: cannot touch 'x': Read-only file system", "mounted read-only"),
        ("E: You don't have enough free space in /var/cache/apt/archives/.", "the disk is full"),
        ("not enough disk space: 340 MiB are needed for 5 packages, 60 MiB are free", "the disk is full"),
        ("E: Release file for http://x is not valid yet (invalid for another 2d 23h 59min 50s).", "the host's clock"),
        ("Verifying signature: Not live until 2026-11-28T16:00:00Z", "the host's clock"),
        ("curl: (60) SSL certificate problem: certificate is not yet valid", "the host's clock"),
        ("Some challenges have failed.", "run `provision firewall`"),
        ("[gitlab.example.com] Validation failed, unable to request certificate", "run `provision firewall`"),
    ],
)
def test_problems_of_the_host_have_their_own_hint(engine: Any, toys: Any, message: str, hint: str) -> None:
    """By the program's message."""
    from provision.shell import Result

    host = toys.Host()
    host.answers = {"toy-set": Result(b"", message.encode(), 1), **host.answers}
    report = engine({"bad": host}, [toys.task("t", toys.Toy("x"))])
    assert hint in report.errors[0].hint


@pytest.mark.parametrize("error", [Unreachable("no route"), HostKeyError("another key")])
def test_unreachable_is_not_failed(engine: Any, toys: Any, error: Exception) -> None:
    """Its first task is unreachable, the others are skipped; the reachable host does its work."""
    report = engine({"gone": error, "here": toys.Host()}, [toys.task("1", toys.Toy("1")), toys.task("2")])
    assert [one for one in report.statuses if one.startswith("gone")] == ["gone 1 unreachable", "gone 2 skipped"]
    assert (report.summary.failed, report.summary.unreachable) == (0, 1)
    assert report.summary.hosts["gone"].unreachable
    assert (report.errors[0].task, report.errors[0].error) == ("", type(error).__name__)
    assert report.summary.hosts["here"].changed == 1


def test_a_host_that_is_locked_has_failed(engine: Any, toys: Any) -> None:
    """It was reached: another run holds the lock."""
    report = engine({"held": Locked("by alice")}, [toys.task("1"), toys.task("2")])
    assert report.statuses == ["held 1 failed", "held 2 skipped"]
    assert (report.summary.failed, report.summary.unreachable) == (1, 0)


def test_a_connection_that_breaks_during_a_task(engine: Any, toys: Any) -> None:
    """The host is unreachable from then on; applied changes are counted."""

    def on_set(key: str) -> None:
        if key == "2":
            raise ConnectionLost("gone")

    report = engine({"web1": toys.Host(on_set=on_set)}, [toys.task(name, toys.Toy(name)) for name in "123"])
    assert report.statuses == ["web1 1 changed", "web1 2 unreachable", "web1 3 skipped"]
    assert (report.summary.failed, report.summary.unreachable, report.summary.changed) == (0, 1, 1)


def test_a_first_observation_that_fails(engine: Any, toys: Any) -> None:
    """The first task of the host fails."""
    host = toys.Host()
    host.answers = {"toy-get": ProbeFailed("the shell ended")}
    report = engine({"web1": host}, [toys.task("1", toys.Toy("1")), toys.task("2")])
    assert report.statuses == ["web1 1 failed", "web1 2 skipped"]
    assert report.errors[0].text == "the shell ended"
    assert host.closed


def test_a_broken_state_file_fails_the_host(engine: Any, toys: Any) -> None:
    """Nothing is changed on that host."""
    host = toys.Host()
    host.answers = {"state.json": "{broken", **host.answers}
    report = engine({"web1": host}, [toys.task("1", toys.Toy("1"))])
    assert report.statuses == ["web1 1 failed"]
    assert "state.json cannot be read" in report.errors[0].text
    assert host.was_set == []


def test_sessions_are_closed_whatever_happens(engine: Any, toys: Any) -> None:
    """Closing them frees the host's lock."""
    sessions = {"good": toys.Host(), "bad": toys.Host(on_set=lambda _: 1)}
    report = engine(sessions, [toys.task("1", toys.Toy("1"))])
    assert all(one.closed for one in sessions.values())
    assert report.closed == 1


class _Bug:
    """Ways in which the code of a resource can fail."""

    @staticmethod
    def resource(toys: Any, where: str, error: BaseException) -> Any:
        class Buggy(toys.Toy):  # type: ignore[misc]
            def probe(self) -> Any:
                if where == "probe":
                    raise error
                return super().probe()

            def plan(self, seen: Any) -> Any:
                if where == "plan":
                    raise error
                yield from super().plan(seen)

            @property
            def label(self) -> str:
                if where == "label":
                    raise error
                return str(super().label)

        return Buggy("1")


@pytest.mark.parametrize("where", ["probe", "plan", "label"])
@pytest.mark.parametrize(
    "error", [KeyError("bug"), OSError(24, "Too many open files"), SystemExit(3), RecursionError()]
)
def test_any_exception_is_the_failure_of_its_host(engine: Any, toys: Any, where: str, error: BaseException) -> None:
    """The other hosts continue, everything is closed, and the summary comes and names the host."""
    sessions = {"buggy": toys.Host(), "good": toys.Host()}
    report = engine(
        sessions,
        (["buggy"], [toys.task("1", _Bug.resource(toys, where, error)), toys.task("x")]),
        (["good"], [toys.task("2", toys.Toy("2"))]),
    )
    assert all(one.closed for one in sessions.values())
    assert sessions["good"].was_set == ["2"]
    assert report.closed == 1
    assert report.events[-1] == report.summary
    if where == "label":  # its class names it
        assert (report.statuses[0], report.summary.failed) == ("buggy 1 changed", 0)
        return
    assert report.statuses[:2] == ["buggy 1 failed", "buggy x skipped"]
    assert (report.summary.failed, report.summary.hosts["buggy"].failed) == (1, 1)
    (problem,) = report.errors
    assert (problem.host, problem.error) == ("buggy", "Unexpected")
    assert type(error).__name__ in problem.text or "file descriptors" in problem.text
    assert problem.hint


def test_an_unexpected_exception_has_its_place_and_with_v_its_traceback(engine: Any, toys: Any) -> None:
    """The error names resource, file and line; the traceback is part of the step's output."""
    report = engine({"web1": toys.Host()}, [toys.task("1", _Bug.resource(toys, "plan", KeyError("bug")))])
    (problem,) = report.errors
    assert problem.resource == "Toy 1"
    assert "KeyError: 'bug' (" in problem.text
    assert "test_hosts.py, line " in problem.text
    output = "".join(one.text for one in report.events if isinstance(one, Output))
    assert "Traceback (most recent call last)" in output


@pytest.mark.parametrize("method", ["play", "wait", "open"])
def test_a_bug_in_the_engine_is_the_failure_of_its_host(
    engine: Any, toys: Any, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outside of tasks, too: no other host waits for it, the later steps of its serial play are skipped, and it is counted."""
    from provision.engine.host_run import HostRun

    original, called = getattr(HostRun, method), threading.Event()

    def broken(self: Any, *arguments: Any) -> Any:
        if self.recorder.host == "bad":
            called.set()
            raise RuntimeError("engine bug")
        return original(self, *arguments)

    monkeypatch.setattr(HostRun, method, broken)
    chain = object()
    first, second = toys.task("1", toys.Toy("1")), toys.task("2", toys.Toy("2"))
    sessions = {"bad": toys.Host(), "good": toys.Host(on_set=lambda _: int(not called.wait(5)))}
    plays = [HostPlay({"good": (toys.task("0", toys.Toy("0")),)})] if method == "wait" else []
    report = engine(sessions, *plays, HostPlay({"bad": (first,)}, chain), HostPlay({"good": (second,)}, chain))
    assert report.summary.failed == 1
    assert report.summary.hosts["bad"].failed == 1
    assert report.summary.hosts["good"].failed == 0
    assert [one.text for one in report.messages_of("good")] == ["skipped: bad failed earlier"]
    assert "engine bug" in report.errors[0].text


@pytest.mark.parametrize("refused", [("b",), ("a", "b")])
def test_threads_that_cannot_be_started(
    engine: Any, toys: Any, monkeypatch: pytest.MonkeyPatch, refused: tuple[str, ...]
) -> None:
    """If a thread cannot be started, another one works on the host. If none can be started, every host has failed."""
    start, first = threading.Thread.start, threading.Event()

    def refuse(thread: threading.Thread) -> None:
        if thread.name in [f"worker for {name}" for name in refused]:
            first.set()
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    sessions = {"a": toys.Host(on_set=lambda _: int(not first.wait(5))), "b": toys.Host()}
    report = engine(sessions, [toys.task("1", toys.Toy("1"))], [toys.task("2", toys.Toy("2"))])
    if "a" not in refused:
        assert sorted(report.statuses) == ["a 1 changed", "a 2 changed", "b 1 changed", "b 2 changed"]
        return
    assert report.statuses == []
    assert (report.summary.failed, report.summary.hosts["b"].failed) == (2, 1)
    assert all("can't start new thread" in one.text for one in report.errors)


def test_two_threads_that_cannot_be_started_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both hosts are reported: none is left to a thread that was about to start, and does not."""
    start, both = threading.Thread.start, threading.Barrier(2)

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("worker for"):
            with suppress(threading.BrokenBarrierError):
                both.wait(0.5)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    workers, refused = Workers(2, lambda _: None), []

    def add(name: str) -> None:
        with pytest.raises(RuntimeError):
            workers.add(HostWork(name, None, deque()), 0)  # type: ignore[arg-type]
        refused.append(name)

    adding = [threading.Thread(target=add, args=(name,)) for name in "ab"]
    for one in adding:
        one.start()
    for one in adding:
        one.join(10)
    assert sorted(refused) == ["a", "b"]


@pytest.mark.parametrize(("refused", "failed"), [("worker for", 5), ("resolver", 0)])
def test_threads_that_cannot_be_started_for_hosts_that_are_dialled(
    engine: Any, toys: Any, monkeypatch: pytest.MonkeyPatch, refused: str, failed: int
) -> None:
    """The run ends: all hosts have failed without a thread for them; without one for names they are dialled later."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith(refused):
            raise RuntimeError("can't start new thread")
        start(thread)

    def dial(run: Run) -> None:
        dialler = Dialler({name: Target(name, "127.0.0.1", port) for name in sessions}, workers=2)
        connect, run.dialler = run.connect, dialler

        def connect_dialled(host: Host) -> Session:
            if (dialled := dialler.take(host.name)) is not None:
                dialled.close()
            return connect(host)

        run.connect = connect_dialled

    monkeypatch.setattr(threading.Thread, "start", refuse)
    sessions = {f"web{number}": toys.Host() for number in range(5)}
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        report = engine(sessions, [toys.task("1", toys.Toy("1"))], forks=2, run=dial)
    assert (report.summary.failed, report.summary.changed) == (failed, 5 - failed)


def test_a_session_that_cannot_be_closed_is_reported(engine: Any, toys: Any) -> None:
    """The run has its summary; the host has not failed."""

    class Stuck(toys.Host):  # type: ignore[misc]
        def close(self) -> None:
            raise OSError("bad descriptor")

    report = engine({"web1": Stuck()}, [toys.task("1", toys.Toy("1"))])
    assert (report.summary.failed, report.summary.changed) == (0, 1)
    assert any("bad descriptor" in one for one in report.messages)


def test_bad_input_ends_the_run_before_anything_is_contacted(engine: Any, toys: Any) -> None:
    """Every task is evaluated for every host first."""

    def function(host: Host) -> Iterator[Resource]:
        """Wants what the inventory lacks."""
        raise UsageError(f"{host.name}: give it a url")
        yield

    host = toys.Host()
    with pytest.raises(UsageError, match="web1: give it a url"):
        engine({"web1": host}, [toys.task("1", toys.Toy("1")), Task("2", "all", function)])
    assert host.batches == []


class TestEvents:
    """The order that reports rely on."""

    def test_from_start_to_summary(self, engine: Any, toys: Any) -> None:
        """Start first, Summary last, each task of each host ends once."""
        report = engine({"b": toys.Host(), "a": toys.Host()}, [toys.task("1", toys.Toy("1")), toys.task("2")])
        plays = (StartedPlay(("1", "2"), ("b", "a")),)
        assert report.events[0] == Start(("toys",), ("b", "a"), check=False, plays=plays)
        assert isinstance(report.events[-1], Summary)
        assert sorted(report.statuses) == ["a 1 changed", "a 2 ok", "b 1 changed", "b 2 ok"]
        assert list(report.summary.hosts) == ["b", "a"]

    def test_changes_come_before_the_end_of_their_task(self, engine: Any, toys: Any) -> None:
        """Step, output, change, end."""
        report = engine({"web1": toys.Host()}, [toys.task("1", toys.Toy("1"), toys.Toy("2"))])
        kinds = [type(one).__name__ for one in report.events if type(one).__name__ not in ("Start", "Summary")]
        assert kinds == [
            "Step",  # connecting
            "Step",  # observing
            "Step",  # observing, for the task
            "Step",
            "Output",
            "ChangeEvent",
            "Step",
            "Output",
            "ChangeEvent",
            "Step",  # observing again
            "TaskDone",
        ]

    def test_a_task_ends_with_its_seconds_and_changes(self, engine: Any, toys: Any) -> None:
        """And its headline."""
        report = engine({"web1": toys.Host()}, [toys.task("1", toys.Toy("1"), toys.Toy("2"))])
        (done,) = [one for one in report.events if isinstance(one, TaskDone)]
        assert (done.changes, done.headline) == (2, "Toys are as they should be.")
        assert 0 <= done.seconds < 5

    def test_notes_are_reported_once(self, engine: Any, toys: Any) -> None:
        """Not again when the host is observed again."""
        report = engine({"web1": toys.Host()}, [toys.task("1", toys.Toy("1", remark="mind the gap"))])
        assert report.messages == ["mind the gap"]
