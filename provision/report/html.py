"""`--report FILE.html`: one self-contained page, written once when the run ends, also after a failure."""

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
from provision.masking import printable, printable_lines
from provision.report.folding import ChangeGroup, RunLog, fold_changes, fold_errors, fold_messages, fold_names
from provision.report.text import (
    count,
    describe_change,
    describe_result,
    diff_lines,
    duration,
    failure_label,
    mask_event,
    place,
    rerun_hint,
    size,
)
from provision.templating import render

TEMPLATE: Final = "report.html.j2"
SHOW_EACH_UP_TO: Final = 6  # errors; if there are more, those that differ only in numbers are joined

Values = dict[str, Any]
_SIGNS: Final = {"ok": "✓", "changed": "~", "failed": "✗", "skipped": "–", "unreachable": "⌀"}
_STEPS: Final = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 36000)


class HtmlReport:
    """Collects a run and writes it to `path` at the end.

    Raises UsageError at once if `path` cannot be written. A page that cannot be written at the end is reported on
    `stderr` and does not change the exit code, since the hosts are already changed.
    """

    def __init__(
        self,
        path: Path,
        stderr: TextIO,
        command: str = "",
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    ) -> None:
        folder = path.parent
        if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
            reason = f"{path} is a folder" if path.is_dir() else f"{folder} is not a folder that can be written to"
            raise UsageError(f"--report {path}: {reason}", hint="give a file in a folder that exists")
        self._path = path
        self._stderr = stderr
        self._command = command
        self._clock = clock
        self._log = RunLog()
        self._bars: list[TaskBar] = []
        self._ends: dict[str, float] = {}
        self._began = clock()
        self._started = now()

    def on(self, event: Event) -> None:
        """Collects an event, and for a task the time at which it ended."""
        event = mask_event(event)
        self._log.add(event)
        if isinstance(event, TaskDone) and event.status != "skipped":
            end = self._clock() - self._began
            earlier = self._ends.get(event.host, 0.0)  # a host does one task at a time
            self._ends[event.host] = end
            self._bars.append(TaskBar(event, max(end - event.seconds, earlier), end))

    def close(self) -> None:
        """Writes the page. If that fails, an existing file is unchanged."""
        try:
            values = page(self._log, self._bars, self._started, self._clock() - self._began, self._command)
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
        Path(name).chmod(0o666 & ~umask)  # as for any new file of the user: other people may have to read it
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@dataclass(frozen=True)
class TaskBar:
    """A task on a host in the timeline; `start` and `end` are seconds since the run began."""

    done: TaskDone
    start: float
    end: float


def page(log: RunLog, bars: Sequence[TaskBar], started: datetime, elapsed: float, command: str = "") -> Values:
    """The values for the template. Texts are printable but not escaped for HTML: the template does that."""
    result, tone = describe_result(log)
    total = max([elapsed, 0.1, *(bar.end for bar in bars)])
    tasks = list(dict.fromkeys(task for _, task in log.tasks))
    rows = {host: index for index, host in enumerate(log.hosts)}
    return {
        "title": f"provision {' '.join(log.names)}" + (" --check" if log.check else ""),
        "check": log.check,
        "result": result,
        "tone": tone,
        "started": started.strftime("%Y-%m-%d %H:%M:%S %Z").strip(),
        "hosts_count": count(len(log.hosts), "host"),
        "errors": _errors(log),
        "rerun": rerun_hint(log, command),
        "messages": [
            {"hosts": fold_names(hosts), "task": message.task, "lines": printable_lines(message.text)}
            for hosts, message in fold_messages(log)
        ],
        "tasks": [{"name": task, "headline": printable(log.headlines.get(task, ""))} for task in tasks],
        "rows": [_row(log, host, tasks) for host in log.hosts],
        "changes": [_changes(group, log, rows) for group in fold_changes(log, diffs=True)],
        "ticks": _ticks(total),
        "lanes": [
            {"host": host, "bars": [_bar(bar, total) for bar in bars if bar.done.host == host]} for host in log.hosts
        ],
    }


def _errors(log: RunLog) -> list[Values]:
    return [
        {
            "label": failure_label(group.error).lower(),
            "place": place(fold_names(group.hosts), group.error.task, printable(group.error.resource)),
            "kind": group.error.error,
            "text": "\n".join(printable_lines(group.error.text)),
            "hint": "\n".join(printable_lines(group.error.hint)),
            "similar": len(group.hosts) if group.similar else 0,
        }
        for group in fold_errors(log, each=len(log.errors) <= SHOW_EACH_UP_TO)
    ]


def _row(log: RunLog, host: str, tasks: Sequence[str]) -> Values:
    """A host's row in the table: a cell per task, then the host's counts and costs."""
    cells = []
    for task in tasks:
        done = log.tasks.get((host, task))
        if done is None:
            cells.append({"status": "none", "sign": "", "title": f"{host}: {task}: not selected for this host"})
            continue
        details = [done.status, *([count(done.changes, "change")] if done.changes else []), duration(done.seconds)]
        sign = str(done.changes) if done.changes and done.status == "changed" else _SIGNS[done.status]
        cells.append({"status": done.status, "sign": sign, "title": f"{host}: {task}: {', '.join(details)}"})
    one = log.summary.hosts.get(host, HostSummary()) if log.summary else HostSummary()
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


def _changes(group: ChangeGroup, log: RunLog, rows: dict[str, int]) -> Values:
    return {
        "hosts": fold_names(group.hosts),
        "rows": " ".join(str(rows[host]) for host in group.hosts if host in rows),
        "task": group.task,
        "headline": printable(log.headlines.get(group.task, "")),
        "items": [
            {
                "text": printable(describe_change(change, check=log.check)),
                "action": change.action,
                "resource": printable(change.resource),
                "predicted": change.predicted,
                "seconds": duration(seconds) if seconds >= 0.05 else "",
                "diff": diff_lines(change.diff),
            }
            for change, seconds in zip(group.changes, group.seconds, strict=True)
        ],
    }


def _bar(bar: TaskBar, total: float) -> Values:
    done = bar.done
    return {
        "task": done.task,
        "status": done.status,
        "left": f"{100 * bar.start / total:.2f}",
        "width": f"{100 * (bar.end - bar.start) / total:.2f}",
        "wide": (bar.end - bar.start) / total > 0.008 * (len(done.task) + 1),
        "title": f"{done.host}: {done.task}: {done.status}, {duration(done.seconds)}",
    }


def _ticks(total: float) -> list[Values]:
    """Three to six marks on the time axis, at round values."""
    step = next((one for one in _STEPS if total / one <= 6), total)
    marks = []
    for index in range(int(total / step) + 1):
        at = index * step
        text = f"{at:g} s" if at < 60 else duration(at).removesuffix(" 00 s")
        if at > 0.96 * total:
            break  # its label would not fit
        marks.append({"left": f"{100 * at / total:.2f}", "text": text})
    return marks
