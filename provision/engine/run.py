"""A run over many hosts: one thread per host, plays as barriers, at most `forks` hosts working at a time.

All hosts connect and are observed at the start, in parallel, whatever play they belong to. A run that changes nothing
needs one batch of questions for each host. A host whose play comes later waits for the plays before it, and is observed
again if anything was changed meanwhile.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

from provision.engine.desired_state import DesiredState, HostPlay
from provision.engine.events import Bus, Listener, Message, Start, Summary
from provision.engine.host_run import HostRun
from provision.engine.recorder import Recorder
from provision.engine.waiting import Waiting
from provision.errors import UsageError
from provision.gitlab.access import KeptTokens, ready_timeout
from provision.inventory import Host
from provision.ssh.session import Session

# The kernel may deliver a signal to another thread; Python handles it when the main thread runs again.
_WAKE_SECONDS: Final = 0.2


class Interrupts:
    """Turns Ctrl-C into values that the main thread reads while it waits for the hosts.

    Ctrl-C raises no exception: one that is raised in the middle of other code may be lost in a finalizer, or leave a
    lock taken.
    """

    def __init__(self) -> None:
        self._pressed: SimpleQueue[bool] = SimpleQueue()  # True: Ctrl-C; False: a job has ended
        self._previous: Any = None

    def __enter__(self) -> Interrupts:
        # A process that ignores Ctrl-C (nohup) continues to ignore it; only the main thread can handle signals.
        default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if default and threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, lambda *_: self._pressed.put(True))
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def during(self, jobs: Sequence[Future[Any]]) -> Iterator[None]:
        """Waits until every job has ended. Yields once for each Ctrl-C, also for those that came before."""
        for job in jobs:
            job.add_done_callback(lambda _: self._pressed.put(False))
        left = len(jobs)
        while left:
            try:
                pressed = self._pressed.get(timeout=_WAKE_SECONDS)
            except Empty:
                continue
            if pressed:
                yield
            else:
                left -= 1


def start_thread(name: str, function: Callable[..., T], *arguments: Any) -> Future[T]:
    """Runs a function in a thread of its own. The future has its result, or the exception that ended or prevented it.

    An executor would queue what it has no thread for: a host that waits for such a host at a barrier would wait forever.
    """
    job: Future[T] = Future()

    def work() -> None:
        try:
            job.set_result(function(*arguments))
        except BaseException as error:
            job.set_exception(error)

    try:
        threading.Thread(target=work, name=name).start()
    except RuntimeError as error:  # the system has no more threads
        job.set_exception(error)
    return job


Connect = Callable[[Host], Session]
T = TypeVar("T")


@dataclass
class Run:
    """A run, ready to be executed.

    names    what the user named on the command line: playbooks and tasks
    connect  opens a session on a host, with the host's lock unless in check mode
    login    opens a second session, without the lock; by default `connect`
    mistakes what is known to be wrong already: it is reported together with the tasks' mistakes
    tokens   reads the tokens for GitLab's API that are kept on hosts; by default over `login`
    """

    names: tuple[str, ...]
    hosts: Sequence[Host]
    plays: Sequence[HostPlay]
    connect: Connect
    listeners: Sequence[Listener]
    check: bool = False
    forks: int = 32
    login: Connect | None = None
    mistakes: Sequence[UsageError] = ()
    tokens: KeptTokens | None = None
    _stopping: threading.Event = field(default_factory=threading.Event)
    _runs: dict[str, HostRun] = field(default_factory=dict)

    def execute(self) -> Summary:
        """Runs to the end and returns the counts. Ctrl-C stops after the running steps; a second Ctrl-C abandons them."""
        started = time.monotonic()
        desired = DesiredState(self.hosts, self.plays, self.names, self.mistakes)
        bus = Bus(self.listeners)
        bus.publish(Start(self.names, tuple(host.name for host in self.hosts), self.check))
        barrier = Barrier(self.plays)
        slots = threading.Semaphore(self.forks)
        failed_tasks: set[str] = set()  # of all hosts, in check mode
        tokens = self.tokens or KeptTokens(self._login_by_name)
        for host in self.hosts:
            self._runs[host.name] = HostRun(
                host.name,
                desired[host.name],
                _bind(self.connect, host),
                _bind(self.login or self.connect, host),
                bus,
                named=self.names,
                check=self.check,
                stopping=self._stopping.is_set,
                waiting=self._waiting_of(host),
                failed_tasks=failed_tasks,
                outdated=partial(tokens.forget, host.name),
            )
        try:
            with Interrupts() as interrupts:
                jobs = [
                    start_thread(f"host {host.name}", self._work, host, barrier, slots, tokens) for host in self.hosts
                ]
                for host, job in zip(self.hosts, jobs, strict=True):
                    if job.done() and (error := job.exception()) is not None:  # no thread could be started for it
                        self._leave(host, barrier, error)
                for _ in interrupts.during(jobs):
                    if self._stopping.is_set():
                        self._abandon()
                    else:
                        self._stop(bus)
        finally:
            summary = self._summary(time.monotonic() - started)
            bus.publish(summary)
            bus.close()
        return summary

    def _waiting_of(self, host: Host) -> Callable[[Recorder], Waiting]:
        return lambda recorder: Waiting(recorder, self._stopping.wait, ready_timeout(host.settings))

    def _stop(self, bus: Bus) -> None:
        self._stopping.set()
        for name, run in self._runs.items():
            if run.busy:
                bus.publish(
                    Message(
                        name,
                        run.recorder.task,
                        f"stopping after: {run.recorder.step} (Ctrl-C again abandons it)",
                        "stopping",
                    )
                )

    def _abandon(self) -> None:
        for run in self._runs.values():
            if run.busy:
                run.abort()

    def _login_by_name(self, name: str) -> Session:
        (host,) = [one for one in self.hosts if one.name == name]
        return (self.login or self.connect)(host)

    def _work(self, host: Host, barrier: Barrier, slots: threading.Semaphore, tokens: KeptTokens) -> None:
        error: BaseException | None = None
        try:
            with tokens.used():
                self._play_all(host, barrier, slots)
        except BaseException as problem:  # a bug in the engine itself: it is this host's failure, too
            error = problem
        self._leave(host, barrier, error)

    def _play_all(self, host: Host, barrier: Barrier, slots: threading.Semaphore) -> None:
        run = self._runs[host.name]
        with slots:
            run.open()
        changes = 0
        for index, one in self._plays_of(host):
            if not barrier.is_open(index):
                run.wait()
                barrier.wait_for(index)
            if (now := barrier.changes_before(index)) != changes:
                changes = now
                run.changed_elsewhere()
            tasks = one.tasks[host.name]
            if not run.failed and (failed := barrier.broken(one.chain)):
                run.skip(tasks, f"skipped: {failed} failed earlier")
                barrier.passed(host.name, index, changed=False)
                continue
            with slots:
                changed = run.play(tasks)
            barrier.passed(host.name, index, changed=changed, breaks=one.chain if run.failed else None)

    def _plays_of(self, host: Host) -> list[tuple[int, HostPlay]]:
        return [(index, one) for index, one in enumerate(self.plays) if host.name in one.tasks]

    def _leave(self, host: Host, barrier: Barrier, error: BaseException | None) -> None:
        """The host leaves the run; `error` ended it outside of its tasks. No other host waits for it any more."""
        run = self._runs[host.name]
        try:
            if error is not None:
                run.crashed(error)
                for index, one in self._plays_of(host):
                    barrier.passed(host.name, index, changed=False, breaks=one.chain)
        finally:
            barrier.leave(host.name)
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


class Barrier:
    """Plays as barriers: play N starts when every host has finished the plays before it."""

    def __init__(self, plays: Sequence[HostPlay]) -> None:
        self._left = [set(one.tasks) for one in plays]
        self._changed = threading.Condition()
        self._changes = [0] * len(plays)  # on how many hosts each play has changed something
        self._broken: dict[object, str] = {}  # chain: the host that failed

    def changes_before(self, index: int) -> int:
        """On how many hosts earlier plays have changed something; final once the barrier is open."""
        with self._changed:
            return sum(self._changes[:index])

    def is_open(self, index: int) -> bool:
        """Whether the play may start."""
        with self._changed:
            return not any(self._left[:index])

    def wait_for(self, index: int) -> None:
        """Waits until the play may start."""
        with self._changed:
            self._changed.wait_for(lambda: not any(self._left[:index]))

    def broken(self, chain: object) -> str:
        """The host that failed in this chain, or ""."""
        with self._changed:
            return self._broken.get(chain, "")

    def passed(self, host: str, index: int, *, changed: bool, breaks: object = None) -> None:
        """The host has finished a play. `breaks`: the chain whose later steps its failure skips."""
        with self._changed:
            if breaks is not None:
                self._broken.setdefault(breaks, host)
            self._left[index].discard(host)
            self._changes[index] += changed
            self._changed.notify_all()

    def leave(self, host: str) -> None:
        """The host leaves the run: no play waits for it any more."""
        with self._changed:
            for left in self._left:
                left.discard(host)
            self._changed.notify_all()


def _bind(connect: Connect, host: Host) -> Callable[[], Session]:
    return lambda: connect(host)
