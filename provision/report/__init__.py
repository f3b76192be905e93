"""Choosing the listeners of a run by the options on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:  # each command imports this package, for its stderr; only a run has events
    from provision.engine.events import Listener


def listeners(
    *,
    json: bool,
    diff: bool,
    verbose: int,
    stats: bool,
    report: Path | None,
    stdout: TextIO,
    stderr: TextIO,
    command: str = "",
) -> list[Listener]:
    """Returns a listener that writes text or JSON lines to stdout, and one that writes the HTML page if requested.

    `command` is the command line without --limit, for the hint after a failure.
    Raises UsageError if the page cannot be written to `report`, before any host is contacted.
    """
    # Each listener is imported only if it is used: JSON lines need no rich, and only the page needs Jinja.
    chosen: list[Listener] = []
    if json:
        from provision.report.jsonlines import JsonLines

        chosen.append(JsonLines(stdout))
    else:
        from provision.report.console import console_for
        from provision.report.folding import ReportOptions
        from provision.report.terminal import Terminal

        chosen.append(Terminal(console_for(stdout), ReportOptions(diff, verbose, stats, command)))
    if report is not None:
        from provision.report.html import HtmlReport

        chosen.append(HtmlReport(report, stderr, command))
    return chosen
