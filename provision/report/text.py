"""What a report may show: no secret, and nothing that a terminal would obey.

The words of the reports: counts, durations, sizes, what a change is called, and the verdict.

Many host names in few words: `runner-[01:20], gitlab`, the notation of the inventory.

Output comes in pieces, cut anywhere; people read lines.

A unified diff's lines by kind, harmless to show.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Literal

from provision.engine.events import ChangeSeen, ErrorSeen, Event, Message, Output, Step, Summary, TaskDone
from provision.secret import mask

# The texts that programs, files and servers may have put a secret into. Names of hosts and tasks come from the
# inventory and are keys: masking them for the sake of a password like "docker" would break whoever reads them.
_FREE: dict[type, tuple[str, ...]] = {
    Step: ("text",),
    Output: ("text",),
    TaskDone: ("headline",),
    ChangeSeen: ("resource", "summary", "diff"),
    Message: ("text",),
    ErrorSeen: ("resource", "text", "hint"),
}


def safe(event: Event) -> Event:
    """The event with every known secret blanked out of its free texts."""
    texts = {name: getattr(event, name) for name in _FREE.get(type(event), ())}
    masked: dict[str, Any] = {name: mask(text) for name, text in texts.items()}
    return event if masked == texts else replace(event, **masked)


_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC: titles, links
    r"|\x1b[@-Z\\-_]?"
)


def printable(line: str) -> str:
    """One line, as harmless text: no escape sequences; tabs widened; what cannot be printed shown as `\\x07`.

    Output of programs and contents of files are theirs: they must not move our cursor or hide what follows.
    """
    if line.isprintable():
        return line
    line = _ESCAPES.sub("", line).expandtabs(8)
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in line)


def printable_lines(text: str) -> list[str]:
    """The lines of a text, each harmless; of a line redrawn with carriage returns, what was left standing."""
    lines = text.replace("\r\n", "\n").strip("\n").split("\n")
    return [printable(line.rstrip("\r").rpartition("\r")[2]) for line in lines]


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
    """`912 B`, `12.3 kB`, `4.0 MB`."""
    if number < 1000:
        return f"{number} B"
    return f"{number / 1e3:.1f} kB" if number < 999_950 else f"{number / 1e6:.1f} MB"


def sentence(change: ChangeSeen, *, check: bool) -> str:
    """What was done, or would be: `start docker`, `would start docker`, `predicted: after gitlab: …`."""
    if change.predicted:
        return f"predicted: {change.summary}"
    if check:
        return f"would {change.summary}"
    return change.summary if change.applied else f"not applied: {change.summary}"


def verdict(summary: Summary, *, predicted: int = 0) -> str:
    """The last line: how it went, in one sentence."""
    hosts, took = len(summary.hosts), duration(summary.seconds)
    what = f"{count(summary.changed, 'change')} pending" if summary.check else count(summary.changed, "change")
    if predicted:
        what += f" ({predicted} of them predicted)"
    counts = ((summary.failed, "failed"), (summary.unreachable, "unreachable"))
    bad = [f"{number} {word}" for number, word in counts if number]
    if summary.interrupted:
        return ", ".join([f"Interrupted after {took}: {what} on {count(hosts, 'host')}", *bad])
    if bad:
        first, _, word = bad[0].partition(" ")
        bad[0] = f"{first} of {count(hosts, 'host')} {word}"
        return ", ".join([*bad, *([what] if summary.changed else []), took])
    if not summary.changed:
        return f"Nothing to change on {count(hosts, 'host')}, {took}"
    if summary.check:
        return f"{what} on {count(hosts, 'host')}, {took}"
    return f"{count(hosts, 'host')}, {what}, {took}"


_NUMBER = re.compile(r"[0-9]+")
_Around = tuple[str, ...]  # what stands before and after the number; of a name without one, the name alone


def fold(names: Iterable[str], *, limit: int = 0) -> str:
    """Names with neighbouring numbers folded into ranges, in order of first appearance.

    `limit` > 0 shows at most so many pieces and counts the names in the rest: `a, b and 7 more`.
    """
    names = list(dict.fromkeys(names))
    groups: dict[_Around, dict[str, str]] = {}
    shared = Counter(around for name in names for around, _ in _readings(name))
    for name in names:
        readings = list(_readings(name))
        if not readings:
            groups[name,] = {name: ""}
            continue
        # A name with several numbers goes where most others go: web1.eu2 beside web2.eu2, not beside web1.eu3.
        around, number = max(readings, key=lambda one: shared[one[0]])
        groups.setdefault(around, {})[name] = number
    pieces = [(_piece(around, members), len(members)) for around, members in groups.items()]
    if limit and len(pieces) > limit:
        rest = sum(count for _, count in pieces[limit:])
        return ", ".join(text for text, _ in pieces[:limit]) + f" and {rest} more"
    return ", ".join(text for text, _ in pieces)


def _readings(name: str) -> Iterator[tuple[_Around, str]]:
    """Each number in a name, with what stands around it; the last number first."""
    for match in reversed(list(_NUMBER.finditer(name))):
        yield (name[: match.start()], name[match.end() :]), match.group()


def _piece(around: _Around, members: dict[str, str]) -> str:
    if len(members) == 1:
        return next(iter(members))
    before, after = around
    return f"{before}[{','.join(_ranges(list(members.values())))}]{after}"


def _ranges(numbers: list[str]) -> Iterator[str]:
    """`01`, `02`, `03`, `07` as `01:03`, `07`. Numbers of different width stand together only when unpadded."""
    widths = {len(one) for one in numbers if one.startswith("0") and len(one) > 1}
    padded = sorted(one for one in numbers if len(one) in widths)
    plain = sorted((one for one in numbers if len(one) not in widths), key=int)
    for batch in (padded, plain):
        start = 0
        for index, one in enumerate(batch):
            follower = batch[index + 1] if index + 1 < len(batch) else ""
            if not follower or int(follower) != int(one) + 1 or (batch is padded and len(follower) != len(one)):
                yield one if index == start else f"{batch[start]}:{one}"
                start = index + 1


class Pieces:
    """Puts each host's pieces together and gives out whole lines, harmless to show."""

    def __init__(self) -> None:
        self._begun: dict[str, str] = {}

    def take(self, host: str, text: str) -> list[str]:
        """The lines that this piece makes whole; empty ones left out."""
        whole, newline, rest = (self._begun.get(host, "") + text).rpartition("\n")
        self._begun[host] = rest
        return [line for line in printable_lines(whole) if line] if newline else []

    def rest(self) -> list[tuple[str, str]]:
        """Host and line for what never ended in a newline."""
        left = [(host, line) for host, text in self._begun.items() for line in printable_lines(text) if line]
        self._begun.clear()
        return left


Kind = Literal["head", "at", "plus", "minus", "same"]


def diff_lines(diff: str) -> list[tuple[Kind, str]]:
    """Each line with its kind. A removed line that itself begins with `--` is no heading."""
    if not diff:
        return []
    lines = printable_lines(diff)
    kinds: list[tuple[Kind, str]] = []
    for index, line in enumerate(lines):
        follower = lines[index + 1] if index + 1 < len(lines) else ""
        kind: Kind = "same"
        after_head = bool(kinds) and kinds[-1][0] == "head" and kinds[-1][1].startswith("--- ")
        if (line.startswith("--- ") and follower.startswith("+++ ")) or (line.startswith("+++ ") and after_head):
            kind = "head"
        elif line.startswith("@@"):
            kind = "at"
        elif line.startswith("+"):
            kind = "plus"
        elif line.startswith("-"):
            kind = "minus"
        kinds.append((kind, line))
    return kinds
