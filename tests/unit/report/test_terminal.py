"""The whole texts of the report for people, compared with those in `expected/`; and its details."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence

import pytest

from provision.engine.events import ErrorEvent, Event, HostSummary, Start, Summary
from provision.report.console import console_for, open_console
from provision.report.folding import ReportOptions
from provision.report.terminal import Terminal
from tests.unit.report.fake_runs import everywhere

EventsOf = Callable[[str], list[Event]]
Expected = Callable[[str, str], None]
STYLE = re.compile(r"\x1b\[([0-9;]*)m")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable that changes what rich writes."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "COLUMNS", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def report(events: Sequence[Event], options: ReportOptions | None = None, *, width: int = 0) -> str:
    """What is printed for these events, without a live view: plain, or as for a terminal of this `width`."""
    stream = io.StringIO()
    console = open_console(stream, terminal=True, width=width) if width else console_for(stream)
    options = (options or ReportOptions())._replace(command="provision runners -i i.toml")
    terminal = Terminal(console, options, animated=False, ticking=False, clock=lambda: 0.0)
    for event in events:
        terminal.on(event)
    terminal.close()
    return stream.getvalue()


@pytest.mark.parametrize("run", ["first", "check", "noop", "failed", "interrupted", "many"])
def test_plain_report(run: str, events_of: EventsOf, expected: Expected) -> None:
    """Each kind of run in plain lines."""
    expected(f"{run}.txt", report(events_of(run)))


def test_plain_report_with_all_options(events_of: EventsOf, expected: Expected) -> None:
    """Diffs, costs, steps and output."""
    expected("first.all.txt", report(events_of("first"), ReportOptions(diff=True, verbose=2, stats=True)))


@pytest.mark.parametrize("run", ["first", "check", "noop", "failed", "many"])
def test_terminal_report(run: str, events_of: EventsOf, expected: Expected) -> None:
    """Each kind of run as on a terminal of 80 columns, without the colours."""
    text = report(events_of(run), ReportOptions(diff=True), width=80)
    expected(f"{run}.terminal.txt", STYLE.sub("", text))


def test_plain_report_has_no_escapes_no_borders_and_no_trailing_blanks(events_of: EventsOf) -> None:
    """A log can be searched and compared."""
    for run in ("first", "check", "failed", "many"):
        text = report(events_of(run), ReportOptions(diff=True, verbose=2, stats=True))
        assert not re.search(r"[\x1b\u2500-\u257f]", text)
        assert not re.search(r"[^ ] +$", text, re.MULTILINE)


def test_run_with_nothing_to_do_is_one_plain_line(events_of: EventsOf) -> None:
    """That is all that a cron job's mail needs."""
    assert report(events_of("noop")) == "Nothing to change on 3 hosts, 0.8 s\n"


def test_colours_end_on_their_own_line(events_of: EventsOf) -> None:
    """A line that is cut off does not colour what follows."""
    lines = report(events_of("failed"), width=80).splitlines()
    assert any("\x1b[1;31m" in line for line in lines)
    for line in lines:
        codes = STYLE.findall(line)
        assert codes[1::2] == ["0"] * (len(codes) // 2)
        assert len(codes) % 2 == 0


@pytest.mark.parametrize("width", [40, 60, 80])
def test_errors_are_wrapped_to_the_terminal(width: int, events_of: EventsOf) -> None:
    """No line of theirs is wider."""
    text = report(events_of("failed"), width=width)
    block = STYLE.sub("", text[text.index("FAILED") : text.index("After the fix")])
    assert max(len(line) for line in block.splitlines()) <= width
    assert "apt-cache madison docker-ce" in " ".join(block.split())


def test_tables_keep_every_number_and_name() -> None:
    """A long name widens a table in plain text; on a narrow terminal it is folded, and the numbers stay whole."""
    host = "runner-with-a-very-long-name.eu-central-1.compute.internal.example.com"
    counts = HostSummary(12345, 67890, round_trips=1234567, seconds=98765.4)
    events: list[Event] = [Start(("t",), (host,), False), Summary(False, 67890, 0, 0, 1.0, {host: counts})]
    options = ReportOptions(stats=True, verbose=1)
    assert f"{host}  12345    67890       0        0            -  98765.4\n" in report(events, options)
    narrow = STYLE.sub("", report(events, options, width=40))
    assert re.search(r"^runner-with-a-very-l  12345    67890 .* 98765\.4$", narrow, re.MULTILINE)
    assert "1234567" in narrow
    assert "".join(line[:20] for line in narrow.splitlines()[1:5]).startswith(host)


def test_run_without_a_summary_shows_what_is_known(events_of: EventsOf) -> None:
    """Without a summary, the errors are printed all the same."""
    events = [event for event in events_of("failed") if not isinstance(event, Summary)]
    text = report(events)
    assert "FAILED runner-1: docker: Packages docker-ce" in text
    assert text.endswith("The run did not complete\n")


def test_run_that_never_began_prints_nothing() -> None:
    """The error that ended it is printed by the command line."""
    assert report([]) == ""


def test_equal_errors_of_many_hosts_are_shown_once() -> None:
    """Errors that differ only in the host's own name are one; the name becomes the range."""
    hosts = tuple(f"web{number}" for number in range(1, 31))
    events: list[Event] = [Start(("docker",), hosts, False)]
    events += [
        ErrorEvent(host, "docker", "Service docker", "ChangeFailed", f"{host}: no systemd", f"ssh {host}")
        for host in hosts
    ]
    events.append(Summary(False, 0, 30, 0, 1.0, {host: HostSummary(failed=1) for host in hosts}))
    text = report(events)
    assert text.count("no systemd") == 1
    assert "FAILED web[1:30]: docker: Service docker\n  web[1:30]: no systemd\n  → ssh web[1:30]\n" in text
    assert text.endswith("30 of 30 hosts failed, no changes, 1.0 s\n")


def test_verbose_shows_each_error(events_of: EventsOf) -> None:
    """With -v, errors that differ in addresses are shown one by one."""
    text = report(events_of("many"), ReportOptions(verbose=1))
    assert all(f"runner-2{number} (10.0.0.2{number}:22): connection refused" in text for number in range(3))


@pytest.mark.parametrize("width", [0, 80])
def test_text_from_hosts_cannot_control_the_terminal(width: int) -> None:
    """Escape sequences and rich's markup in any text are shown or removed, not obeyed."""
    evil = "\x1b[2J\x1b]0;title\x07[red]x[/red]\r\u202e"
    text = STYLE.sub("", report(everywhere(evil), ReportOptions(diff=True, verbose=2), width=width))
    assert not re.search("[\x1b\x07\r\u202e]", text)
    assert "[red]x[/red]" in text
