"""What the page shows, as plain values for its template."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from provision.engine.events import HostSummary, TaskDone
from provision.report.clean import printable, printable_lines
from provision.report.diffs import diff_lines
from provision.report.folding import ChangeGroup, fold_changes, fold_errors, fold_messages
from provision.report.layout import failure_word, last_word
from provision.report.ledger import Ledger
from provision.report.names import fold
from provision.report.words import count, duration, sentence, size
from provision.values import dataclass

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
