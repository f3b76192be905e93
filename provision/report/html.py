"""What the page shows, as plain values for its template.

`--report FILE.html`: one page that needs nothing else, written whole when the run ends, however it ends.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TextIO

from provision.engine.events import Event, HostSummary, TaskDone
from provision.errors import ProvisionError, UsageError
from provision.report.folding import ChangeGroup, Ledger, fold_changes, fold_errors, fold_messages
from provision.report.layout import failure_word, last_word
from provision.report.text import count, diff_lines, duration, fold, printable, printable_lines, safe, sentence, size
from provision.templating import render

EACH: Final = 6  # errors; from more on, those that differ in numbers alone are shown once

Values = dict[str, Any]
_SIGNS: Final = {"ok": "✓", "changed": "~", "failed": "✗", "skipped": "–", "unreachable": "⌀"}
_STEPS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 36000)


@dataclass(frozen=True)
class Span:
    """A task on a host in time: seconds since the run began."""

    done: TaskDone
    start: float
    end: float


def page(ledger: Ledger, spans: Sequence[Span], started: datetime, elapsed: float) -> Values:
    """The template's values. Texts are harmless, not escaped: that is the template's part."""
    summary = ledger.summary
    word, tone = last_word(ledger, summary)[0] if summary else ("The run broke off before its end", "bad")
    total = max([elapsed, 0.1, *(span.end for span in spans)])
    tasks = list(dict.fromkeys(task for _, task in ledger.done))
    place = {host: index for index, host in enumerate(ledger.hosts)}
    return {
        "title": f"provision {' '.join(ledger.names)}" + (" --check" if ledger.check else ""),
        "check": ledger.check,
        "verdict": word,
        "tone": tone,
        "started": started.strftime("%Y-%m-%d %H:%M:%S %Z").strip(),
        "hosts_count": count(len(ledger.hosts), "host"),
        "errors": _errors(ledger),
        "messages": [
            {"hosts": fold(hosts), "task": message.task, "lines": printable_lines(message.text)}
            for hosts, message in fold_messages(ledger)
        ],
        "tasks": [{"name": task, "headline": printable(ledger.headlines.get(task, ""))} for task in tasks],
        "rows": [_row(ledger, host, tasks) for host in ledger.hosts],
        "changes": [_changes(group, ledger, place) for group in fold_changes(ledger, diffs=True)],
        "ticks": _ticks(total),
        "lanes": [
            {"host": host, "bars": [_bar(span, total) for span in spans if span.done.host == host]}
            for host in ledger.hosts
        ],
    }


def _errors(ledger: Ledger) -> list[Values]:
    return [
        {
            "word": failure_word(group.error).lower(),
            "place": ": ".join(one for one in (fold(group.hosts), group.error.task, group.error.resource) if one),
            "kind": group.error.error,
            "text": "\n".join(printable_lines(group.error.text)),
            "hint": "\n".join(printable_lines(group.error.hint)),
            "alike": group.alike,
        }
        for group in fold_errors(ledger, each=len(ledger.errors) <= EACH)
    ]


def _row(ledger: Ledger, host: str, tasks: Sequence[str]) -> Values:
    """A host in the matrix: a cell per task, and what it cost."""
    cells = []
    for task in tasks:
        done = ledger.done.get((host, task))
        if done is None:
            cells.append({"status": "none", "sign": "", "title": f"{task} is not for {host}"})
            continue
        what = [done.status, *([count(done.changes, "change")] if done.changes else []), duration(done.seconds)]
        sign = str(done.changes) if done.changes and done.status == "changed" else _SIGNS[done.status]
        cells.append({"status": done.status, "sign": sign, "title": f"{host}: {task}: {', '.join(what)}"})
    one = ledger.summary.hosts.get(host, HostSummary()) if ledger.summary else HostSummary()
    statuses = {cell["status"] for cell in cells}
    return {
        "host": host,
        "cells": cells,
        "bad": one.unreachable or bool(one.failed) or bool(statuses & {"failed", "unreachable"}),
        "changed": one.changed,
        "round_trips": one.round_trips,
        "sent": size(one.bytes_sent),
        "received": size(one.bytes_received),
        "seconds": f"{one.seconds:.1f}",
    }


def _changes(group: ChangeGroup, ledger: Ledger, place: dict[str, int]) -> Values:
    return {
        "hosts": fold(group.hosts),
        "rows": " ".join(str(place[host]) for host in group.hosts if host in place),
        "task": group.task,
        "headline": printable(ledger.headlines.get(group.task, "")),
        "items": [
            {
                "text": printable(sentence(change, check=ledger.check)),
                "action": change.action,
                "resource": printable(change.resource),
                "predicted": change.predicted,
                "seconds": duration(seconds) if seconds >= 0.05 else "",
                "diff": diff_lines(change.diff),
            }
            for change, seconds in zip(group.changes, group.seconds, strict=True)
        ],
    }


def _bar(span: Span, total: float) -> Values:
    done = span.done
    return {
        "task": done.task,
        "status": done.status,
        "left": f"{100 * span.start / total:.2f}",
        "width": f"{100 * (span.end - span.start) / total:.2f}",
        "wide": (span.end - span.start) / total > 0.012 * (len(done.task) + 1),
        "title": f"{done.host}: {done.task}: {done.status}, {duration(done.seconds)}",
    }


def _ticks(total: float) -> list[Values]:
    """Three to six marks on the time axis, at round times."""
    step = next((one for one in (0.1, 0.2, 0.5, *_STEPS) if total / one <= 6), total)
    marks = []
    for index in range(int(total / step) + 1):
        at = index * step
        text = f"{at:g} s" if at < 60 else duration(at).removesuffix(" 00 s")
        if at > 0.96 * total:
            break  # its text would stand outside
        marks.append({"left": f"{100 * at / total:.2f}", "text": text})
    return marks


TEMPLATE = "report.html.j2"


class Html:
    """Collects a run and writes it to `path` at the end.

    Raises UsageError at once when `path` cannot be written. A page that cannot be written at the end is told on
    `stderr`: what was done on the hosts is not undone by it, nor is the run's exit code.
    """

    def __init__(
        self,
        path: Path,
        stderr: TextIO,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    ) -> None:
        folder = path.parent
        if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
            reason = f"{path} is a folder" if path.is_dir() else f"{folder} is no folder that can be written to"
            raise UsageError(f"--report {path}: {reason}", hint="name a file in a folder that exists")
        self._path = path
        self._stderr = stderr
        self._clock = clock
        self._ledger = Ledger()
        self._spans: list[Span] = []
        self._ends: dict[str, float] = {}
        self._began = clock()
        self._started = now()

    def on(self, event: Event) -> None:
        """Takes an event in, and when it came."""
        event = safe(event)
        self._ledger.note(event)
        if isinstance(event, TaskDone) and event.status != "skipped":
            end = self._clock() - self._began
            earlier = self._ends.get(event.host, 0.0)  # a host does one task at a time
            self._ends[event.host] = end
            self._spans.append(Span(event, max(end - event.seconds, earlier), end))

    def close(self) -> None:
        """Writes the page: complete, or as it was before."""
        try:
            values = page(self._ledger, self._spans, self._started, self._clock() - self._began)
            _write(self._path, render(TEMPLATE, **values))
        except (OSError, ProvisionError) as error:
            print(f"provision: the report {self._path} was not written: {error}", file=self._stderr)


def _write(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        umask = os.umask(0o077)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)  # as any file the user makes: pipelines hand it on
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
