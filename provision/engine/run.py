"""Ctrl-C, taken where it can be answered.

A run over many hosts: one thread a host, plays as barriers, at most `forks` at work at once.

All hosts connect and look at the start, side by side, whatever play they belong to: a run that
changes nothing costs each host one look. A host whose play comes later waits for the plays before it,
and looks again if anything was changed meanwhile.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import Any

from provision.engine.events import Bus, Listener, Message, Start, Summary
from provision.engine.host_run import HostRun
from provision.resources.base import Resource
from provision.ssh.session import Session
from provision.tasks.base import Host, Task


class Interrupts:
    """While it is entered, Ctrl-C breaks nothing off: it is noted, and answered by who follows the jobs.

    No exception is raised for it. One raised in the middle of other code is lost where that code may not fail (a
    finalizer), and leaves locks taken.
    """

    def __init__(self) -> None:
        self._pressed: SimpleQueue[bool] = SimpleQueue()  # True: Ctrl-C; False: a job has ended
        self._previous: Any = None

    def __enter__(self) -> Interrupts:
        # A process that ignores Ctrl-C (nohup) goes on doing so; signals can be taken in the main thread alone.
        default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if default and threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, lambda *_: self._pressed.put(True))
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def during(self, jobs: Sequence[Future[Any]]) -> Iterator[None]:
        """Waits until every job has ended. Yields once for each Ctrl-C, those that came earlier first."""
        for job in jobs:
            job.add_done_callback(lambda _: self._pressed.put(False))
        left = len(jobs)
        while left:
            if self._pressed.get():
                yield
            else:
                left -= 1


Connect = Callable[[Host], Session]


@dataclass(frozen=True)
class HostPlay:
    """One play as it concerns the chosen hosts: its tasks, and the hosts' names.

    chain  what the steps of a serial play have in common: once a host of one fails, the later ones are left out
    """

    tasks: tuple[Task, ...]
    hosts: tuple[str, ...]
    chain: object = None


@dataclass
class Run:
    """What is to be done, and how to get there. `login` opens a second session, that leaves the host's lock alone."""

    names: tuple[str, ...]
    hosts: Sequence[Host]
    plays: Sequence[HostPlay]
    connect: Connect
    listeners: Sequence[Listener]
    check: bool = False
    forks: int = 32
    login: Connect | None = None
    _stopping: threading.Event = field(default_factory=threading.Event)
    _runs: dict[str, HostRun] = field(default_factory=dict)

    def carry_out(self) -> Summary:
        """Runs to the end and returns the counts. Ctrl-C stops after the running steps; twice abandons them."""
        started = time.monotonic()
        self._foresee()
        bus = Bus(self.listeners)
        bus.tell(Start(self.names, tuple(host.name for host in self.hosts), self.check))
        gate = _Gate(self.plays)
        seats = threading.Semaphore(self.forks)
        for host in self.hosts:
            self._runs[host.name] = HostRun(
                host.name,
                _bind(self.connect, host),
                _bind(self.login or self.connect, host),
                bus,
                check=self.check,
                stopping=self._stopping.is_set,
            )
        crashes: list[BaseException] = []
        try:
            workers = max(1, len(self.hosts))
            with Interrupts() as interrupts, ThreadPoolExecutor(workers, thread_name_prefix="host") as pool:
                jobs = [pool.submit(self._work, host, gate, seats) for host in self.hosts]
                for _ in interrupts.during(jobs):
                    if self._stopping.is_set():
                        self._abandon(bus)
                    else:
                        self._stop(bus)
                crashes = [crash for job in jobs if (crash := job.exception()) is not None]
            if crashes:
                raise crashes[0]
            summary = self._summary(time.monotonic() - started)
            bus.tell(summary)
        finally:
            bus.close()
        return summary

    def _foresee(self) -> list[Resource]:
        """Every task says what it wants of every host before any is contacted: bad input and missing secrets end here."""
        by_name = {host.name: host for host in self.hosts}
        return [
            resource
            for one in self.plays
            for name in one.hosts
            for task in one.tasks
            for resource in task.resources(by_name[name])
        ]

    def _stop(self, bus: Bus) -> None:
        self._stopping.set()
        for name, run in self._runs.items():
            if run.busy:
                bus.tell(
                    Message(
                        name,
                        run.teller.task,
                        f"stopping after: {run.teller.step} (Ctrl-C again abandons it)",
                        "stopping",
                    )
                )

    def _abandon(self, bus: Bus) -> None:
        for name, run in self._runs.items():
            if run.busy:
                bus.tell(Message(name, run.teller.task, f"abandoned during: {run.teller.step}", "abandoned"))
                run.abort()

    def _work(self, host: Host, gate: _Gate, seats: threading.Semaphore) -> None:
        run = self._runs[host.name]
        mine = [(index, one) for index, one in enumerate(self.plays) if host.name in one.hosts]
        try:
            with seats:
                run.open(host, [task for _, one in mine for task in one.tasks])
            looked_at = 0
            for index, one in mine:
                if not gate.is_open(index):
                    run.wait()
                    gate.wait_for(index)
                if (changes := gate.changes_before(index)) != looked_at:
                    looked_at = changes
                    if not self.check:
                        run.forget()
                if not run.gave_up and (failed := gate.broken(one.chain)):
                    run.leave_out(one.tasks, f"left as it is, since {failed} failed before it")
                    gate.passed(host.name, index, changed=False)
                    continue
                with seats:
                    changed = run.play(replace(host, estate_changed=looked_at > 0), one.tasks)
                gate.passed(host.name, index, changed=changed, breaks=one.chain if run.gave_up else None)
        finally:
            gate.leave(host.name)
            run.close()

    def _summary(self, seconds: float) -> Summary:
        hosts = {name: run.summary() for name, run in self._runs.items()}
        return Summary(
            check=self.check,
            changed=sum(one.changed for one in hosts.values()),
            failed=sum(1 for one in hosts.values() if one.failed),
            unreachable=sum(1 for one in hosts.values() if one.unreachable),
            seconds=round(seconds, 3),
            hosts=hosts,
            interrupted=self._stopping.is_set(),
        )


class _Gate:
    """Plays as barriers: play N starts when every host of the plays before it is through."""

    def __init__(self, plays: Sequence[HostPlay]) -> None:
        self._left = [set(one.hosts) for one in plays]
        self._changed = threading.Condition()
        self._changes = [0] * len(plays)  # on how many hosts each play has changed something
        self._broken: dict[object, str] = {}  # chain: the host that failed

    def changes_before(self, index: int) -> int:
        """On how many hosts the plays before this one have changed something; final once the gate is open."""
        with self._changed:
            return sum(self._changes[:index])

    def is_open(self, index: int) -> bool:
        with self._changed:
            return not any(self._left[:index])

    def wait_for(self, index: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not any(self._left[:index]))

    def broken(self, chain: object) -> str:
        """The host that has failed in this chain, or ""."""
        with self._changed:
            return self._broken.get(chain, "")

    def passed(self, host: str, index: int, *, changed: bool, breaks: object = None) -> None:
        """A host is through a play; `breaks` is the chain that ends with it."""
        with self._changed:
            if breaks is not None:
                self._broken.setdefault(breaks, host)
            self._left[index].discard(host)
            self._changes[index] += changed
            self._changed.notify_all()

    def leave(self, host: str) -> None:
        """A host takes no further part, whatever became of it."""
        with self._changed:
            for left in self._left:
                left.discard(host)
            self._changed.notify_all()


def _bind(connect: Connect, host: Host) -> Callable[[], Session]:
    return lambda: connect(host)
