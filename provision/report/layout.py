"""Styled lines, as plain text or with a terminal's colours.

A stream that a report writes to: whole lines, flushed, and never a reason for a run to die half way.

The tables at the end: counts per host, and what each host cost.

The parts of the report that people read at the end, as styled lines.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TextIO

from provision import errors
from provision.engine.events import ErrorSeen, Summary
from provision.report.folding import (
    ChangeGroup,
    ErrorGroup,
    Ledger,
    fold_changes,
    fold_errors,
    fold_messages,
    fold_rows,
)
from provision.report.text import Kind, diff_lines, duration, fold, printable, printable_lines, sentence, size, verdict

Style = Literal["", "bold", "dim", "good", "bad", "warn", "info", "name"]
Span = tuple[str, Style]
Line = list[Span]

_CODES: Final[dict[Style, str]] = {
    "bold": "1",
    "dim": "2",
    "good": "32",
    "bad": "1;31",
    "warn": "33",
    "info": "34",
    "name": "36",
}


def plain(line: Line) -> str:
    """The text alone."""
    return "".join(text for text, _ in line).rstrip()


def colour(line: Line) -> str:
    """The text with SGR colour codes: the eight basic ones, which follow the reader's theme."""
    return "".join(f"\x1b[{_CODES[style]}m{text}\x1b[0m" if style and text else text for text, style in line)


def hang(text: str, width: int, *, first: Line, indent: str, style: Style = "") -> list[Line]:
    """`first`, then the text, wrapped at `width` (0: not at all); later lines begin with `indent`."""
    used = sum(len(one) for one, _ in first)
    if not width or used + len(text) <= width:
        return [[*first, (text, style)]]
    pieces = textwrap.wrap(
        text,
        max(width, used + 20),
        initial_indent="x" * used,
        subsequent_indent=indent,
        break_on_hyphens=False,
    )
    return [[*first, (pieces[0][used:], style)], *([(one, style)] for one in pieces[1:])]


def table(heads: Sequence[str], rows: Sequence[Sequence[Span]]) -> list[Line]:
    """Columns: the first to the left, the others to the right."""
    widths = [max(len(head), *(len(row[at][0]) for row in rows)) for at, head in enumerate(heads)]

    def cell(at: int, text: str) -> str:
        return text.ljust(widths[at]) if at == 0 else "  " + text.rjust(widths[at])

    lines: list[Line] = [[(cell(at, head), "dim") for at, head in enumerate(heads)]]
    lines += [[(cell(at, text), style) for at, (text, style) in enumerate(row)] for row in rows]
    return lines


class Out:
    """Writes lines to a stream; characters that its encoding lacks become `?`.

    When the reader goes away (`provision … | head`), the run goes on unseen instead of stopping between
    two changes: that is said once on stderr.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.gone = False

    def line(self, text: str = "") -> None:
        """One line, flushed."""
        self.lines([text])

    def lines(self, texts: list[str]) -> None:
        """Several lines in one write, flushed."""
        if self.gone or not texts:
            return
        text = "\n".join(texts) + "\n"
        try:
            try:
                self.stream.write(text)
            except UnicodeEncodeError:
                encoding = self.stream.encoding or "ascii"
                self.stream.write(text.encode(encoding, "replace").decode(encoding))
            self.stream.flush()
        except BrokenPipeError:
            self._reader_left()

    def width(self) -> int:
        """The terminal's columns; 80 where there is none to ask."""
        try:
            return int(os.environ.get("COLUMNS", "")) or 80
        except ValueError:
            pass  # not set, or no number: the terminal itself knows
        try:
            return os.get_terminal_size(self.stream.fileno()).columns or 80
        except OSError:  # no descriptor, or no terminal behind it
            return 80

    def _reader_left(self) -> None:
        self.gone = True
        print("provision: nobody reads the output any more; the run goes on", file=sys.stderr)
        # The interpreter flushes stdout once more when it exits: give that somewhere to go.
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, self.stream.fileno())
        finally:
            os.close(null)


def is_terminal(stream: TextIO) -> bool:
    """Whether people watch the stream on a screen that can redraw: a terminal that is not dumb."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


FOLDED_ABOVE: Final = 10  # hosts; up to there each has a row of its own


def counts(ledger: Ledger, summary: Summary, taste: Taste) -> list[Line]:
    """Host × ok, changed, failed, skipped, unreachable, seconds. Many hosts with equal counts share a row."""
    rows: list[list[Span]] = []
    for row in fold_rows(ledger, summary.hosts, at=10**9 if taste.verbose else FOLDED_ABOVE):
        one = row.counts
        name: Style = "bad" if one.failed or one.unreachable else "name"
        seconds = f"{row.slowest:.1f}"
        if f"{row.quickest:.1f}" != seconds:
            seconds = f"{row.quickest:.1f}–{seconds}"
        rows.append(
            [
                (who(row.hosts, taste), name),
                _number(one.ok, "good"),
                _number(one.changed, "warn"),
                _number(one.failed, "bad"),
                _number(one.skipped, ""),
                ("yes", "bad") if one.unreachable else ("-", "dim"),
                (seconds, ""),
            ]
        )
    changed = "pending" if summary.check else "changed"
    return table(["host", "ok", changed, "failed", "skipped", "unreachable", "seconds"], rows)


def _number(number: int, style: Style) -> Span:
    return str(number), style if number else "dim"


def costs(ledger: Ledger, summary: Summary) -> list[Line]:
    """Host × round trips, bytes sent and received, seconds; and the sum."""
    rows: list[list[Span]] = []
    for name in ledger.in_order(set(summary.hosts)):
        one = summary.hosts[name]
        numbers = (str(one.round_trips), size(one.bytes_sent), size(one.bytes_received), f"{one.seconds:.1f}")
        rows.append([(printable(name), "name"), *((text, "") for text in numbers)])
    if len(rows) > 1:
        all_of = summary.hosts.values()
        sums = (
            str(sum(one.round_trips for one in all_of)),
            size(sum(one.bytes_sent for one in all_of)),
            size(sum(one.bytes_received for one in all_of)),
            f"{summary.seconds:.1f}",
        )
        rows.append([("together", "dim"), *((text, "dim") for text in sums)])
    return table(["host", "round trips", "sent", "received", "seconds"], rows)


NAMES_SHOWN: Final = 6  # pieces of a list of hosts, before the rest is counted
SLOW: Final = 1.0  # seconds from which on a change's time is worth a word
_MARKS: Final[dict[str, tuple[str, Style]]] = {
    "create": ("+", "good"),
    "update": ("~", "warn"),
    "delete": ("-", "bad"),
    "run": (">", "info"),
}

_DIFF: Final[dict[Kind, Style]] = {"head": "bold", "at": "name", "plus": "good", "minus": "bad", "same": ""}


@dataclass(frozen=True)
class Taste:
    """How the reader wants it: with diffs, how much, how wide (0: lines are not wrapped), grouped or a line each."""

    diff: bool = False
    verbose: int = 0
    stats: bool = False
    width: int = 0
    grouped: bool = False


def who(hosts: tuple[str, ...], taste: Taste) -> str:
    """Hosts, folded, and shortened unless all are asked for."""
    return printable(fold(hosts, limit=0 if taste.verbose else NAMES_SHOWN))


def changes(ledger: Ledger, taste: Taste) -> list[Line]:
    """What changed, or would: under a heading per task and hosts, or a line each that can be searched for."""
    lines: list[Line] = []
    told: set[str] = set()
    for group in fold_changes(ledger, diffs=taste.diff):
        if taste.grouped:
            headline = "" if group.task in told else ledger.headlines.get(group.task, "")
            told.add(group.task)
            lines.append(_heading(who(group.hosts, taste), group.task, printable(headline), taste.width))
        lines += _group(group, ledger, taste)
        if taste.grouped:
            lines.append([])
    return lines


def _heading(hosts: str, task: str, headline: str, width: int) -> Line:
    room = width - len(hosts) - len(task) - 4 if width else len(headline)
    if len(headline) > room:
        headline = headline[: room - 1] + "…" if room > 10 else ""
    return [(hosts, "name"), (": ", ""), (task, "bold"), (f"  {headline}" if headline else "", "dim")]


def _group(group: ChangeGroup, ledger: Ledger, taste: Taste) -> list[Line]:
    lines: list[Line] = []
    for change, seconds in zip(group.changes, group.seconds, strict=True):
        text = printable(sentence(change, check=ledger.check))
        if taste.verbose and change.resource:
            text += f"  [{printable(change.resource)}]"
        if seconds >= SLOW:
            text += f"  ({duration(seconds)})"
        mark, style = _MARKS.get(change.action, ("~", "warn"))
        first: Line = [("  ", ""), (f"{mark} ", style)]
        if not taste.grouped:
            first = [(f"{who(group.hosts, taste)}: {group.task}: ", "")]
        lines += hang(text, taste.width, first=first, indent="      ", style="dim" if change.predicted else "")
        if taste.diff and change.diff:
            lines += [[("    ", ""), (one, _DIFF[kind])] for kind, one in diff_lines(change.diff)]
    return lines


def messages(ledger: Ledger, taste: Taste) -> list[Line]:
    """What the reader should know, each once."""
    lines: list[Line] = []
    for hosts, message in fold_messages(ledger):
        place = ": ".join(one for one in (who(hosts, taste), message.task) if one)
        head, *rest = printable_lines(message.text)
        lines += hang(head, taste.width, first=[("note  ", "info"), (f"{place}: ", "name")], indent="      ")
        lines += [[(f"      {one}", "")] for one in rest]
    return lines


def failures(ledger: Ledger, taste: Taste) -> list[Line]:
    """Each error with its place, text and next step; then how to run again where it went wrong."""
    lines: list[Line] = []
    for group in fold_errors(ledger, each=bool(taste.verbose)):
        lines += _failure(group, taste)
        lines.append([])
    hosts = ledger.in_order({one.host for one in ledger.errors if one.host})
    if 0 < len(hosts) < len(ledger.hosts):
        first: Line = [("Once mended, only these again: ", "")]
        lines += hang(f"--limit {','.join(hosts)}", taste.width, first=first, indent="  ", style="bold")
    return lines


def _failure(group: ErrorGroup, taste: Taste) -> list[Line]:
    error = group.error
    place = ": ".join(one for one in (who(group.hosts, taste), error.task, printable(error.resource)) if one)
    first: Line = [(f"{failure_word(error)} ", "bad")]
    lines = hang(place, taste.width, first=first, indent="  ", style="bold")
    if taste.verbose:
        lines[-1].append((f"  [{error.error}]", "dim"))
    for one in printable_lines(error.text):
        lines += hang(one, taste.width, first=[("  ", "")], indent="  ")
    if group.alike:
        lines.append([("  (the first one's words; the others differ in numbers alone, -v shows each)", "dim")])
    hints = printable_lines(error.hint) if error.hint else []
    for index, one in enumerate(hints):
        lines += hang(one, taste.width, first=[("  ", ""), ("→ " if not index else "  ", "info")], indent="    ")
    return lines


def failure_word(error: ErrorSeen) -> str:
    """`UNREACHABLE` where no session could be had, else `FAILED`."""
    kind = getattr(errors, error.error, None)
    return "UNREACHABLE" if isinstance(kind, type) and issubclass(kind, errors.Unreachable) else "FAILED"


def last_word(ledger: Ledger, summary: Summary) -> Line:
    """The verdict, in the colour of how it went."""
    predicted = len([one for one in ledger.changes if one.predicted]) if summary.check else 0
    style: Style = "good"
    if summary.failed or summary.unreachable or summary.interrupted:
        style = "bad"
    elif summary.check and summary.changed:
        style = "warn"
    return [(verdict(summary, predicted=predicted), style)]
