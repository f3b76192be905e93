"""The report for people: progress during the run, then the final report."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from provision.engine.events import Event, Summary
from provision.report.console import PlainConsole, is_animated
from provision.report.folding import ReportOptions, RunLog
from provision.report.progress import PlainProgress
from provision.report.text import describe_result, mask_event

if TYPE_CHECKING:
    from rich.console import Console

    from provision.report.live import LiveView


class Terminal:
    """Reports a run on a console. `animated` replaces what is detected; `ticking=False` leaves out timers (for tests)."""

    def __init__(
        self,
        console: Console | PlainConsole,
        options: ReportOptions | None = None,
        *,
        animated: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
        ticking: bool = True,
    ) -> None:
        self._console = console
        self._options = options or ReportOptions()
        self._log = RunLog(keep_diffs=self._options.diff)
        self._has_reported = False
        verbose = self._options.verbose
        self._progress: LiveView | PlainProgress
        if not isinstance(console, PlainConsole) and (is_animated(console) if animated is None else animated):
            from provision.report.live import LiveView

            self._progress = LiveView(console, verbose=verbose, clock=clock)
        else:
            self._progress = PlainProgress(console, verbose=verbose, clock=clock, ticking=ticking)

    def on(self, event: Event) -> None:
        """Handles an event; the summary ends the progress and prints the final report."""
        event = mask_event(event)
        self._log.add(event)
        if isinstance(event, Summary):
            self._report()
        else:
            self._progress.on(event)

    def close(self) -> None:
        """Prints the final report if the run ended without a summary."""
        if not self._has_reported:
            self._report()

    def _report(self) -> None:
        self._has_reported = True
        try:
            self._progress.close()
        finally:
            self._report_at_end()

    def _report_at_end(self) -> None:
        options, console = self._options, self._console
        if isinstance(console, PlainConsole):
            shows_plays = self._log.check and len(self._log.plays) > 1
            if self._log.is_empty and self._log.summary and not (options.verbose or options.stats or shows_plays):
                # The only section is the result: the other parts of the report, and rich, are not imported.
                if self._progress.has_printed:
                    console.print()
                console.print(describe_result(self._log)[0])
                return
            console = console.styled()
        from provision.report.final import FinalReport

        FinalReport(self._log, options, console).print(blank_line_first=self._progress.has_printed)
