"""The whole texts of the reports for people, compared with those kept in `expected/`."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence

import pytest

from provision.engine.events import ErrorSeen, Event, HostSummary, Start, Summary
from provision.report.layout import Taste
from provision.report.terminal import Terminal

Tell = Callable[[str], list[Event]]
Expected = Callable[[str, str], None]


def report(events: Sequence[Event], taste: Taste | None = None, *, fancy: bool = False) -> str:
    """What the terminal shows of these events, but for the live view."""
    stream = io.StringIO()
    terminal = Terminal(stream, taste, fancy=fancy, ticking=False, clock=lambda: 0.0)
    for event in events:
        terminal.on(event)
    terminal.close()
    return stream.getvalue()


@pytest.mark.parametrize("run", ["first", "check", "noop", "failed", "interrupted", "many"])
def test_plain_report(run: str, tell: Tell, expected: Expected) -> None:
    """Each kind of run in plain lines."""
    expected(f"{run}.txt", report(tell(run)))


def test_plain_report_with_all_options(tell: Tell, expected: Expected) -> None:
    """Diffs, costs, steps and output."""
    expected("first.all.txt", report(tell("first"), Taste(diff=True, verbose=2, stats=True)))


@pytest.mark.parametrize("run", ["first", "check", "noop", "failed", "many"])
def test_grouped_report(run: str, tell: Tell, expected: Expected) -> None:
    """Each kind of run as on a terminal of 80 columns; colours aside."""
    text = report(tell(run), Taste(diff=True, width=80), fancy=True)
    expected(f"{run}.terminal.txt", re.sub(r"\x1b\[[0-9;]*m", "", text))


def test_nothing_to_do_is_one_plain_line(tell: Tell) -> None:
    """A cron job's mail of a run that changed nothing."""
    assert report(tell("noop")) == "Nothing to change on 3 hosts, 0.8 s\n"


def test_colours_are_closed(tell: Tell) -> None:
    """Every colour that is opened is closed on its own line, so that a cut-off line colours nothing else."""
    lines = report(tell("failed"), Taste(width=80), fancy=True).splitlines()
    assert any("\x1b[1;31m" in line for line in lines)
    for line in lines:
        codes = re.findall(r"\x1b\[([0-9;]*)m", line)
        assert codes[1::2] == ["0"] * (len(codes) // 2)
        assert len(codes) % 2 == 0


def test_narrow_terminal_wraps_errors(tell: Tell) -> None:
    """Errors fit the terminal: no line of theirs is wider."""
    text = report(tell("failed"), Taste(width=50), fancy=True)
    block = re.sub(r"\x1b\[[0-9;]*m", "", text[text.index("FAILED") : text.index("Once mended")])
    assert max(len(line) for line in block.splitlines()) <= 50


def test_run_that_broke_off_says_so(tell: Tell) -> None:
    """Without a summary, what is known is told all the same."""
    events = [event for event in tell("failed") if not isinstance(event, Summary)]
    text = report(events)
    assert "FAILED runner-1: docker: Packages docker-ce" in text
    assert text.endswith("The run broke off before its end\n")


def test_same_error_on_many_hosts_is_told_once() -> None:
    """Errors equal but for the host's own name are one; the name becomes the range."""
    hosts = tuple(f"web{number}" for number in range(1, 31))
    events: list[Event] = [Start(("docker",), hosts, False)]
    events += [
        ErrorSeen(host, "docker", "Service docker", "ChangeFailed", f"{host}: no systemd", f"ssh {host}")
        for host in hosts
    ]
    events.append(Summary(False, 0, 30, 0, 1.0, {host: HostSummary(failed=1) for host in hosts}))
    text = report(events)
    assert text.count("no systemd") == 1
    assert "FAILED web[1:30]: docker: Service docker\n  web[1:30]: no systemd\n  → ssh web[1:30]\n" in text
    assert text.endswith("30 of 30 hosts failed, 1.0 s\n")


def test_verbose_shows_each_error(tell: Tell) -> None:
    """With -v errors that differ in addresses are told one by one."""
    text = report(tell("many"), Taste(verbose=1))
    assert all(f"runner-2{number} (10.0.0.2{number}:22): connection refused" in text for number in range(3))
