"""What happened alike on many hosts, told once.

What a run has told so far, kept for those who report at the end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from provision.engine.events import ChangeSeen, ErrorSeen, Event, HostSummary, Message, Start, Summary, TaskDone
from provision.report.text import fold

HOST = "\0"  # stands for a host's own name in a text, while texts are compared


@dataclass(frozen=True)
class ChangeGroup:
    """Changes of one task that the same hosts share, in order; `seconds` is the slowest host's, per change."""

    task: str
    hosts: tuple[str, ...]
    changes: tuple[ChangeSeen, ...]
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class ErrorGroup:
    """An error that several hosts share. `alike`: the texts differ in numbers; the first one's is shown."""

    hosts: tuple[str, ...]
    error: ErrorSeen
    alike: bool = False


@dataclass(frozen=True)
class Row:
    """Hosts whose counts are equal, with the quickest's and the slowest's seconds."""

    hosts: tuple[str, ...]
    counts: HostSummary
    quickest: float
    slowest: float


def fold_changes(ledger: Ledger, *, diffs: bool) -> list[ChangeGroup]:
    """Changes by task, then by the hosts that share them; with `diffs`, only those of equal diffs are alike."""
    shared: dict[ChangeSeen, dict[str, float]] = {}
    for change in ledger.changes:
        kind = replace(change, host="", seconds=0.0, diff=change.diff if diffs else "")
        shared.setdefault(kind, {})[change.host] = change.seconds
    groups: dict[str, dict[tuple[str, ...], list[ChangeSeen]]] = {}
    for kind, hosts in shared.items():
        groups.setdefault(kind.task, {}).setdefault(tuple(ledger.in_order(set(hosts))), []).append(kind)
    return [
        ChangeGroup(task, hosts, tuple(kinds), tuple(max(shared[kind].values()) for kind in kinds))
        for task, by_hosts in groups.items()
        for hosts, kinds in by_hosts.items()
    ]


def fold_messages(ledger: Ledger) -> list[tuple[tuple[str, ...], Message]]:
    """Each message once, with the hosts it came from."""
    shared: dict[Message, set[str]] = {}
    for message in ledger.messages:
        shared.setdefault(replace(message, host=""), set()).add(message.host)
    return [(tuple(ledger.in_order(hosts)), message) for message, hosts in shared.items()]


def fold_errors(ledger: Ledger, *, each: bool = False) -> list[ErrorGroup]:
    """Each error once, with the hosts that met it: equal but for the host's own name, or but for numbers (addresses).

    `each` keeps apart those that differ in numbers.
    """
    shared: dict[ErrorSeen, list[ErrorSeen]] = {}
    for error in ledger.errors:
        kind = _nameless(error)
        if not each:
            kind = replace(kind, text=_numberless(kind.text), hint=_numberless(kind.hint))
        shared.setdefault(kind, []).append(error)
    return [_error_group(ledger, errors) for errors in shared.values()]


def _error_group(ledger: Ledger, errors: list[ErrorSeen]) -> ErrorGroup:
    hosts = tuple(ledger.in_order({one.host for one in errors}))
    first = errors[0]
    if len(hosts) == 1:
        return ErrorGroup(hosts, first)
    kinds = {_nameless(one) for one in errors}
    if len(kinds) > 1:
        return ErrorGroup(hosts, first, alike=True)
    kind, name = kinds.pop(), fold(hosts, limit=3)
    return ErrorGroup(hosts, replace(kind, text=kind.text.replace(HOST, name), hint=kind.hint.replace(HOST, name)))


def _nameless(error: ErrorSeen) -> ErrorSeen:
    own = re.compile(rf"(?<![\w.-]){re.escape(error.host)}(?![\w-])") if error.host else re.compile(r"(?!)")
    return replace(error, host="", text=own.sub(HOST, error.text), hint=own.sub(HOST, error.hint))


def _numberless(text: str) -> str:
    return re.sub(r"[0-9]+", "#", text)


def fold_rows(ledger: Ledger, hosts: dict[str, HostSummary], *, at: int) -> list[Row]:
    """A row per host; from more than `at` hosts on, a row per equal counts."""
    rows: dict[object, list[str]] = {}
    for name in ledger.in_order(set(hosts)):
        one = hosts[name]
        counts = (one.ok, one.changed, one.failed, one.skipped, one.unreachable)
        rows.setdefault(counts if len(hosts) > at else name, []).append(name)
    return [_row(names, hosts) for names in rows.values()]


def _row(names: Sequence[str], hosts: dict[str, HostSummary]) -> Row:
    seconds = [hosts[name].seconds for name in names]
    return Row(tuple(names), hosts[names[0]], min(seconds), max(seconds))


@dataclass
class Ledger:
    """Events by kind, in order of arrival; hosts in inventory order."""

    names: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    check: bool = False
    done: dict[tuple[str, str], TaskDone] = field(default_factory=dict)
    headlines: dict[str, str] = field(default_factory=dict)
    changes: list[ChangeSeen] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    errors: list[ErrorSeen] = field(default_factory=list)
    summary: Summary | None = None

    def note(self, event: Event) -> None:
        """Takes an event in; those of the live view alone are not kept."""
        match event:
            case Start():
                self.names, self.hosts, self.check = event.names, event.hosts, event.check
            case TaskDone():
                self.done[event.host, event.task] = event
                self.headlines.setdefault(event.task, event.headline)
            case ChangeSeen():
                self.changes.append(event)
            case Message():
                self.messages.append(event)
            case ErrorSeen():
                self.errors.append(event)
            case Summary():
                self.summary = event
            case _:
                pass

    @property
    def quiet(self) -> bool:
        """Nothing happened that a reader must see: no change, message or error."""
        return not (self.changes or self.messages or self.errors)

    def in_order(self, hosts: set[str]) -> list[str]:
        """These hosts in inventory order; names that are not in the inventory last."""
        place = {name: index for index, name in enumerate(self.hosts)}
        return sorted(hosts, key=lambda name: (place.get(name, len(place)), name))
