"""The report for people: progress while it runs, then what changed, the counts, what failed, and a verdict."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

from provision.engine.events import Event, Summary
from provision.report import layout
from provision.report import layout as tables
from provision.report.folding import Ledger
from provision.report.layout import Line, Out, Taste, colour, is_terminal, plain
from provision.report.live import PlainProgress
from provision.report.text import safe

if TYPE_CHECKING:
    from provision.report.live import LiveView


class Terminal:
    """Listens to a run and tells it on a stream: with colours and a live view on a terminal, else in plain lines.

    NO_COLOR, TERM=dumb and a stream that is no terminal make it plain; `fancy` decides instead of them, and
    `ticking=False` leaves out what depends on time passing (for tests).
    """

    def __init__(
        self,
        stream: TextIO,
        taste: Taste | None = None,
        *,
        fancy: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
        ticking: bool = True,
    ) -> None:
        self._out = Out(stream)
        self._fancy = is_terminal(stream) and not os.environ.get("NO_COLOR") if fancy is None else fancy
        self._taste = replace(taste or Taste(), grouped=self._fancy)
        self._ledger = Ledger()
        self._told = False
        verbose = self._taste.verbose
        self._progress: LiveView | PlainProgress
        if self._fancy and ticking:
            from provision.report.live import LiveView  # plain runs do without it

            self._progress = LiveView(self._out, verbose=verbose, clock=clock)
        else:
            self._progress = PlainProgress(self._out, verbose=verbose, clock=clock, ticking=ticking)

    def on(self, event: Event) -> None:
        """Takes an event; the summary ends the progress and brings the report."""
        event = safe(event)
        self._ledger.note(event)
        if isinstance(event, Summary):
            self._tell()
        else:
            self._progress.on(event)

    def close(self) -> None:
        """Tells what is known, when the run broke off before its summary."""
        if not self._told:
            self._tell()

    def _tell(self) -> None:
        self._told = True
        self._progress.close()
        if self._fancy and not self._taste.width:
            self._taste = replace(self._taste, width=self._out.width())
        lines = ending(self._ledger, self._taste)
        if self._progress.said:
            lines.insert(0, [])
        self._out.lines([(colour if self._fancy else plain)(line) for line in lines])


def ending(ledger: Ledger, taste: Taste) -> list[Line]:
    """The whole report at the end: blocks with an empty line between; what failed comes last but for the verdict."""
    blocks = [layout.changes(ledger, taste), layout.messages(ledger, taste)]
    summary = ledger.summary
    if summary is not None:
        # A log of many runs with nothing to do holds a line for each.
        if summary.hosts and (taste.grouped or taste.verbose or not ledger.quiet):
            blocks.append(tables.counts(ledger, summary, taste))
        if taste.stats:
            blocks.append(tables.costs(ledger, summary))
    blocks.append(layout.failures(ledger, taste))
    if summary is not None:
        blocks.append([layout.last_word(ledger, summary)])
    elif ledger.hosts:
        blocks.append([[("The run broke off before its end", "bad")]])
    lines: list[Line] = []
    for block in blocks:
        while block and not block[-1]:
            block.pop()
        if block:
            lines += [*([[]] if lines else []), *block]
    return lines
