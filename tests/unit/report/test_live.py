"""The live view: its frames as values, and the real thing on a pseudo-terminal."""

from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.live import Live

from provision.engine.events import ErrorEvent, Output, Start, Step, TaskDone
from provision.report.console import open_console
from provision.report.live import FRAMES_PER_SECOND, LiveView, frame
from provision.report.progress import Activity

pytestmark = pytest.mark.slow


def busy(hosts: int) -> Activity:
    """This number of hosts, all busy."""
    activity = Activity()
    names = tuple(f"runner-{number:03}" for number in range(1, hosts + 1))
    activity.add(Start(("runners",), names, False), 0.0)
    for name in names:
        activity.add(Step(name, "docker", "install docker-ce"), 1.0)
    return activity


@pytest.mark.parametrize("height", [2, 3, 10, 24, 99, 100, 101, 200])
def test_a_hundred_hosts_fit_the_screen(height: int) -> None:
    """No frame is higher than the screen, and every host is shown or counted."""
    lines = [line.plain for line in frame(busy(100), height, 2.0)]
    assert len(lines) <= height
    shown = sum("install docker-ce" in line for line in lines)
    counted = int(lines[-1].split()[1]) if "more busy" in lines[-1] else 0
    assert shown + counted == 100


def test_rows_show_step_duration_and_last_output() -> None:
    """A busy host's row; for a host that is between tasks, how its last task ended."""
    activity = busy(2)
    activity.add(Output("runner-001", "docker", "Get:1 x\nUnpacking y\n"), 2.0)
    activity.add(TaskDone("runner-002", "docker", "changed", 1.0, 3), 2.0)
    assert [line.plain for line in frame(activity, 24, 14.0)] == [
        "provision runners  2 hosts · 0 changes · 14.0 s",
        "⠋ runner-001  docker  install docker-ce 13.0 s  Unpacking y",
        "✓ runner-002  docker  3 changes",
    ]


def test_busy_hosts_come_first_when_not_all_fit() -> None:
    """Hosts that are done, waiting or failed are only counted."""
    activity = busy(30)
    for number in range(1, 20):
        activity.add(TaskDone(f"runner-{number:03}", "docker", "ok", 1.0), 2.0)
    activity.add(ErrorEvent("runner-020", "docker", "", "ChangeFailed", "no", ""), 2.0)
    lines = [line.plain for line in frame(activity, 8, 3.0)]
    assert lines[0] == "provision runners  30 hosts · 0 changes · 1 failed · 3.0 s"
    assert [line.split()[1] for line in lines[1:-1]] == [f"runner-{number:03}" for number in range(21, 27)]
    assert lines[-1] == "  … 4 more busy, 19 between tasks or done, 1 failed"


def test_skipped_tasks_do_not_hide_a_failure() -> None:
    """A failed host stays marked when its later tasks end as skipped."""
    activity = busy(1)
    activity.add(ErrorEvent("runner-001", "docker", "", "ChangeFailed", "no space", ""), 2.0)
    activity.add(TaskDone("runner-001", "docker", "failed", 1.0), 2.0)
    activity.add(TaskDone("runner-001", "runner", "skipped", 0.0), 2.0)
    assert activity.count("failed") == 1


UNSET = ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "CI", "TTY_COMPATIBLE", "TTY_INTERACTIVE")


def watch(command: list[str]) -> str:
    """The output of a program on a terminal of 80 × 24."""
    master, slave = pty.openpty()
    env = {key: value for key, value in os.environ.items() if key not in UNSET}
    env |= {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    child = subprocess.Popen(command, stdout=slave, stderr=slave, stdin=slave, env=env)
    os.close(slave)
    output = b""
    deadline = time.monotonic() + 30
    try:
        while time.monotonic() < deadline:
            if select.select([master], [], [], 0.2)[0]:
                try:
                    piece = os.read(master, 65536)
                except OSError:  # Linux: the other end is closed
                    break
                if not piece:
                    break
                output += piece
        assert child.wait(timeout=10) == 0
    finally:
        child.kill()
        os.close(master)
    return output.decode()


def test_view_appears_on_a_terminal_and_is_removed(script: Path) -> None:
    """The cursor is shown again, and the report follows."""
    text = watch([sys.executable, str(script), "first", "--pace", "0.2"])
    assert "\x1b[?25l" in text
    before, _, after = text.rpartition("\x1b[?25h")
    assert "3 hosts · " in before
    assert "\x1b[2K" in before
    assert "\x1b[2K" not in after.partition("17 changes on 3 hosts")[2]
    assert after.rstrip().endswith("17 changes on 3 hosts, 41.2 s\x1b[0m")


def test_short_run_on_a_terminal_shows_no_view(script: Path) -> None:
    """A run that ends at once neither hides the cursor nor draws a frame."""
    text = watch([sys.executable, str(script), "noop", "--pace", "0"])
    assert "\x1b[?25l" not in text
    assert "Nothing to change on 3 hosts, 0.8 s" in text


class Drawn:
    """A view on a terminal of 80 columns whose output and number of drawings are known."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.output = io.StringIO()
        self.drawn = 0
        self._more = threading.Condition()
        monkeypatch.setattr("provision.report.live.DELAY", 0)
        monkeypatch.setattr("rich.live.Live.refresh", self._counted(Live.refresh))
        self.view = LiveView(open_console(self.output, terminal=True, width=80), verbose=0, clock=lambda: 5000.0)

    def _counted(self, refresh: Callable[[Live], None]) -> Callable[[Live], None]:
        def counted(live: Live) -> None:
            refresh(live)
            with self._more:
                self.drawn += 1
                self._more.notify_all()

        return counted

    def wait_until_drawn(self, times: int = 1) -> None:
        """Waits until the view was drawn this many more times."""
        with self._more:
            wanted = self.drawn + times
            assert self._more.wait_for(lambda: self.drawn >= wanted, 10)


def test_the_first_frame_has_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty view is never drawn."""
    drawn = Drawn(monkeypatch)
    drawn.view.on(Start(("all",), ("web1",), False))
    drawn.wait_until_drawn()
    drawn.view.close()
    assert "1 host ·" in drawn.output.getvalue()
    assert "0 hosts" not in drawn.output.getvalue()


def test_errors_are_printed_above_the_view_while_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are printed when the view is drawn next, each once and in order."""
    drawn = Drawn(monkeypatch)
    drawn.view.on(Start(("all",), ("web1", "web2"), False))
    for name in ("web1", "web2"):
        drawn.view.on(ErrorEvent(name, "", "", "Unreachable", "refused", ""))
    drawn.wait_until_drawn(2)
    during = drawn.output.getvalue()
    drawn.view.close()
    assert during.index("web1: ") < during.index("web2: ")  # above the view, which shows names without a colon
    assert during.count("UNREACHABLE") == drawn.output.getvalue().count("UNREACHABLE") == 2


def test_the_number_of_events_does_not_change_how_often_the_view_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The view is not drawn again for each step or error, and no event waits for the terminal."""
    drawn = Drawn(monkeypatch)
    names = tuple(f"web{number}" for number in range(1000))
    before = time.monotonic()
    drawn.view.on(Start(("all",), names, False))
    for name in names:
        drawn.view.on(Step(name, "docker", "observing", "observing"))
        drawn.view.on(ErrorEvent(name, "docker", "", "ChangeFailed", "no", ""))
    drawn.wait_until_drawn()
    took = time.monotonic() - before
    drawn.view.close()
    assert drawn.drawn <= took * FRAMES_PER_SECOND + 3
    assert drawn.output.getvalue().count("FAILED") == 1000


def test_a_view_of_many_hosts_is_drawn_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is drawn ten times per second with up to ten hosts, and once per second with a hundred or more."""
    intervals = []
    for hosts in (3, 10, 50, 100, 1000):
        drawn = Drawn(monkeypatch)
        drawn.view._activity.add(Start(("all",), tuple(f"web{number}" for number in range(hosts)), False), 0.0)
        intervals.append(drawn.view._interval())
    assert intervals == [0.1, 0.1, 0.5, 1, 1]


@pytest.mark.parametrize("what", ["rich.live.Live.start", "provision.report.live.frame"])
def test_a_failure_in_another_thread_is_raised_by_close(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine reports it then; no thread prints a traceback over the view."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("cannot draw")

    monkeypatch.setattr("provision.report.live.DELAY", 0.01)
    monkeypatch.setattr(what, fail)
    uncaught: list[object] = []
    monkeypatch.setattr(threading, "excepthook", uncaught.append)
    view = LiveView(open_console(io.StringIO(), terminal=True, width=80), verbose=0, clock=lambda: 1.0)
    view.on(Start(("docker",), ("web1",), False))
    view._drawing.join(10)
    with pytest.raises(RuntimeError, match="cannot draw"):
        view.close()
    assert uncaught == []
