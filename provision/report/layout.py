"""The parts of the report that people read at the end, as styled lines."""

from __future__ import annotations

from typing import Final

from provision import errors
from provision.engine.events import ErrorSeen, Summary
from provision.report.clean import printable, printable_lines
from provision.report.diffs import Kind, diff_lines
from provision.report.folding import ChangeGroup, ErrorGroup, fold_changes, fold_errors, fold_messages
from provision.report.ledger import Ledger
from provision.report.names import fold
from provision.report.paint import Line, Style, hang
from provision.report.words import duration, sentence, verdict
from provision.values import dataclass

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
