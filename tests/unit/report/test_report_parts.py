"""The small parts of the reports: words, harmless texts, diffs, streams, the choice by options."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from provision.engine.events import Event, HostSummary, Message, Output, Start, Summary
from provision.report.console import listeners
from provision.report.html import Html
from provision.report.jsonlines import JsonLines
from provision.report.layout import Out, hang, plain
from provision.report.terminal import Terminal
from provision.report.text import diff_lines, duration, printable, printable_lines, safe, size, verdict
from provision.secret import Secret

ONE, THREE = {"a": HostSummary()}, dict.fromkeys("abc", HostSummary())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (0.84, "0.8 s"), (59.9, "59.9 s"), (59.96, "1 min 00 s"), (123, "2 min 03 s"), (3720, "1 h 02 min")],
)
def test_duration(seconds: float, text: str) -> None:
    """Durations as people say them."""
    assert duration(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0 B"), (999, "999 B"), (12_340, "12.3 kB"), (4_000_000, "4.0 MB")])
def test_size(number: int, text: str) -> None:
    """Sizes in steps of a thousand."""
    assert size(number) == text


@pytest.mark.parametrize(
    ("summary", "text"),
    [
        (Summary(False, 14, 0, 0, 41.2, THREE), "3 hosts, 14 changes, 41.2 s"),
        (Summary(False, 1, 0, 0, 1, ONE), "1 host, 1 change, 1.0 s"),
        (Summary(False, 0, 0, 0, 0.8, THREE), "Nothing to change on 3 hosts, 0.8 s"),
        (Summary(True, 0, 0, 0, 0.8, THREE), "Nothing to change on 3 hosts, 0.8 s"),
        (Summary(True, 14, 0, 0, 1, THREE), "14 changes pending on 3 hosts, 1.0 s"),
        (Summary(False, 0, 2, 0, 1, THREE), "2 of 3 hosts failed, 1.0 s"),
        (Summary(False, 0, 0, 1, 1, THREE), "1 of 3 hosts unreachable, 1.0 s"),
        (Summary(True, 5, 1, 1, 1, THREE), "1 of 3 hosts failed, 1 unreachable, 5 changes pending, 1.0 s"),
        (Summary(False, 4, 0, 0, 9, THREE, True), "Interrupted after 9.0 s: 4 changes on 3 hosts"),
        (Summary(False, 4, 1, 0, 9, THREE, True), "Interrupted after 9.0 s: 4 changes on 3 hosts, 1 failed"),
    ],
)
def test_verdict(summary: Summary, text: str) -> None:
    """The last line for each way in which a run ends."""
    assert verdict(summary) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain – text", "plain – text"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\tb", "a       b"),
        ("bell\x07", "bell\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("hidden\u202e", "hidden\\u202e"),
        ("byte \udcff", "byte \\udcff"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    """Nothing is left that a terminal would obey, or that hides the order of letters."""
    assert printable(text) == shown
    assert printable(text).isprintable()


def test_redrawn_lines_keep_what_was_left_standing() -> None:
    """Progress bars redraw a line with carriage returns; \\r\\n is a line's end."""
    assert printable_lines("0%\r50%\r100%\r\ndone\n") == ["100%", "done"]


def test_safe_masks_output() -> None:
    """The last net: a secret in a program's output is blanked; an event without one is itself."""
    canary = Secret("canary-5511").reveal()
    assert safe(Output("h", "t", f"x {canary}")) == Output("h", "t", "x ***")
    event = Message("h", "t", "x")
    assert safe(event) is event


def test_diff_lines() -> None:
    """Headings are told from removed lines that begin with dashes."""
    diff = "--- a\n+++ a\n@@ -1,3 +1,2 @@\n ---\n--- gone\n-x\n+++ more\n \n"
    kinds = [kind for kind, _ in diff_lines(diff)]
    assert kinds == ["head", "head", "at", "same", "minus", "minus", "plus", "same"]
    assert diff_lines("") == []


def test_hang() -> None:
    """Wrapped text hangs under its indent, and nothing is lost."""
    lines = [plain(line) for line in hang("one two three four five six", 24, first=[("  → ", "info")], indent="    ")]
    assert lines == ["  → one two three four", "    five six"]
    assert len(hang("x" * 300, 0, first=[("", "")], indent="")) == 1


def test_streams_that_lack_letters() -> None:
    """What the encoding cannot say becomes a question mark, not a crash."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="latin-1", newline="")
    Out(stream).line("é → ✓")
    assert raw.getvalue() == b"\xe9 ? ?\n"


def test_reader_that_goes_away() -> None:
    """`provision … | head -1` neither stops the run nor ends in a traceback."""
    code = (
        "import sys\nfrom provision.report.layout import Out\nout = Out(sys.stdout)\n"
        "for number in range(20000): out.line(f'line {number}')\nprint('ran on', file=sys.stderr)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stderr is not None
    assert child.stdout.readline() == "line 0\n"
    child.stdout.close()
    assert child.stderr.read() == "provision: nobody reads the output any more; the run goes on\nran on\n"
    child.stderr.close()
    assert child.wait(timeout=20) == 0


def test_choice_by_options(tmp_path: Path) -> None:
    """Programs get JSON lines, people the terminal's view; the page comes beside either."""
    streams = {"stdout": io.StringIO(), "stderr": io.StringIO()}
    page = tmp_path / "report.html"
    people = listeners(json=False, diff=True, verbose=1, stats=True, report=None, **streams)
    programs = listeners(json=True, diff=False, verbose=0, stats=False, report=page, **streams)
    assert [type(one) for one in people] == [Terminal]
    assert [type(one) for one in programs] == [JsonLines, Html]


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_plain_on_request(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR and TERM=dumb give plain lines even on a terminal."""
    monkeypatch.setenv("TERM", "xterm")
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    master, slave = os.openpty()
    events: list[Event] = [Start(("t",), ("h",), False), Summary(False, 0, 0, 0, 1.0, {"h": HostSummary()})]
    with os.fdopen(slave, "w", encoding="utf-8") as stream:
        terminal = Terminal(stream)
        for event in events:
            terminal.on(event)
        terminal.close()
        said = os.read(master, 4096)
    os.close(master)
    assert said == b"Nothing to change on 1 host, 1.0 s\r\n"
