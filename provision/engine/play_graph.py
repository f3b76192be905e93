"""Which plays of a run may start. A play waits for other plays, on every host that they run on.

A host works on its own plays in their order, and starts the next one when the plays that it waits for have ended on every
host. They are earlier in the list, so no two plays wait for each other.

The state of the graph follows from what hosts report, in any order. A run that is divided among several processes has a
graph in each of them: give every `Passed` of a process to the graphs of the others.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Final, NamedTuple

from provision.engine.desired_state import HostPlay
from provision.engine.events import StartedPlay

_FEW: Final = 2  # host names in a text; more are counted


class Passed(NamedTuple):
    """A host has ended a play; or, with `play` None, it has left the run: no play waits for it any more.

    changed  whether it changed something in this play
    breaks   the chain whose later steps are skipped, since the host failed
    failed   the names of the tasks that have failed on the host so far
    """

    host: str
    play: int | None
    changed: bool = False
    breaks: Hashable = None
    failed: frozenset[str] = frozenset()


class PlayGraph:
    """What has happened so far in the plays of a run, on all hosts. All methods can be called from any thread.

    plays         of the whole run, by their index
    failed_tasks  the names of the tasks that have failed on any host
    """

    def __init__(self, plays: Sequence[HostPlay]) -> None:
        self.plays = plays
        self.failed_tasks: set[str] = set()
        self._lock = threading.Lock()
        self._listeners: list[Callable[[Passed], None]] = []
        self._left = [set(one.tasks) for one in plays]
        self._before: list[int] = []  # by play: the plays that it waits for, directly or not. Sets of plays are bits
        self._plays_of: dict[str, list[int]] = {}
        for index, one in enumerate(plays):
            self._before.append(_all_before(index, one, self._before))
            for host in one.tasks:
                self._plays_of.setdefault(host, []).append(index)
        self._awaited_by = [sum(before >> index & 1 for before in self._before) for index in range(len(plays))]
        self._unfinished = sum(1 << index for index, left in enumerate(self._left) if left)
        self._changed = 0  # the plays in which a host changed something
        self._only_by: dict[int, str] = {}  # by play: the host, if only one has changed something there
        self._broken: dict[Hashable, str] = {}  # chain: the host that failed

    def plays_of(self, host: str) -> Sequence[int]:
        """The plays of a host, in order."""
        return self._plays_of.get(host, ())

    def urgency(self, plays: Iterable[int]) -> int:
        """How many plays wait for one of these: a host with a higher number goes first."""
        return max((self._awaited_by[one] for one in plays), default=0)

    def is_open(self, play: int) -> bool:
        """Whether the play may start: all plays that it waits for have ended."""
        return not self._unfinished & self._before[play]

    def waits_for(self, play: int) -> str:
        """What the play waits for, in words: "firewall … access on gitlab"; "" if it is open."""
        with self._lock:
            unfinished = self._unfinished & self._before[play]
            last = unfinished & ~self._before_any(unfinished)
            return ", ".join(f"{_tasks(self.plays[one])} on {_hosts(self._left[one])}" for one in _members(last))

    def changed_before(self, play: int, host: str) -> int:
        """The plays that it waits for in which a host other than `host` changed something: their bits.

        Final once the play is open.
        """
        with self._lock:
            changed = self._changed & self._before[play]
            own = [one for one, name in self._only_by.items() if name == host]
        for one in own:
            changed &= ~(1 << one)
        return changed

    def broken(self, chain: Hashable) -> str:
        """The host that failed in this chain, or ""."""
        return self._broken.get(chain, "")

    def add(self, passed: Passed) -> None:
        """Takes in what a host reports, then calls the listeners."""
        with self._lock:
            self.failed_tasks |= passed.failed
            if passed.play is not None:
                self._pass(passed, passed.play)
            else:
                for play in self.plays_of(passed.host):
                    self._end(passed.host, play)
        for one in tuple(self._listeners):
            one(passed)

    def listen(self, listener: Callable[[Passed], None]) -> None:
        """Has `listener` called after each report, from the thread that brought it."""
        self._listeners.append(listener)

    def outline(self) -> tuple[StartedPlay, ...]:
        """The plays for reports: the steps of a serial play as one, without plays that no host takes part in.

        Of what a play waits for, only that is named which nothing else on this list waits for.
        """
        groups: list[list[int]] = []
        for index, one in enumerate(self.plays):
            if one.chain is not None and groups and self.plays[groups[-1][0]].chain == one.chain:
                groups[-1].append(index)
            elif one.tasks:
                groups.append([index])
        lasts = sum(1 << group[-1] for group in groups)
        number_of = {group[-1]: number for number, group in enumerate(groups)}
        found = []
        for group in groups:
            before = self._before[group[0]] & lasts
            direct = tuple(number_of[one] for one in _members(before & ~self._before_any(before)))
            names = tuple(dict.fromkeys(name for one in group for name in _names(self.plays[one])))
            hosts = tuple(host for one in group for host in self.plays[one].tasks)
            found.append(StartedPlay(names, hosts, direct, self.plays[group[0]].chain is not None))
        return tuple(found)

    def _before_any(self, plays: int) -> int:
        found = 0
        for one in _members(plays):
            found |= self._before[one]
        return found

    def _pass(self, passed: Passed, play: int) -> None:
        if passed.breaks is not None:
            self._broken.setdefault(passed.breaks, passed.host)
        if passed.changed and not self._changed >> play & 1:
            self._changed |= 1 << play
            self._only_by[play] = passed.host
        elif passed.changed and self._only_by.get(play) != passed.host:
            self._only_by.pop(play, None)
        self._end(passed.host, play)

    def _end(self, host: str, play: int) -> None:
        self._left[play].discard(host)
        if not self._left[play]:
            self._unfinished &= ~(1 << play)


def _all_before(index: int, one: HostPlay, before: Sequence[int]) -> int:
    if one.after is None:
        return (1 << index) - 1
    found = 0
    for other in one.after:
        found |= 1 << other | before[other]
    return found


def _members(bits: int) -> list[int]:
    found = []
    while bits:
        lowest = bits & -bits
        found.append(lowest.bit_length() - 1)
        bits ^= lowest
    return found


def _names(one: HostPlay) -> list[str]:
    return [*dict.fromkeys(task.name for own in one.tasks.values() for task in own)]


def _tasks(one: HostPlay) -> str:
    names = _names(one)
    return " … ".join(names[:1] + names[1:][-1:])


def _hosts(names: set[str]) -> str:
    return ", ".join(sorted(names)) if len(names) <= _FEW else f"{len(names)} hosts"
