"""Joining equal results of many hosts: names are folded to `runner-[01:20]`; equal changes and errors are shown once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from provision.engine.events import ChangeEvent, ErrorEvent, Event, HostSummary, Message, Start, Summary, TaskDone

_NUMBER = re.compile(r"[0-9]+")
_Affixes = tuple[str, ...]  # the text before and after a number; for a name without a number, only the name


def fold_names(names: Iterable[str], *, limit: int = 0) -> str:
    """Names with consecutive numbers folded to the inventory's ranges, in order of first appearance.

    With `limit` > 0, at most that many folded parts are shown and the other names are counted: `a, b and 7 more`.
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
    parts = [(_folded(affixes, members), len(members)) for affixes, members in groups.items()]
    if limit and len(parts) > limit:
        rest = sum(count for _, count in parts[limit:])
        return ", ".join(text for text, _ in parts[:limit]) + f" and {rest} more"
    return ", ".join(text for text, _ in parts)


def _readings(name: str) -> Iterator[tuple[_Affixes, str]]:
    """Yields each number in a name with the text around it, the last number first."""
    for match in reversed(list(_NUMBER.finditer(name))):
        yield (name[: match.start()], name[match.end() :]), match.group()


def _folded(affixes: _Affixes, members: dict[str, str]) -> str:
    if len(members) == 1:
        return next(iter(members))
    before, after = affixes
    return f"{before}[{','.join(_ranges(list(members.values())))}]{after}"


def _ranges(numbers: list[str]) -> Iterator[str]:
    """`01`, `02`, `03`, `07` as `01:03`, `07`. Numbers of different width share a range only if none is padded."""
    widths = {len(one) for one in numbers if one.startswith("0") and len(one) > 1}
    padded = sorted(one for one in numbers if len(one) in widths)
    unpadded = sorted((one for one in numbers if len(one) not in widths), key=int)
    for batch in (padded, unpadded):
        start = 0
        for index, one in enumerate(batch):
            follower = batch[index + 1] if index + 1 < len(batch) else ""
            if not follower or int(follower) != int(one) + 1 or (batch is padded and len(follower) != len(one)):
                yield one if index == start else f"{batch[start]}:{one}"
                start = index + 1


class ReportOptions(NamedTuple):
    """The user's options: `--diff`, the number of `-v`, `--stats`; and the command line without --limit."""

    diff: bool = False
    verbose: int = 0
    stats: bool = False
    command: str = ""


@dataclass
class RunLog:
    """The events of a run so far, by type, in order of arrival; `hosts` are in inventory order."""

    names: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    check: bool = False
    tasks: dict[tuple[str, str], TaskDone] = field(default_factory=dict)
    headlines: dict[str, str] = field(default_factory=dict)
    changes: list[ChangeEvent] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    errors: list[ErrorEvent] = field(default_factory=list)
    summary: Summary | None = None

    def add(self, event: Event) -> None:
        """Adds an event. Events that matter only during the run are dropped."""
        match event:
            case Start():
                self.names, self.hosts, self.check = event.names, event.hosts, event.check
            case TaskDone():
                self.tasks[event.host, event.task] = event
                self.headlines.setdefault(event.task, event.headline)
            case ChangeEvent():
                self.changes.append(event)
            case Message() if event.kind not in ("stopping", "waiting"):  # outdated when the run has ended
                self.messages.append(event)
            case ErrorEvent():
                self.errors.append(event)
            case Summary():
                self.summary = event
            case _:
                pass

    @property
    def is_empty(self) -> bool:
        """Whether the run had no change, no message and no error."""
        return not (self.changes or self.messages or self.errors)

    @property
    def hosts_to_rerun(self) -> list[str]:
        """The hosts with errors, for a rerun after the fix. Empty if all hosts have errors."""
        hosts = self.in_order({one.host for one in self.errors if one.host})
        return hosts if len(hosts) < len(self.hosts) else []

    def in_order(self, hosts: set[str]) -> list[str]:
        """Sorts hosts in inventory order; names that are not in the inventory come last."""
        position = {name: index for index, name in enumerate(self.hosts)}
        return sorted(hosts, key=lambda name: (position.get(name, len(position)), name))


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


def fold_changes(log: RunLog, *, diffs: bool) -> list[ChangeGroup]:
    """Changes by task, then by the hosts that share them. With `diffs`, only changes with equal diffs are equal."""
    shared: dict[ChangeEvent, dict[str, float]] = {}
    for change in log.changes:
        # Changes are equal if they read the same; their ids may differ where scripts contain a name of the host.
        common = change._replace(host="", seconds=0.0, id="", diff=change.diff if diffs else "")
        shared.setdefault(common, {})[change.host] = change.seconds
    groups: dict[str, dict[tuple[str, ...], list[ChangeEvent]]] = {}
    for common, hosts in shared.items():
        groups.setdefault(common.task, {}).setdefault(tuple(log.in_order(set(hosts))), []).append(common)
    return [
        ChangeGroup(task, hosts, tuple(changes), tuple(max(shared[one].values()) for one in changes))
        for task, by_hosts in groups.items()
        for hosts, changes in by_hosts.items()
    ]


def fold_messages(log: RunLog) -> list[tuple[tuple[str, ...], Message]]:
    """Each message once, with the hosts that share it."""
    shared: dict[Message, set[str]] = {}
    for message in log.messages:
        shared.setdefault(message._replace(host=""), set()).add(message.host)
    return [(tuple(log.in_order(hosts)), message) for message, hosts in shared.items()]


def fold_errors(log: RunLog, *, each: bool = False) -> list[ErrorGroup]:
    """Each error once, with the hosts that share it. Errors are equal if they differ only in the host's own name.

    Errors that differ only in numbers (addresses, ports) are joined as well, unless `each` is set.
    """
    shared: dict[ErrorEvent, list[ErrorEvent]] = {}
    for error in log.errors:
        common = _without_host(error)
        if not each:
            common = common._replace(text=_without_numbers(common.text), hint=_without_numbers(common.hint))
        shared.setdefault(common, []).append(error)
    return [_error_group(log, errors) for errors in shared.values()]


_HOST: Final = "\0"  # replaces a host's own name in a text while texts are compared


def _error_group(log: RunLog, errors: list[ErrorEvent]) -> ErrorGroup:
    hosts = tuple(log.in_order({one.host for one in errors}))
    first = errors[0]
    if len(hosts) == 1:
        return ErrorGroup(hosts, first)
    variants = {_without_host(one) for one in errors}
    if len(variants) > 1:
        return ErrorGroup(hosts, first, similar=True)
    common, name = variants.pop(), fold_names(hosts, limit=3)
    text, hint = (one.replace(_HOST, name) for one in (common.text, common.hint))
    return ErrorGroup(hosts, common._replace(text=text, hint=hint))


def _without_host(error: ErrorEvent) -> ErrorEvent:
    own = re.compile(rf"(?<![\w.-]){re.escape(error.host)}(?![\w-])") if error.host else re.compile(r"(?!)")
    return error._replace(host="", text=own.sub(_HOST, error.text), hint=own.sub(_HOST, error.hint))


def _without_numbers(text: str) -> str:
    return re.sub(r"[0-9]+", "#", text)


def fold_counts(log: RunLog, hosts: dict[str, HostSummary], *, above: int) -> list[CountsGroup]:
    """A group for each host; with more than `above` hosts, a group for all hosts with equal counts."""
    groups: dict[object, list[str]] = {}
    for name in log.in_order(set(hosts)):
        one = hosts[name]
        counts = (one.ok, one.changed, one.failed, one.skipped, one.unreachable)
        groups.setdefault(counts if len(hosts) > above else name, []).append(name)
    return [_counts_group(names, hosts) for names in groups.values()]


def _counts_group(names: Sequence[str], hosts: dict[str, HostSummary]) -> CountsGroup:
    seconds = [hosts[name].seconds for name in names]
    return CountsGroup(tuple(names), hosts[names[0]], min(seconds), max(seconds))
