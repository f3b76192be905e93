"""Texts that several reports share: counts, durations, sizes, descriptions of changes and of the result."""

from __future__ import annotations

import shlex
from typing import Final, Literal

from provision import errors
from provision.engine.events import ChangeEvent, ErrorEvent, Summary
from provision.report.folding import RunLog

Tone = Literal["good", "warning", "bad"]
"""The colour of a result: the name of a style on the terminal and of a class in the page."""

INCOMPLETE: Final = "The run did not complete"


def count(number: int, noun: str) -> str:
    """`1 host`, `3 hosts`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def duration(seconds: float) -> str:
    """`0.8 s`, `2 min 03 s`, `1 h 02 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def size(number: int) -> str:
    """A number of bytes: `912 B`, `12.3 kB`, `4.0 MB`."""
    if number < 1000:
        return f"{number} B"
    return f"{number / 1e3:.1f} kB" if number < 999_950 else f"{number / 1e6:.1f} MB"


def place(*parts: str) -> str:
    """Host, task and resource, as far as they are known: `web1: docker: Packages docker-ce`."""
    return ": ".join(one for one in parts if one)


def describe_change(change: ChangeEvent, *, check: bool) -> str:
    """The description of a change: `start docker`, `would start docker`, `… (predicted: requires gitlab)`."""
    if check:
        note = f" (predicted: requires {change.requires})" if change.predicted else ""
        return f"would {change.summary}{note}"
    return change.summary if change.applied else f"not applied: {change.summary}"


def is_unreachable(error: ErrorEvent) -> bool:
    """Whether the host could not be connected to or logged in to."""
    kind = getattr(errors, error.error, None)
    return isinstance(kind, type) and issubclass(kind, errors.Unreachable)


def failure_label(error: ErrorEvent) -> str:
    """`UNREACHABLE` or `FAILED`."""
    return "UNREACHABLE" if is_unreachable(error) else "FAILED"


def rerun_hint(log: RunLog, command: str) -> tuple[str, str] | None:
    """How to rerun the hosts with errors: a sentence and the command; None without errors.

    `command` is the run's own, without --limit; "" if it contains a secret.
    """
    limit = f"--limit {shlex.quote(','.join(hosts))}" if (hosts := log.hosts_to_rerun) else ""
    if not log.errors or not (command or limit):
        return None
    if not command:
        return "After the fix, rerun only these hosts: the same command with", limit
    which = "rerun only these hosts:" if limit else "rerun:"
    return f"After the fix, {which}", f"{command} {limit}".rstrip()


def describe_result(log: RunLog) -> tuple[str, Tone]:
    """The last line of a report: a sentence that describes the result, and its tone."""
    summary = log.summary
    if summary is None:
        return INCOMPLETE, "bad"
    predicted = len([one for one in log.changes if one.predicted]) if summary.check else 0
    return _sentence(summary, predicted), _tone(summary)


def _tone(summary: Summary) -> Tone:
    if summary.failed or summary.unreachable or summary.interrupted:
        return "bad"
    return "warning" if summary.check and summary.changed else "good"


def _sentence(summary: Summary, predicted: int) -> str:
    took, hosts = duration(summary.seconds), count(len(summary.hosts), "host")
    problems = [f"{summary.failed} failed"] if summary.failed else []
    problems += [f"{summary.unreachable} unreachable"] if summary.unreachable else []
    if summary.interrupted:
        return ", ".join([f"Interrupted after {took}: {_changes(summary, predicted)}", *problems])
    if problems:
        problems[0] = problems[0].replace(" ", f" of {hosts} ", 1)
        return ", ".join([*problems, _changes(summary, predicted, of_all=False), took])
    if not summary.changed:
        return f"Nothing to change on {hosts}, {took}"
    return f"{_changes(summary, predicted)}, {took}"


def _changes(summary: Summary, predicted: int, *, of_all: bool = True) -> str:
    """`17 changes on 2 of 3 hosts`; in check mode `19 changes pending on 3 hosts (2 predicted), nothing was changed`."""
    if not summary.changed:
        return "no changes"
    changed, hosts = len([one for one in summary.hosts.values() if one.changed]), len(summary.hosts)
    where = f"{changed} of {hosts} hosts" if of_all and changed < hosts else count(changed, "host")
    if not summary.check:
        return f"{count(summary.changed, 'change')} on {where}"
    note = f" ({predicted} predicted)" if predicted else ""
    return f"{count(summary.changed, 'change')} pending on {where}{note}, nothing was changed"
