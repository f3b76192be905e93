"""Which reports a run gets, by its options."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from provision.engine.events import Listener


def listeners(
    *, json: bool, diff: bool, verbose: int, stats: bool, report: Path | None, stdout: TextIO, stderr: TextIO
) -> list[Listener]:
    """The reports on stdout (JSON lines, or for people) and, where asked for, the page.

    Raises UsageError when the page could not be written, before anything is contacted.
    """
    # Each is imported when it is wanted: a run pays for no report but its own.
    chosen: list[Listener] = []
    if json:
        from provision.report.jsonlines import JsonLines

        chosen.append(JsonLines(stdout))
    else:
        from provision.report.layout import Taste
        from provision.report.terminal import Terminal

        chosen.append(Terminal(stdout, Taste(diff=diff, verbose=verbose, stats=stats)))
    if report is not None:
        from provision.report.html import Html

        chosen.append(Html(report, stderr))
    return chosen
