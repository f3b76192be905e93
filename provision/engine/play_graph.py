"""Which plays of a run may start. A play waits for other plays, on every host that they run on.

A host works on its own plays in their order, and starts the next one when the plays that it waits for have ended on every
host. They are earlier in the list, so no two plays wait for each other.

Hosts report each play that they have ended (`PlayEnded`). The order in which reports arrive does not matter. A run that is
divided among several processes has a graph in each of them, and every report is added to all graphs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from provision.engine.desired_state import HostPlay
from provision.engine.events import StartedPlay

_FEW: Final = 2  # host names in a text; more are counted


class PlayEnded(NamedTuple):
    """A host has ended a play. With `play` None it has left the run: all of its plays have ended.

    changed  whether it changed something in this play
    breaks   the chain whose later steps are skipped, because the host failed
    failed   the names of the tasks that have failed on the host so far
    """

    host: str
    play: int | None
    changed: bool = False
    breaks: Hashable = None
    failed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class PlaySet:
    """A set of plays, by their index, with the operators of a frozenset.

    The set is one integer: bit N is set if play N is a member. In a serial play of 1,000 hosts, play N waits for N plays.
    As frozensets these sets need 34 MB, and 1.7 s of processor time for all calls of `isdisjoint`.
    """

    bits: int = 0

    @classmethod
    def of(cls, plays: Iterable[int]) -> PlaySet:
        """The set of these plays."""
        bits = 0
        for one in plays:
            bits |= 1 << one
        return cls(bits)

    @classmethod
    def before(cls, play: int) -> PlaySet:
        """The set of all plays with a lower index."""
        return cls((1 << play) - 1)

    def __or__(self, other: PlaySet) -> PlaySet:
        return PlaySet(self.bits | other.bits)

    def __and__(self, other: PlaySet) -> PlaySet:
        return PlaySet(self.bits & other.bits)

    def __sub__(self, other: PlaySet) -> PlaySet:
        return PlaySet(self.bits & ~other.bits)

    def __contains__(self, play: int) -> bool:
        return bool(self.bits >> play & 1)

    def __bool__(self) -> bool:
        return self.bits != 0

    def __iter__(self) -> Iterator[int]:
        """The members, from the lowest index on."""
        return (one for one in range(self.bits.bit_length()) if one in self)

    def isdisjoint(self, other: PlaySet) -> bool:
        """Whether no play is a member of both sets."""
        return not self.bits & other.bits


class PlayGraph:
    """What has happened so far in the plays of a run, on all hosts. All methods can be called from any thread.

    plays         of the whole run, by their index
    failed_tasks  the names of the tasks that have failed on any host
    """

    def __init__(self, plays: Sequence[HostPlay]) -> None:
        self.plays = plays
        self.failed_tasks: set[str] = set()
        self._lock = threading.Lock()
        self._listeners: list[Callable[[PlayEnded], None]] = []
        self._left = [set(one.tasks) for one in plays]  # by play: the hosts that have not ended it
        self._before: list[PlaySet] = []  # by play: the plays that it waits for, directly or not
        self._plays_of: dict[str, list[int]] = {}
        for index, one in enumerate(plays):
            self._before.append(_all_before(index, one, self._before))
            for host in one.tasks:
                self._plays_of.setdefault(host, []).append(index)
        self._awaited_by = [sum(index in before for before in self._before) for index in range(len(plays))]
        self._unfinished = PlaySet.of(index for index, left in enumerate(self._left) if left)
        self._changed = PlaySet()  # the plays in which a host changed something
        self._only_changed_by: dict[int, str] = {}  # by play: the host, if only one has changed something there
        self._failed_hosts: dict[Hashable, str] = {}  # by chain

    def plays_of(self, host: str) -> Sequence[int]:
        """The plays of a host, in order."""
        return self._plays_of.get(host, ())

    def urgency(self, plays: Iterable[int]) -> int:
        """How many plays wait for one of these: a host with a higher number goes first."""
        return max((self._awaited_by[one] for one in plays), default=0)

    def is_open(self, play: int) -> bool:
        """Whether the play may start: all plays that it waits for have ended."""
        return self._before[play].isdisjoint(self._unfinished)

    def waits_for(self, play: int) -> str:
        """What the play waits for, in words: "firewall … access on gitlab"; "" if it is open."""
        with self._lock:
            unfinished = self._unfinished & self._before[play]
            last = unfinished - self._before_any(unfinished)
            return ", ".join(f"{_tasks(self.plays[one])} on {_hosts(self._left[one])}" for one in last)

    def changed_before(self, play: int, host: str) -> PlaySet:
        """The plays that `play` waits for in which a host other than `host` changed something.

        Final once the play is open.
        """
        with self._lock:
            own = PlaySet.of(one for one, name in self._only_changed_by.items() if name == host)
            return (self._changed & self._before[play]) - own

    def failed_host(self, chain: Hashable) -> str:
        """The host that failed in this chain, or ""."""
        return self._failed_hosts.get(chain, "")

    def add(self, ended: PlayEnded) -> None:
        """Adds the report of a host, then calls the listeners."""
        with self._lock:
            self.failed_tasks |= ended.failed
            if ended.play is not None:
                self._add(ended, ended.play)
            else:
                for play in self.plays_of(ended.host):
                    self._end(ended.host, play)
        for one in tuple(self._listeners):
            one(ended)

    def listen(self, listener: Callable[[PlayEnded], None]) -> None:
        """Has `listener` called after each report, in the thread that added it."""
        self._listeners.append(listener)

    def outline(self) -> tuple[StartedPlay, ...]:
        """The plays for reports: the steps of a serial play are one play, and plays without hosts are left out.

        A play names only the plays that it waits for directly: those that no other play on its list waits for.
        """
        groups: list[list[int]] = []
        for index, one in enumerate(self.plays):
            if one.chain is not None and groups and self.plays[groups[-1][0]].chain == one.chain:
                groups[-1].append(index)
            elif one.tasks:
                groups.append([index])
        number_of = {group[-1]: number for number, group in enumerate(groups)}
        last_steps = PlaySet.of(number_of)
        found = []
        for group in groups:
            before = self._before[group[0]] & last_steps
            direct = tuple(number_of[one] for one in before - self._before_any(before))
            names = tuple(dict.fromkeys(name for one in group for name in _names(self.plays[one])))
            hosts = tuple(host for one in group for host in self.plays[one].tasks)
            found.append(StartedPlay(names, hosts, direct, self.plays[group[0]].chain is not None))
        return tuple(found)

    def _before_any(self, plays: PlaySet) -> PlaySet:
        found = PlaySet()
        for one in plays:
            found |= self._before[one]
        return found

    def _add(self, ended: PlayEnded, play: int) -> None:
        if ended.breaks is not None:
            self._failed_hosts.setdefault(ended.breaks, ended.host)
        if ended.changed and play not in self._changed:
            self._changed |= PlaySet.of([play])
            self._only_changed_by[play] = ended.host
        elif ended.changed and self._only_changed_by.get(play) != ended.host:
            self._only_changed_by.pop(play, None)
        self._end(ended.host, play)

    def _end(self, host: str, play: int) -> None:
        self._left[play].discard(host)
        if not self._left[play]:
            self._unfinished -= PlaySet.of([play])


def _all_before(index: int, one: HostPlay, before: Sequence[PlaySet]) -> PlaySet:
    """The plays that this play waits for, directly or not. `before` has those of the earlier plays."""
    if one.after is None:
        return PlaySet.before(index)
    found = PlaySet.of(one.after)
    for other in one.after:
        found |= before[other]
    return found


def _names(one: HostPlay) -> list[str]:
    return [*dict.fromkeys(task.name for own in one.tasks.values() for task in own)]


def _tasks(one: HostPlay) -> str:
    names = _names(one)
    return " … ".join(names[:1] + names[1:][-1:])


def _hosts(names: set[str]) -> str:
    return ", ".join(sorted(names)) if len(names) <= _FEW else f"{len(names)} hosts"
