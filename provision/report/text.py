"""Texts of all reports: untrusted text made safe to print, and the phrases that several reports share.

Every text from a host, a program or a file passes through here before it is printed: secrets are masked, escape sequences
removed, and output is split into lines.
"""

from __future__ import annotations

import shlex
from typing import Any, Final, Literal

from provision import errors
from provision.engine.events import ChangeEvent, ErrorEvent, Event, Message, Output, Step, StepKind, Summary
from provision.masking import LONGEST_LINE, mask, printable, printable_lines
from provision.report.folding import RunLog

Tone = Literal["good", "warning", "bad"]
"""The colour of a result: the name of a style on the terminal and of a class in the page."""

INCOMPLETE: Final = "The run did not complete"

# The fields that may contain a secret. Names of hosts and tasks come from the inventory and are keys: masking them
# because a password happens to be "docker" would break the programs that read the events.
_FREE_TEXTS: dict[type, tuple[str, ...]] = {
    Step: ("text",),
    Output: ("text",),
    ChangeEvent: ("resource", "summary", "diff"),
    Message: ("text",),
    ErrorEvent: ("resource", "text", "hint"),
}


_ROUTINE: Final[tuple[StepKind, ...]] = (
    "connecting",
    "observing",
)  # most events are of these kinds; their texts have no secrets


def mask_event(event: Event) -> Event:
    """The event with every known secret in its free texts replaced by `***`."""
    if isinstance(event, Step) and event.kind in _ROUTINE:
        return event
    texts = {name: getattr(event, name) for name in _FREE_TEXTS.get(type(event), ())}
    masked: dict[str, Any] = {name: mask(text) for name, text in texts.items()}
    return event if masked == texts else event._replace(**masked)


def safe_text(text: str) -> str:
    """A text of any number of lines, with secrets masked and each line printable."""
    return "\n".join(printable(line.removesuffix("\r")) for line in mask(text).split("\n"))


class LineAssembler:
    """Joins each host's output, which arrives in arbitrary pieces, into printable lines of at most about 64 Ki letters."""

    def __init__(self) -> None:
        self._unfinished: dict[str, str] = {}

    def add(self, host: str, text: str) -> list[str]:
        """Adds output and returns the lines that it completes, without empty ones."""
        whole, newline, rest = (self._unfinished.get(host, "") + text).rpartition("\n")
        if len(rest) > LONGEST_LINE:
            whole, newline, rest = whole + newline + rest, "\n", ""
        self._unfinished[host] = rest
        return [line for line in printable_lines(whole) if line] if newline else []

    def flush(self) -> list[tuple[str, str]]:
        """Returns host and text of each last line that has no newline."""
        rest = [(host, line) for host, text in self._unfinished.items() for line in printable_lines(text) if line]
        self._unfinished.clear()
        return rest


DiffLineKind = Literal["header", "hunk", "added", "removed", "context"]


def diff_lines(diff: str) -> list[tuple[DiffLineKind, str]]:
    """The lines of a unified diff, printable, each with its kind. A removed line such as `-- x` is not a header."""
    if not diff:
        return []
    lines = printable_lines(diff)
    kinds: list[tuple[DiffLineKind, str]] = []
    for index, line in enumerate(lines):
        follower = lines[index + 1] if index + 1 < len(lines) else ""
        kind: DiffLineKind = "context"
        after_header = bool(kinds) and kinds[-1][0] == "header" and kinds[-1][1].startswith("--- ")
        if (line.startswith("--- ") and follower.startswith("+++ ")) or (line.startswith("+++ ") and after_header):
            kind = "header"
        elif line.startswith("@@"):
            kind = "hunk"
        elif line.startswith("+"):
            kind = "added"
        elif line.startswith("-"):
            kind = "removed"
        kinds.append((kind, line))
    return kinds


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
    return _sentence(summary, log.predicted if summary.check else 0), _tone(summary)


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
