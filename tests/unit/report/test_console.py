"""The stream that never ends a run, and what rich makes of terminals and variables."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from provision.report.console import SafeStream, is_animated, is_styled, open_console

VARIABLES = ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "COLUMNS", "CI", "TTY_COMPATIBLE", "TTY_INTERACTIVE")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[TextIO]:
    """A pseudo-terminal, with no variable set but TERM."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    master, slave = os.openpty()
    with os.fdopen(slave, "w", encoding="utf-8") as stream:
        yield stream
    os.close(master)


def test_characters_that_the_encoding_lacks_become_question_marks() -> None:
    """A latin-1 log is no reason to fail."""
    raw = io.BytesIO()
    stream = SafeStream(io.TextIOWrapper(raw, encoding="latin-1", newline=""))
    stream.write("é → ✓\n")
    stream.flush()
    assert raw.getvalue() == b"\xe9 ? ?\n"


@pytest.mark.parametrize("stderr", ["open", "closed as well"])
def test_run_continues_when_the_pipe_is_closed(stderr: str) -> None:
    """`provision … | head -1` neither ends the run nor shows a traceback, with or without `2>&1`."""
    code = (
        "import sys, os\nfrom provision.report.console import SafeStream\nout = SafeStream(sys.stdout)\n"
        "for number in range(20000): out.write(f'line {number}\\n'); out.flush()\n"
        "os.write(int(sys.argv[1]), b'end reached')"
    )
    read, write = os.pipe()
    errors = subprocess.PIPE if stderr == "open" else subprocess.STDOUT
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(write)], stdout=subprocess.PIPE, stderr=errors, text=True, pass_fds=(write,)
    )
    os.close(write)
    assert child.stdout is not None
    assert child.stdout.readline() == "line 0\n"
    child.stdout.close()
    with os.fdopen(read) as end:
        assert end.read() == "end reached"
    if child.stderr is not None:
        assert child.stderr.read() == "provision: stdout was closed; the run continues\n"
        child.stderr.close()
    assert child.wait(timeout=20) == 0


def test_run_continues_when_the_disk_is_full() -> None:
    """`provision … > file` on a full disk: reported once on stderr."""
    code = (
        "import sys\nfrom provision.report.console import SafeStream\nout = SafeStream(sys.stdout)\n"
        "for number in range(3): out.write('x\\n'); out.flush()"
    )
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, timeout=20)
    assert done.stderr == "provision: cannot write to stdout: No space left on device; the run continues\n"
    assert done.returncode == 0


def test_terminals_get_styles_and_a_live_view(terminal: TextIO) -> None:
    """A file or a pipe gets neither."""
    console = open_console(terminal)
    assert (is_styled(console), is_animated(console)) == (True, True)
    console = open_console(io.StringIO())
    assert (is_styled(console), is_animated(console)) == (False, False)


@pytest.mark.parametrize(
    ("variables", "rich", "animated", "colour"),
    [
        ({"NO_COLOR": "1"}, True, True, False),
        ({"TERM": "dumb"}, False, False, False),
        ({"TTY_COMPATIBLE": "0"}, False, False, False),
        ({"TTY_INTERACTIVE": "0"}, True, False, True),
        ({"CI": "true"}, True, False, True),
    ],
)
def test_variables_that_change_what_a_terminal_gets(
    variables: dict[str, str],
    rich: bool,
    animated: bool,
    colour: bool,
    terminal: TextIO,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The variables that rich documents, and CI."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    console = open_console(terminal)
    assert (is_styled(console), is_animated(console)) == (rich, animated)
    with console.capture() as capture:
        console.print("x", style="good")
    assert ("\x1b[32m" in capture.get()) == colour


def test_force_color_styles_a_log_but_redraws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CI job's log shows colours; a live view would fill it."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    console = open_console(io.StringIO())
    assert (is_styled(console), is_animated(console)) == (True, False)


def test_text_from_hosts_is_no_markup() -> None:
    """`[bold]` and `:smile:` in a file name are shown as they are."""
    stream = io.StringIO()
    open_console(stream).print("[bold]x[/bold] :smile: [/nothing]")
    assert stream.getvalue() == "[bold]x[/bold] :smile: [/nothing]\n"


def test_a_stream_that_is_closed_in_this_process_ends_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Its methods raise ValueError, not OSError."""
    closed = io.StringIO()
    closed.close()
    stream = SafeStream(closed)
    assert stream.write("lost") == 4
    stream.flush()
    assert capsys.readouterr().err == "provision: stdout was closed; the run continues\n"


@pytest.mark.parametrize("options", [[], ["--json"], ["-v"]])
@pytest.mark.parametrize("target", ["/dev/full", "a terminal that hung up"])
def test_a_full_disk_or_a_lost_terminal_ends_no_run(target: str, options: list[str], tmp_path: Path) -> None:
    """ENOSPC and EIO on stdout: the run reaches its end, the HTML report is written, and stderr has one line."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom provision.report import listeners\n"
        "from provision.engine.events import Bus, ErrorEvent, Message, Output, Start, Summary\n"
        "o = sys.argv[2:]\n"
        "bus = Bus(listeners(json='--json' in o, diff=False, verbose='-v' in o, stats=False, report=Path(sys.argv[1]),"
        " stdout=sys.stdout, stderr=sys.stderr))\n"
        "for one in [Start(('t',), ('h',), False), Output('h', 't', 'line\\n'), Message('h', 't', 'note'),"
        " ErrorEvent('h', 't', 'r', 'HostFailed', 'text', 'hint'), Summary(False, 0, 1, 0, 1.0, {})]: bus.publish(one)\n"
        "bus.close()\nprint('end reached', file=sys.stderr)"
    )
    report = tmp_path / "report.html"
    if target == "/dev/full":
        out = os.open(target, os.O_WRONLY)
    else:
        master, out = os.openpty()
        os.close(master)
    try:
        child = subprocess.run(
            [sys.executable, "-c", code, report, *options], stdout=out, stderr=subprocess.PIPE, text=True, timeout=60
        )
    finally:
        os.close(out)
    lines = child.stderr.splitlines()
    assert child.returncode == 0, child.stderr
    assert len(lines) == 2, child.stderr
    assert lines[0].startswith("provision: cannot write to stdout: ")
    assert lines[1] == "end reached"
    assert "hint" in report.read_text()
