"""`--report FILE.html`: one self-contained page, written once when the run ends, also after a failure."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, TextIO

from provision.engine.events import Event, HostSummary, Status, TaskDone
from provision.errors import ProvisionError, UsageError
from provision.masking import printable, printable_lines
from provision.report.folding import (
    ChangeGroup,
    RunLog,
    describe_plays,
    fold_changes,
    fold_errors,
    fold_messages,
    fold_names,
)
from provision.report.progress import MAX_NAMES
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
FOLD_ROWS_ABOVE: Final = 100  # hosts; up to this number, each has its own row in the table and in the timeline

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
        self._bars: dict[str, list[TaskBar]] = {}
        self._began = clock()
        self._started = now()

    def on(self, event: Event) -> None:
        """Collects an event, and for a task the time at which it ended."""
        event = mask_event(event)
        self._log.add(event)
        if isinstance(event, TaskDone):
            end = self._clock() - self._began
            bars = self._bars.setdefault(event.host, [])
            earlier = bars[-1].end if bars else 0.0  # a host does one task at a time
            start = end if event.status == "skipped" else max(end - event.seconds, earlier)
            bars.append(TaskBar(event.task, event.status, event.changes, event.seconds, start, end))

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


class TaskBar(NamedTuple):
    """A task that ended on a host; `start` and `end` are seconds since the run began."""

    task: str
    status: Status
    changes: int
    seconds: float
    start: float
    end: float


Bars = Mapping[str, Sequence[TaskBar]]


def page(log: RunLog, bars: Bars, started: datetime, elapsed: float, command: str = "") -> Values:
    """The values for the template. Texts are printable but not escaped for HTML: the template does that.

    bars  by host, in the order in which the tasks ended
    """
    result, tone = describe_result(log)
    total = max([elapsed, 0.1, *(bar.end for of_host in bars.values() for bar in of_host)])
    tasks = list(log.headlines)
    groups = _equal_hosts(log, bars)
    rows = {host: index for index, hosts in enumerate(groups) for host in hosts}
    return {
        "title": f"provision {' '.join(log.names)}" + (" --check" if log.check else ""),
        "check": log.check,
        "result": result,
        "tone": tone,
        "started": started.strftime("%Y-%m-%d %H:%M:%S %Z").strip(),
        "hosts_count": count(len(log.hosts), "host"),
        "plays": [printable(line) for line in describe_plays(log)],
        "errors": _errors(log),
        "rerun": rerun_hint(log, command),
        "messages": [
            {"hosts": fold_names(hosts), "task": message.task, "lines": printable_lines(message.text)}
            for hosts, message in fold_messages(log)
        ],
        "tasks": [{"name": task, "headline": printable(log.headlines.get(task, ""))} for task in tasks],
        "rows": [_row(log, hosts, bars, tasks) for hosts in groups],
        "changes": [_changes(group, log, rows) for group in fold_changes(log, diffs=True)],
        "ticks": _ticks(total),
        "lanes": [_lane(hosts, bars, total) for hosts in groups],
    }


def _equal_hosts(log: RunLog, bars: Bars) -> list[list[str]]:
    """The hosts of each row. In a large run, hosts whose tasks ended in the same way share a row."""
    if len(log.hosts) <= FOLD_ROWS_ABOVE:
        return [[host] for host in log.hosts]
    groups: dict[object, list[str]] = {}
    for host in log.hosts:
        one = log.summary.hosts.get(host) if log.summary else None
        ends = tuple((bar.task, bar.status, bar.changes) for bar in bars.get(host, ()))
        groups.setdefault((ends, one and (one.changed, one.failed, one.unreachable)), []).append(host)
    return list(groups.values())


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
        for group in fold_errors(log, each=log.errors_count <= SHOW_EACH_UP_TO)
    ]


def _row(log: RunLog, hosts: Sequence[str], bars: Bars, tasks: Sequence[str]) -> Values:
    """A row of the table, of one host or of several equal ones: a cell per task, then counts and costs of each host."""
    name = fold_names(hosts, limit=MAX_NAMES)
    ended = [{bar.task: bar for bar in bars.get(host, ())} for host in hosts]
    cells = []
    for task in tasks:
        done = [of_host[task] for of_host in ended if task in of_host]
        if not done:
            cells.append({"status": "none", "sign": "", "title": f"{name}: {task}: not selected for this host"})
            continue
        status, changes = done[0].status, done[0].changes
        took = _span([bar.seconds for bar in done], duration)
        details = [status, *([count(changes, "change")] if changes else []), took]
        sign = str(changes) if changes and status == "changed" else _SIGNS[status]
        cells.append({"status": status, "sign": sign, "title": f"{name}: {task}: {', '.join(details)}"})
    known = log.summary.hosts if log.summary else {}
    summaries = [known.get(host, HostSummary()) for host in hosts]
    statuses = {cell["status"] for cell in cells}
    return {
        "host": name,
        "names": " ".join(hosts),
        "cells": cells,
        "bad": summaries[0].unreachable or bool(summaries[0].failed) or bool(statuses & {"failed", "unreachable"}),
        "changed": summaries[0].changed,
        "round_trips": _span([one.round_trips for one in summaries], str),
        "sent": _span([one.bytes_sent for one in summaries], size),
        "received": _span([one.bytes_received for one in summaries], size),
        "seconds": _span([one.seconds for one in summaries], "{:.1f}".format),
    }


def _span(numbers: Iterable[Any], text: Callable[[Any], str]) -> str:
    """The smallest and the largest number as a range; one number if both have the same text."""
    lowest, highest = min(numbers), max(numbers)
    return text(lowest) if text(lowest) == text(highest) else f"{text(lowest)}–{text(highest)}"


def _changes(group: ChangeGroup, log: RunLog, rows: dict[str, int]) -> Values:
    return {
        "hosts": fold_names(group.hosts),
        "rows": " ".join(dict.fromkeys(str(rows[host]) for host in group.hosts if host in rows)),
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


def _lane(hosts: Sequence[str], bars: Bars, total: float) -> Values:
    """The timeline of one host or of several equal ones. A bar goes from the first start of a task to its last end."""
    name = fold_names(hosts, limit=MAX_NAMES)
    tasks = zip(*(bars.get(host, ()) for host in hosts), strict=True)
    return {"host": name, "bars": [_bar(name, same, total) for same in tasks if same[0].status != "skipped"]}


def _bar(name: str, of_hosts: Sequence[TaskBar], total: float) -> Values:
    first = of_hosts[0]
    start, end = min(bar.start for bar in of_hosts), max(bar.end for bar in of_hosts)
    return {
        "task": first.task,
        "status": first.status,
        "left": f"{100 * start / total:.2f}",
        "width": f"{100 * (end - start) / total:.2f}",
        "wide": (end - start) / total > 0.008 * (len(first.task) + 1),
        "title": f"{name}: {first.task}: {first.status}, {_span([bar.seconds for bar in of_hosts], duration)}",
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
