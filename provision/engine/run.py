"""A run over many hosts. A bounded number of threads works on the hosts; a host that waits for others needs no thread.

Each host connects and is observed as soon as a thread is free, whatever play it belongs to. A run that changes nothing
needs one batch of questions for each host. After that, the plays of the host run. While they wait for plays of other
hosts, the session stays open without a thread. The host is observed again if another host changed something in those
plays.
"""

from __future__ import annotations

import heapq
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

from provision.engine.desired_state import DesiredState, HostPlay
from provision.engine.events import Bus, Listener, Message, Start, Summary
from provision.engine.host_run import HostRun
from provision.engine.play_graph import PlayEnded, PlayGraph, PlaySet
from provision.engine.recorder import Recorder
from provision.engine.waiting import Waiting
from provision.errors import UsageError
from provision.gitlab.access import KeptTokens, ready_timeout
from provision.inventory import Host
from provision.ssh.dial import Dialler
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

    def press(self) -> None:
        """Does what Ctrl-C does. May be called from any thread."""
        self._pressed.put(True)

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
    """Runs a function in a thread of its own. The future has its result, or the exception that ended or prevented it."""
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


@dataclass(eq=False)
class HostWork:
    """What is left to do on a host. At most one thread at a time works on the host.

    left   the plays of the host that have not ended, by their index
    known  the plays of other hosts whose changes its observations show
    ended  is set when the host has left the run
    """

    host: str
    run: HostRun
    left: deque[int]
    known: PlaySet = field(default_factory=PlaySet)
    has_begun: bool = False
    is_active: bool = False  # a thread works on it
    ended: Future[None] = field(default_factory=Future)


class Workers:
    """At most `limit` threads, which call `work` with one host after the other. A thread ends when no host is queued."""

    def __init__(self, limit: int, work: Callable[[HostWork], None]) -> None:
        self._limit = limit
        self._work = work
        self._lock = threading.Lock()
        self._queue: list[tuple[int, int, HostWork]] = []  # a heap
        self._number = 0
        self._threads = 0

    def add(self, one: HostWork, urgency: int) -> None:
        """Queues a host. The most urgent one is next; of equally urgent ones, the first.

        Raises RuntimeError if no thread runs and none can be started.
        """
        with self._lock:
            heapq.heappush(self._queue, (-urgency, self._number, one))
            self._number += 1
            if self._threads >= self._limit:
                return
            try:
                threading.Thread(target=self._run, name=f"worker for {one.host}").start()
            except RuntimeError:  # the system has no more threads
                if self._threads:
                    return  # another one takes it
                self._queue.clear()  # threads end when it is empty, so it has this host only
                raise
            self._threads += 1

    def _run(self) -> None:
        while (one := self._next()) is not None:
            self._work(one)

    def _next(self) -> HostWork | None:
        with self._lock:
            if self._queue:
                return heapq.heappop(self._queue)[2]
            self._threads -= 1
            return None


class Scheduler:
    """Queues the hosts whose next play can start, and runs the plays of a host in a thread of `Workers`.

    plays     those of the graph, limited to the hosts of this scheduler
    stopping  set after Ctrl-C: then every host ends after its running step
    tokens    reads the tokens for GitLab's API
    release   is called with the name of a host when no thread works on it any more
    """

    def __init__(
        self,
        graph: PlayGraph,
        plays: Sequence[HostPlay],
        forks: int,
        stopping: threading.Event,
        tokens: KeptTokens,
        release: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._graph = graph
        self._plays = plays
        self._stopping = stopping
        self._tokens = tokens
        self._release = release
        self._workers = Workers(forks, self._work)
        self._waiting: dict[int, list[HostWork]] = {}  # by the play that cannot start yet
        self._lock = threading.Lock()
        graph.listen(lambda _: self.wake())

    def queue(self, work: HostWork) -> None:
        """Queues a host: a thread works on it as soon as one is free."""
        try:
            self._workers.add(work, self._graph.urgency(work.left))
        except RuntimeError as error:
            self._release(work.host)
            self._end(work, error)

    def wake(self) -> None:
        """Queues the waiting hosts whose next play can start; after Ctrl-C, all waiting hosts."""
        with self._lock:
            ready = [play for play in self._waiting if self._may_start(play)]
            works = [work for play in ready for work in self._waiting.pop(play)]
        for work in works:
            self.queue(work)

    def _may_start(self, play: int) -> bool:
        return self._graph.is_open(play) or self._stopping.is_set()

    def _work(self, work: HostWork) -> None:
        error: BaseException | None = None
        work.is_active = True
        try:
            with self._tokens.used():
                if not self._run_plays(work):
                    return
        except BaseException as problem:  # a bug in the engine itself is also a failure of this host
            error = problem
        finally:
            self._release(work.host)
        self._end(work, error)

    def _run_plays(self, work: HostWork) -> bool:
        """Runs the plays of a host. Returns False if the host waits for others: another thread may work on it by then."""
        run, graph, host = work.run, self._graph, work.host
        if not work.has_begun:
            work.has_begun = True
            if self._stopping.is_set():
                run.give_up()
            else:
                run.open()
        while work.left:
            play = work.left[0]
            if not self._may_start(play) and self._waits(work, play):
                return False
            changed = graph.changed_before(play, host)
            if changed - work.known:
                run.changed_elsewhere()
            work.known |= changed
            one, changed_here = self._plays[play], False
            if not run.failed and (failed := graph.failed_host(one.chain)):
                run.skip(one.tasks[host], f"skipped: {failed} failed earlier")
            else:
                changed_here = run.play(one.tasks[host])
            work.left.popleft()
            graph.add(PlayEnded(host, play, changed_here, one.chain if run.failed else None, run.failed_tasks))
        return True

    def _waits(self, work: HostWork, play: int) -> bool:
        """Adds the host to those that wait for this play. Returns False if the play can start by now."""
        if awaited := self._graph.waits_for(play):
            work.run.wait(awaited)
        with self._lock:
            if self._may_start(play):
                return False
            work.is_active = False
            self._waiting.setdefault(play, []).append(work)
            return True

    def _end(self, work: HostWork, error: BaseException | None) -> None:
        """Ends the work on a host: no other host waits for it any more. `error` is what failed outside of its tasks."""
        try:
            try:
                if error is not None:
                    work.run.crashed(error)
                    for play in work.left:
                        self._graph.add(PlayEnded(work.host, play, breaks=self._plays[play].chain))
            finally:
                self._graph.add(PlayEnded(work.host, None))
                work.run.close()
        except BaseException as problem:
            work.ended.set_exception(problem)
        else:
            work.ended.set_result(None)
        finally:
            work.is_active = False


@dataclass
class Run:
    """A run, ready to be executed.

    names    what the user named on the command line: playbooks and tasks
    connect  opens a session on a host, with the host's lock unless in check mode
    login    opens a second session, without the lock; by default `connect`
    mistakes errors that were found before: they are reported together with the tasks' mistakes
    tokens   reads the tokens for GitLab's API that are kept on hosts; by default over `login`
    graph    of the plays; by default that of `plays`. If other processes run some of the hosts, the graph has all hosts,
             and `plays` has the hosts of this process
    dialler  dials the hosts before a thread works on them; by default the thread dials its host
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
    graph: PlayGraph | None = None
    dialler: Dialler | None = None
    _stopping: threading.Event = field(default_factory=threading.Event)
    _works: dict[str, HostWork] = field(default_factory=dict)
    _interrupts: Interrupts = field(default_factory=Interrupts)

    def interrupt(self) -> None:
        """Does what Ctrl-C does. May be called from any thread, also before `execute`."""
        self._interrupts.press()

    def execute(self) -> Summary:
        """Runs to the end and returns the counts. Ctrl-C stops after the running steps; a second Ctrl-C abandons them."""
        started = time.monotonic()
        desired = DesiredState(self.hosts, self.plays, self.names, self.mistakes)
        bus = Bus(self.listeners)
        graph = self.graph or PlayGraph(self.plays)
        tokens = self.tokens or KeptTokens(self._login_by_name)
        release = self.dialler.release if self.dialler is not None else lambda _: None
        scheduler = Scheduler(graph, self.plays, self.forks, self._stopping, tokens, release)
        bus.publish(Start(self.names, tuple(host.name for host in self.hosts), self.check, graph.outline()))
        for host in self.hosts:
            run = HostRun(
                host.name,
                desired[host.name],
                _bind(self.connect, host),
                _bind(self.login or self.connect, host),
                bus,
                named=self.names,
                check=self.check,
                stopping=self._stopping.is_set,
                waiting=self._waiting_of(host),
                failed_tasks=graph.failed_tasks,
                outdated=partial(tokens.forget, host.name),
            )
            self._works[host.name] = HostWork(host.name, run, deque(graph.plays_of(host.name)))
        try:
            with self._interrupts as interrupts:
                self._begin(scheduler, graph)
                for _ in interrupts.during([work.ended for work in self._works.values()]):
                    if self._stopping.is_set():
                        self._abandon()
                    else:
                        self._stop(bus)
                        if self.dialler is not None:
                            self.dialler.cancel()
                        scheduler.wake()
                for work in self._works.values():
                    work.ended.result()
        finally:
            if self.dialler is not None:
                self.dialler.close()
            summary = self._summary(time.monotonic() - started)
            bus.publish(summary)
            bus.close()
        return summary

    def _begin(self, scheduler: Scheduler, graph: PlayGraph) -> None:
        """Queues all hosts. With a dialler, each host is queued when it has been dialled."""
        works = self._works
        by_urgency = sorted(works, key=lambda name: -graph.urgency(works[name].left))
        if self.dialler is None:
            for name in by_urgency:
                scheduler.queue(works[name])
            return
        self.dialler.start(
            by_urgency, lambda name: scheduler.queue(works[name]), lambda name: works[name].run.connecting()
        )
        import provision.ssh.shell_session  # noqa: F401  imports paramiko while the first hosts are dialled

    def _waiting_of(self, host: Host) -> Callable[[Recorder], Waiting]:
        return lambda recorder: Waiting(recorder, self._stopping.wait, ready_timeout(host.settings))

    def _stop(self, bus: Bus) -> None:
        self._stopping.set()
        for name, work in self._works.items():
            if work.is_active and work.run.busy:
                recorder = work.run.recorder
                text = f"stopping after: {recorder.step} (Ctrl-C again abandons it)"
                bus.publish(Message(name, recorder.task, text, "stopping"))

    def _abandon(self) -> None:
        for work in self._works.values():
            if work.is_active and work.run.busy:
                work.run.abort()

    def _login_by_name(self, name: str) -> Session:
        (host,) = [one for one in self.hosts if one.name == name]
        return (self.login or self.connect)(host)

    def _summary(self, seconds: float) -> Summary:
        hosts = {name: work.run.summary() for name, work in self._works.items()}
        return Summary(
            check=self.check,
            changed=sum(one.changed for one in hosts.values()),
            failed=sum(1 for one in hosts.values() if one.failed),
            unreachable=sum(1 for one in hosts.values() if one.unreachable),
            seconds=round(seconds, 3),
            hosts=hosts,
            interrupted=self._stopping.is_set(),
        )


def _bind(connect: Connect, host: Host) -> Callable[[], Session]:
    return lambda: connect(host)
