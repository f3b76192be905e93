"""Progress in plain lines, with a clock that the test moves."""

from __future__ import annotations

import io
import threading

import pytest

from provision.engine.events import ErrorEvent, Event, Message, Output, Start, Step, TaskDone
from provision.report.console import open_console
from provision.report.progress import PlainProgress

HOSTS = ("runner-1", "runner-2", "runner-3")


class ProgressRun:
    """A PlainProgress with its stream and a clock that stands still until it is moved."""

    def __init__(self, *, verbose: int = 0, check: bool = False) -> None:
        self.now = 0.0
        self.stream = io.StringIO()
        self.progress = PlainProgress(open_console(self.stream), verbose=verbose, clock=lambda: self.now, ticking=False)
        self.progress.on(Start(("docker",), HOSTS, check))

    def after(self, seconds: float, *events: Event) -> list[str]:
        """The lines printed after these events and this many seconds."""
        for event in events:
            self.progress.on(event)
        self.now += seconds
        self.progress.tick()
        lines = self.stream.getvalue().splitlines()
        self.stream.seek(0)
        self.stream.truncate()
        return lines


def test_equal_tasks_share_a_line() -> None:
    """Tasks that ended between two ticks with equal results; those that changed nothing are left out."""
    done: list[Event] = [TaskDone(host, "docker", "changed", 3.0 + index, 4) for index, host in enumerate(HOSTS)]
    run = ProgressRun()
    assert run.after(2, *done, TaskDone("runner-1", "runner", "ok", 0.1)) == ["runner-[1:3]: docker: 4 changes, 5.0 s"]
    assert run.after(2) == []


def test_check_mode_reports_pending_changes() -> None:
    """In check mode nothing was changed, and no line may read as if it was."""
    assert ProgressRun(check=True).after(2, TaskDone("runner-1", "docker", "changed", 0.5, 1)) == [
        "runner-1: docker: 1 change pending, 0.5 s"
    ]


def test_errors_are_printed_before_the_final_report() -> None:
    """An error's first line is printed at the next tick."""
    error = ErrorEvent("runner-2", "docker", "", "LoginRefused", "refused\nmore", "hint")
    assert ProgressRun().after(2, error) == ["runner-2: docker: UNREACHABLE: refused"]


def test_long_steps_are_named_after_ten_seconds_and_every_minute() -> None:
    """Some pipelines end a job that prints nothing for minutes."""
    run = ProgressRun()
    steps = [Step(host, "docker", "install docker-ce") for host in HOSTS[:2]]
    assert run.after(9, *steps) == []
    assert run.after(2) == ["runner-[1:2]: docker: install docker-ce: running for 11.0 s"]
    assert run.after(50) == []
    assert run.after(10) == ["runner-[1:2]: docker: install docker-ce: running for 1 min 11 s"]


def test_waiting_hosts_are_not_reported_as_busy() -> None:
    """The kind of the step decides, not its text."""
    assert ProgressRun().after(100, Step("runner-1", "", "in the queue", "waiting")) == []


def test_verbose_prints_steps_and_whole_lines_of_output() -> None:
    """Steps at once; output when a line is complete, without escape sequences."""
    run = ProgressRun(verbose=1)
    lines = run.after(
        0,
        Step("runner-1", "docker", "install docker-ce"),
        Output("runner-1", "docker", "Get:1 \x1b[31mdoc"),
        Output("runner-2", "docker", "other\n"),
        Output("runner-1", "docker", "ker-ce\nUnpack"),
    )
    assert lines == [
        "runner-1: docker: install docker-ce …",
        "runner-2: | other",
        "runner-1: | Get:1 docker-ce",
    ]
    run.progress.close()
    assert run.stream.getvalue() == "runner-1: | Unpack\n"


def test_routine_steps_need_more_verbosity() -> None:
    """Connecting and observing, which every task does, are shown with -vv only."""
    steps = (
        Step("runner-1", "", "connecting", "connecting"),
        Step("runner-1", "docker", "observing again", "observing"),
    )
    assert ProgressRun(verbose=1).after(0, *steps) == []
    assert ProgressRun(verbose=2).after(0, *steps) == ["runner-1: connecting …", "runner-1: docker: observing again …"]


def test_answers_to_ctrl_c_are_printed_at_once() -> None:
    """The kind of the message decides, not its text."""
    run = ProgressRun()
    run.progress.on(Message("runner-1", "docker", "install docker-ce is being finished", "stopping"))
    run.progress.on(Message("runner-1", "docker", "stopping after: nothing"))
    assert run.stream.getvalue() == "runner-1: install docker-ce is being finished\n"


def test_long_steps_show_their_last_output() -> None:
    """What the step waits for, for example. With several hosts, the output of the one that began first."""
    waiting = "waiting for the CI jobs on this host to end: container build-1"
    run = ProgressRun()
    run.after(0, Step("runner-1", "docker", "restart docker"), Output("runner-1", "docker", f"{waiting}\n"))
    assert run.after(10) == [f"runner-1: docker: restart docker: running for 10.0 s, last output: {waiting}"]
    run.after(0, Step("runner-2", "docker", "restart docker"))
    assert run.after(60) == [
        f"runner-[1:2]: docker: restart docker: running for 1 min 10 s, last output of runner-1: {waiting}"
    ]


def test_a_failure_of_the_thread_is_raised_by_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine reports it then; the thread prints no traceback."""
    monkeypatch.setattr("provision.report.progress.INTERVAL", 0.01)
    progress = PlainProgress(open_console(io.StringIO()), verbose=0, clock=lambda: 0.0, ticking=True)
    failed = threading.Event()

    def fail() -> None:
        failed.set()
        raise RuntimeError("cannot tick")

    monkeypatch.setattr(progress, "tick", fail)
    uncaught: list[object] = []
    monkeypatch.setattr(threading, "excepthook", uncaught.append)
    progress.on(Start(("docker",), HOSTS, False))
    assert failed.wait(10)
    threads = [one for one in threading.enumerate() if one.name == "progress"]
    for one in threads:
        one.join(10)
    with pytest.raises(RuntimeError, match="cannot tick"):
        progress.close()
    assert uncaught == []
