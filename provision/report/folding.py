"""Joining equal results of many hosts: names are folded to `runner-[01:20]`; equal changes and errors are shown once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from provision.engine.events import (
    ChangeEvent,
    ErrorEvent,
    Event,
    HostSummary,
    Message,
    Start,
    StartedPlay,
    Summary,
    TaskDone,
)
from provision.masking import mask

_NUMBER = re.compile(r"[0-9]+")
_Affixes = tuple[str, ...]  # the text before and after a number; for a name without a number, only the name


def fold_names(names: Iterable[str], *, limit: int = 0) -> str:
    """Names with consecutive numbers folded to the inventory's ranges, in order of first appearance.

    With `limit` > 0, at most that many names and ranges are named, and the other names are counted: `a, b and 7 more`.
    """
    names = list(dict.fromkeys(names))
    groups: dict[_Affixes, dict[str, str]] = {}
    shared = Counter(affixes for name in names for affixes, _ in _readings(name))
    for name in names:
        readings = list(_readings(name))
        if not readings:
            groups[name,] = {name: ""}
            continue
        # A name with several numbers joins the largest group: web1.eu2 is folded with web2.eu2, not with web1.eu3.
        affixes, number = max(readings, key=lambda one: shared[one[0]])
        groups.setdefault(affixes, {})[name] = number
    ranges = [(affixes, *one) for affixes, members in groups.items() for one in _ranges(affixes, members)]
    shown = ranges[:limit] if limit else ranges
    parts: dict[_Affixes, list[str]] = {}
    for affixes, text, _ in shown:
        parts.setdefault(affixes, []).append(text)
    rest = sum(count for _, _, count in ranges[len(shown) :])
    return ", ".join(_folded(*one) for one in parts.items()) + (f" and {rest} more" if rest else "")


def _readings(name: str) -> Iterator[tuple[_Affixes, str]]:
    """Yields each number in a name with the text around it, the last number first."""
    for match in reversed(list(_NUMBER.finditer(name))):
        yield (name[: match.start()], name[match.end() :]), match.group()


def _folded(affixes: _Affixes, ranges: list[str]) -> str:
    if len(affixes) == 1:
        return affixes[0]
    before, after = affixes
    numbers = ",".join(ranges)
    return f"{before}[{numbers}]{after}" if len(ranges) > 1 or ":" in numbers else f"{before}{numbers}{after}"


def _ranges(affixes: _Affixes, members: dict[str, str]) -> Iterator[tuple[str, int]]:
    """`01`, `02`, `03`, `07` as `01:03`, `07`, each with the number of its members; "" for a name without a number.

    Numbers of different width share a range only if none is padded.
    """
    if len(affixes) == 1:
        yield "", 1
        return
    numbers = list(members.values())
    widths = {len(one) for one in numbers if one.startswith("0") and len(one) > 1}
    padded = sorted(one for one in numbers if len(one) in widths)
    unpadded = sorted((one for one in numbers if len(one) not in widths), key=int)
    for batch in (padded, unpadded):
        start = 0
        for index, one in enumerate(batch):
            follower = batch[index + 1] if index + 1 < len(batch) else ""
            if not follower or int(follower) != int(one) + 1 or (batch is padded and len(follower) != len(one)):
                yield (one if index == start else f"{batch[start]}:{one}"), index + 1 - start
                start = index + 1


class ReportOptions(NamedTuple):
    """The user's options: `--diff`, the number of `-v`, `--stats`; and the command line without --limit."""

    diff: bool = False
    verbose: int = 0
    stats: bool = False
    command: str = ""


@dataclass
class Sharing:
    """The hosts that have an equal event, in order of arrival, and the most seconds that one of them took."""

    hosts: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, host: str, seconds: float = 0.0) -> None:
        """Adds a host."""
        self.hosts.append(host)
        self.seconds = max(self.seconds, seconds)


@dataclass
class RunLog:
    """What has happened in a run so far. An event that many hosts have is kept once, with the names of the hosts.

    hosts       in inventory order
    headlines   by task
    changes     in order of arrival; the events have no host, seconds and id
    messages    in order of arrival; the events have no host
    errors      in order of arrival; the events have no host, and a placeholder stands for its name in their texts
    predicted   the number of predicted changes
    keep_diffs  whether diffs are kept; then changes with different diffs are different changes
    """

    names: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    check: bool = False
    plays: tuple[StartedPlay, ...] = ()
    headlines: dict[str, str] = field(default_factory=dict)
    changes: dict[ChangeEvent, Sharing] = field(default_factory=dict)
    messages: dict[Message, Sharing] = field(default_factory=dict)
    errors: dict[ErrorEvent, Sharing] = field(default_factory=dict)
    predicted: int = 0
    summary: Summary | None = None
    keep_diffs: bool = True
    _position: dict[str, int] = field(default_factory=dict)

    def add(self, event: Event) -> None:
        """Adds an event. Events that matter only during the run are dropped."""
        match event:
            case Start():
                self.names, self.hosts, self.check = event.names, event.hosts, event.check
                self._position = {name: index for index, name in enumerate(event.hosts)}
                self.plays = event.plays
            case TaskDone():
                if event.task not in self.headlines:
                    self.headlines[event.task] = mask(event.headline)
            case ChangeEvent():
                self.predicted += event.predicted
                self.changes.setdefault(_common(event, diffs=self.keep_diffs), Sharing()).add(event.host, event.seconds)
            case Message() if event.kind not in ("stopping", "waiting"):  # outdated when the run has ended
                self.messages.setdefault(event._replace(host=""), Sharing()).add(event.host)
            case ErrorEvent():
                self.errors.setdefault(_without_host(event), Sharing()).add(event.host)
            case Summary():
                self.summary = event
            case _:
                pass

    @property
    def is_empty(self) -> bool:
        """Whether the run had no change, no message and no error."""
        return not (self.changes or self.messages or self.errors)

    @property
    def errors_count(self) -> int:
        """The number of errors of all hosts."""
        return sum(len(one.hosts) for one in self.errors.values())

    @property
    def hosts_to_rerun(self) -> list[str]:
        """The hosts with errors, for a rerun after the fix. Empty if all hosts have errors."""
        hosts = self.in_order({host for one in self.errors.values() for host in one.hosts if host})
        return hosts if len(hosts) < len(self.hosts) else []

    def in_order(self, hosts: Iterable[str]) -> list[str]:
        """Each of these hosts once, in inventory order. Names that are not in the inventory come last."""
        last = len(self._position)
        return sorted(set(hosts), key=lambda name: (self._position.get(name, last), name))


def describe_plays(log: RunLog, *, limit: int = 0) -> list[str]:
    """A line for each play: its number, its hosts and tasks, and the plays that it waits for. No lines for one play."""
    if len(log.plays) < 2:
        return []
    lines, width = [], len(str(len(log.plays)))
    for number, one in enumerate(log.plays, 1):
        how = ["one host after the other"] if one.serial else []
        how += [f"after {' and '.join(str(other + 1) for other in one.after)}"] if one.after else []
        text = f"{number:>{width}}  {fold_names(one.hosts, limit=limit)}: {', '.join(one.tasks)}"
        lines.append(f"{text} ({', '.join(how)})" if how else text)
    return lines


class ChangeGroup(NamedTuple):
    """Changes of one task that are equal on several hosts. `seconds`: for each change, those of the slowest host."""

    task: str
    hosts: tuple[str, ...]
    changes: tuple[ChangeEvent, ...]
    seconds: tuple[float, ...]


class ErrorGroup(NamedTuple):
    """An error of several hosts. `similar`: their texts differ in numbers; `error` is that of the first host."""

    hosts: tuple[str, ...]
    error: ErrorEvent
    similar: bool = False


class CountsGroup(NamedTuple):
    """Hosts with equal counts, and the seconds of the fastest and the slowest of them."""

    hosts: tuple[str, ...]
    counts: HostSummary
    fastest: float
    slowest: float


def _common(change: ChangeEvent, *, diffs: bool) -> ChangeEvent:
    """The change without what may differ between hosts. Ids differ if scripts contain the name of the host."""
    return change._replace(host="", seconds=0.0, id="", diff=change.diff if diffs else "")


def fold_changes(log: RunLog, *, diffs: bool) -> list[ChangeGroup]:
    """Changes by task, then by the hosts that share them. With `diffs`, only changes with equal diffs are equal."""
    shared: dict[ChangeEvent, Sharing] = {}
    for change, one in log.changes.items():
        joined = shared.setdefault(_common(change, diffs=diffs), Sharing())
        joined.hosts += one.hosts
        joined.seconds = max(joined.seconds, one.seconds)
    groups: dict[str, dict[tuple[str, ...], list[ChangeEvent]]] = {}
    for common, one in shared.items():
        groups.setdefault(common.task, {}).setdefault(tuple(log.in_order(one.hosts)), []).append(common)
    return [
        ChangeGroup(task, hosts, tuple(changes), tuple(shared[one].seconds for one in changes))
        for task, by_hosts in groups.items()
        for hosts, changes in by_hosts.items()
    ]


def fold_messages(log: RunLog) -> list[tuple[tuple[str, ...], Message]]:
    """Each message once, with the hosts that share it."""
    return [(tuple(log.in_order(one.hosts)), message) for message, one in log.messages.items()]


def fold_errors(log: RunLog, *, each: bool = False) -> list[ErrorGroup]:
    """Each error once, with the hosts that share it. Errors are equal if they differ only in the host's own name.

    Errors that differ only in numbers (addresses, ports) are joined as well, unless `each` is set.
    """
    groups: dict[ErrorEvent, list[ErrorEvent]] = {}
    for error in log.errors:
        numberless = error._replace(text=_without_numbers(error.text), hint=_without_numbers(error.hint))
        groups.setdefault(error if each else numberless, []).append(error)
    return [_error_group(log, errors) for errors in groups.values()]


_HOST: Final = "\0"  # replaces a host's own name in a text while texts are compared


def _error_group(log: RunLog, errors: list[ErrorEvent]) -> ErrorGroup:
    hosts = tuple(log.in_order(host for one in errors for host in log.errors[one].hosts))
    first, host = errors[0], log.errors[errors[0]].hosts[0]
    if len(hosts) == 1 or len(errors) > 1:
        return ErrorGroup(hosts, _with_name(first, host)._replace(host=host), similar=len(hosts) > 1)
    return ErrorGroup(hosts, _with_name(first, fold_names(hosts, limit=3)))


def _without_host(error: ErrorEvent) -> ErrorEvent:
    if not error.host or not (error.host in error.text or error.host in error.hint):
        return error._replace(host="")
    own = re.compile(rf"(?<![\w.-]){re.escape(error.host)}(?![\w-])")
    return error._replace(host="", text=own.sub(_HOST, error.text), hint=own.sub(_HOST, error.hint))


def _with_name(error: ErrorEvent, name: str) -> ErrorEvent:
    return error._replace(text=error.text.replace(_HOST, name), hint=error.hint.replace(_HOST, name))


def _without_numbers(text: str) -> str:
    return re.sub(r"[0-9]+", "#", text)


def fold_counts(log: RunLog, hosts: dict[str, HostSummary], *, above: int) -> list[CountsGroup]:
    """A group for each host; with more than `above` hosts, a group for all hosts with equal counts."""
    groups: dict[object, list[str]] = {}
    for name in log.in_order(hosts):
        one = hosts[name]
        counts = (one.ok, one.changed, one.failed, one.skipped, one.unreachable)
        groups.setdefault(counts if len(hosts) > above else name, []).append(name)
    return [_counts_group(names, hosts) for names in groups.values()]


def _counts_group(names: Sequence[str], hosts: dict[str, HostSummary]) -> CountsGroup:
    seconds = [hosts[name].seconds for name in names]
    return CountsGroup(tuple(names), hosts[names[0]], min(seconds), max(seconds))
