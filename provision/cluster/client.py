"""The client of a run on a Dask cluster. Its events, summary and exit codes are those of a local run."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from provision.cluster import worker
from provision.cluster.scheduler import POLL_SECONDS, WORKERS_SECONDS, Scheduler, in_words
from provision.cluster.shipment import Sealed, fingerprint, pack
from provision.cluster.worker import Parcel, TaskEnded
from provision.engine.assemble import Options
from provision.engine.desired_state import DesiredState
from provision.engine.events import (
    Bus,
    ChangeEvent,
    ErrorEvent,
    Event,
    HostSummary,
    Listener,
    Message,
    Start,
    Summary,
    TaskDone,
)
from provision.engine.play_graph import PlayEnded, PlayGraph
from provision.engine.run import Run
from provision.errors import UsageError, WorkerLost
from provision.report.jsonlines import JsonLines

ATTEMPTS: Final = 3  # workers that may be lost with the same host: then the host may be the cause
_LOST_SECONDS: Final = 20.0  # without an answer of the scheduler, after which it is lost
_PREPARE_SECONDS: Final = 60.0  # for a new worker to unpack the estate; the others wait meanwhile
_SEND_SECONDS: Final = 0.05  # between two requests to a worker; one request has all reports of this time
_ABANDON_SECONDS: Final = 15.0  # for the workers to end after the second Ctrl-C


def split(hosts: Sequence[str], parts: int) -> list[list[str]]:
    """The hosts in at most `parts` lists of about equal length, each with hosts from the whole inventory."""
    return [part for number in range(parts) if (part := list(hosts[number::parts]))]


@dataclass
class _Task:
    """A Dask task: hosts that one worker runs.

    left      those that have not ended
    received  how many of its messages have arrived
    """

    number: int
    worker: str
    left: dict[str, None]
    received: int = 0
    has_ended: bool = False
    future: Any = None


@dataclass
class _Host:
    """What is known about a host.

    attempts  how many workers were given the host
    changed   the changes of the current attempt
    earlier   the changes of earlier attempts, whose workers were lost
    runs      how often each task has ended in the current attempt
    done      the events of ended tasks, by task and by how often the task had ended before in its attempt
    """

    attempts: int = 0
    changed: int = 0
    earlier: int = 0
    done: dict[tuple[str, int], TaskDone] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)
    summary: HostSummary | None = None
    task: str = ""


@dataclass
class _Worker:
    """A worker process.

    sent        how many entries of the client's log it has received
    interrupts  how many presses of Ctrl-C it has received
    jobs        what the client does for this worker
    """

    address: str
    sent: int = 0
    interrupts: int = 0
    is_lost: bool = False
    jobs: list[asyncio.Task[None]] = field(default_factory=list)


class ClusterRun:
    """A run on the workers of a Dask cluster.

    run      the whole run, as a local run would have it
    address  of the scheduler: tcp://… or tls://…
    report   prints a line about the cluster, before the run begins
    """

    def __init__(self, run: Run, options: Options, address: str, report: Callable[[str], None]) -> None:
        self.listeners: Sequence[Listener] = run.listeners
        self._run = run
        self._options = options
        self._scheduler = Scheduler(address, report)
        self._sealed = Sealed(b"")
        self._graph = PlayGraph(run.plays)
        self._log: list[tuple[_Worker | None, PlayEnded]] = []  # all reports of hosts, each with its worker
        self._hosts = {one.name: _Host() for one in run.hosts}
        self._workers: dict[str, _Worker] = {}
        self._tasks: dict[int, _Task] = {}
        self._jobs: list[asyncio.Task[None]] = []
        self._prepared: set[str] = set()  # addresses of workers that have the estate
        self._refused: set[str] = set()  # addresses of new workers that cannot run the hosts
        self._interrupts = 0  # presses of Ctrl-C
        self._begun = False
        self._changed = asyncio.Event()
        self._failure: BaseException | None = None

    def execute(self) -> Summary:
        """Runs to the end and returns the counts. Raises UsageError before any host is contacted."""
        run = self._run
        if run.dialler is not None:
            run.dialler.close()
        DesiredState(run.hosts, run.plays, run.names, run.mistakes)
        details = not all(isinstance(one, JsonLines) for one in self.listeners)
        shipment = pack(run, self._options, encrypted=self._scheduler.is_encrypted, details=details)
        self._sealed = shipment.sealed()
        return asyncio.run(self._connect_and_execute())

    async def _connect_and_execute(self) -> Summary:
        with self._counting_interrupts():
            await self._scheduler.connect()
            try:
                addresses = await self._scheduler.first_workers()
                await self._scheduler.prepare(addresses, self._sealed, fingerprint(self._run))
                self._prepared |= set(addresses)
                return await self._execute()
            finally:
                await self._scheduler.close([one.address for one in self._workers.values() if not one.is_lost])

    @contextmanager
    def _counting_interrupts(self) -> Iterator[None]:
        """Counts presses of Ctrl-C. Before the first host is contacted, the first one ends the run."""
        default = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
        if not default or threading.current_thread() is not threading.main_thread():
            yield
            return
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def press() -> None:
            self._interrupts += 1
            self._changed.set()
            if not self._begun and task is not None:
                task.cancel()

        loop.add_signal_handler(signal.SIGINT, press)
        try:
            yield
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    # -- the run ---------------------------------------------------------------------------------

    async def _execute(self) -> Summary:
        started = time.monotonic()
        self._begun = True
        self._bus = Bus(self.listeners)
        self._bus.publish(Start(self._run.names, tuple(self._hosts), self._run.check, self._graph.outline()))
        watch = asyncio.create_task(self._guarded(self._watch()))
        try:
            await self._divide(list(self._hosts), again=False)
            await self._until_ended()
        finally:
            for job in [watch, *self._jobs, *(job for one in self._workers.values() for job in one.jobs)]:
                job.cancel()
            summary = self._summary(time.monotonic() - started)
            self._bus.publish(summary)
            self._bus.close()
        if self._failure is not None:
            raise self._failure
        return summary

    async def _until_ended(self) -> None:
        abandoned: float | None = None
        while any(one.summary is None for one in self._hosts.values()) and self._failure is None:
            self._changed.clear()
            if self._interrupts > 1 and abandoned is None:
                abandoned = time.monotonic() + _ABANDON_SECONDS
            if abandoned is not None and time.monotonic() > abandoned:
                self._give_up([name for name, one in self._hosts.items() if one.summary is None], "it was abandoned")
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), 1)

    async def _guarded(self, work: Awaitable[None]) -> None:
        """Awaits `work`. If it raises an exception, the run ends, and raises it."""
        try:
            await work
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._failure = error
            self._changed.set()

    async def _divide(self, hosts: list[str], *, again: bool) -> None:
        """Divides hosts among the workers. If there are none, waits for some. `again`: a lost worker had the hosts before."""
        until = time.monotonic() + WORKERS_SECONDS
        while not (ready := await self._ready_workers()):
            if time.monotonic() > until or self._interrupts:
                self._give_up(hosts, "no other worker is left")
                return
            await asyncio.sleep(POLL_SECONDS)
        hosts = [name for name in hosts if self._hosts[name].summary is None]
        for one, part in zip(ready, split(hosts, len(ready)), strict=False):
            number = len(self._tasks)
            task = self._tasks[number] = _Task(number, one.address, dict.fromkeys(part))
            task.future = self._scheduler.submit(number, one.address, part, again=again)
            for host in part:
                self._hosts[host].attempts += 1
            one.jobs.append(asyncio.create_task(self._guarded(self._follow(one, task))))

    async def _ready_workers(self) -> list[_Worker]:
        """The workers that can run hosts. New workers are sent the estate first."""
        try:
            addresses = await self._scheduler.addresses()
        except Exception:  # `_watch` decides whether the scheduler is lost
            return []
        for address in addresses:
            if address not in self._refused and (address not in self._workers or self._workers[address].is_lost):
                again = address not in self._prepared or address in self._workers
                if again and (reason := await self._prepare(address)):
                    self._refused.add(address)
                    self._scheduler.report(f"warning: not used: {reason}")
                    continue
                one = self._workers[address] = _Worker(address)
                one.jobs.append(asyncio.create_task(self._guarded(self._fetch(one))))
                one.jobs.append(asyncio.create_task(self._guarded(self._send(one))))
        return [one for address, one in self._workers.items() if not one.is_lost and address in addresses]

    async def _prepare(self, address: str) -> str:
        """Sends the estate to a new worker. Returns why the worker cannot be used, or "". Ctrl-C ends the wait for it."""
        job = asyncio.ensure_future(self._scheduler.prepare([address], self._sealed, fingerprint(self._run)))
        until = time.monotonic() + _PREPARE_SECONDS
        while not job.done() and time.monotonic() < until and not self._interrupts:
            await asyncio.wait([job], timeout=POLL_SECONDS)
        if not job.done():
            job.cancel()
            return f"the worker {address} does not answer"
        try:
            await job
        except UsageError as error:
            return error.text
        return ""

    async def _fetch(self, one: _Worker) -> None:
        """Receives the messages of a worker until it is lost."""
        while not one.is_lost:
            received = {task.number: task.received for task in self._tasks.values() if task.worker == one.address}
            answer = (await self._ask(one, worker.fetch, received)) if not one.is_lost else None
            if isinstance(answer, list):
                for parcel in answer:
                    self._receive(one, parcel)
            elif answer is None and not one.is_lost:
                await self._lose(one, "it has restarted")

    async def _send(self, one: _Worker) -> None:
        """Sends a worker the reports of hosts of other workers, and Ctrl-C, until it is lost."""
        while not one.is_lost:
            if one.sent == len(self._log) and one.interrupts == self._interrupts:
                await asyncio.sleep(_SEND_SECONDS)
                continue
            until, interrupts = len(self._log), self._interrupts
            reports = [ended for source, ended in self._log[one.sent : until] if source is not one]
            if reports or interrupts != one.interrupts:
                await self._ask(one, worker.update, reports, interrupts)
            one.sent, one.interrupts = until, interrupts

    async def _ask(self, one: _Worker, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls a function on a worker, again after each error. Returns None when the worker is lost."""
        while not one.is_lost:
            try:
                (answer,) = (
                    await self._scheduler.call(function, [one.address], self._scheduler.run_id, *arguments)
                ).values()
            except Exception as error:
                answer = error
            if not isinstance(answer, Exception):
                return answer
            await asyncio.sleep(POLL_SECONDS)
        return None

    async def _follow(self, one: _Worker, task: _Task) -> None:
        """Waits for the end of a Dask task, and finds out whether its worker is lost. `_fetch` receives its messages."""
        try:
            reason = await task.future
        except asyncio.CancelledError:
            raise
        except Exception as error:
            reason = in_words(error)
        if reason and not task.has_ended and not one.is_lost:
            await self._lose(one, reason)

    async def _watch(self) -> None:
        """Finds workers that have left the cluster, and a scheduler that does not answer any more."""
        answered = time.monotonic()
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                addresses = set(await asyncio.wait_for(self._scheduler.addresses(), _LOST_SECONDS))
                answered = time.monotonic()
            except Exception:
                if time.monotonic() - answered > _LOST_SECONDS or self._scheduler.is_closed:
                    for one in self._workers.values():
                        one.is_lost = True
                    left = [name for name, host in self._hosts.items() if host.summary is None]
                    self._give_up(left, f"the Dask scheduler at {self._scheduler.address} was lost")
                    return
                continue
            for one in list(self._workers.values()):
                if not one.is_lost and one.address not in addresses:
                    await self._lose(one, "it has left the cluster")

    async def _lose(self, one: _Worker, reason: str) -> None:
        """Gives the unfinished hosts of a lost worker to other workers, or reports them as failed."""
        one.is_lost = True
        hosts = []
        for task in self._tasks.values():
            if task.worker == one.address and not task.has_ended:
                task.has_ended = True
                hosts += list(task.left)
                task.left.clear()
                with suppress(Exception):
                    await task.future.cancel()
        what = f"the Dask worker {one.address} was lost ({reason})"
        often = [name for name in hosts if self._hosts[name].attempts >= ATTEMPTS]
        self._give_up(often, f"{what}, and {ATTEMPTS - 1} workers before it")
        hosts = [name for name in hosts if name not in often]
        if self._interrupts:
            self._give_up(hosts, what)
            return
        for name in hosts:
            host = self._hosts[name]
            host.earlier, host.changed, host.runs = host.earlier + host.changed, 0, {}
            self._bus.publish(Message(name, host.task, f"{what}: another worker runs the host again"))
        if hosts:
            self._jobs.append(asyncio.create_task(self._guarded(self._divide(hosts, again=True))))

    def _give_up(self, hosts: list[str], reason: str) -> None:
        """Reports as failed those hosts that have no result yet."""
        for name in hosts:
            host = self._hosts[name]
            if host.summary is not None:
                continue
            error = WorkerLost(
                f"{name}: the run on this host did not end: {reason}",
                hint="rerun the command. A step that was running may have continued on the host; if the host is locked, "
                "wait until sshd has noticed that the worker is gone",
            )
            self._bus.publish(ErrorEvent(name, host.task, "", type(error).__name__, error.text, error.hint))
            done = host.done.values()
            host.summary = HostSummary(
                ok=sum(1 for one in done if one.status in ("ok", "changed")),
                changed=host.changed + host.earlier,
                failed=1,
                skipped=sum(1 for one in done if one.status == "skipped"),
            )
            for play in self._graph.plays_of(name):
                self._add(None, PlayEnded(name, play, breaks=self._graph.plays[play].chain))
            self._add(None, PlayEnded(name, None))
        self._changed.set()

    # -- messages --------------------------------------------------------------------------------

    def _receive(self, one: _Worker, parcel: Parcel) -> None:
        task = self._tasks.get(parcel.task)
        if task is None or one.is_lost or task.worker != one.address:
            return
        for content in parcel.messages[max(0, task.received - parcel.first) :]:
            task.received += 1
            if isinstance(content, PlayEnded):
                self._add(one, content)
            elif isinstance(content, TaskEnded):
                self._end(task, content)
            else:
                self._publish(content)

    def _add(self, source: _Worker | None, ended: PlayEnded) -> None:
        self._graph.add(ended)
        self._log.append((source, ended))

    def _end(self, task: _Task, ended: TaskEnded) -> None:
        task.has_ended = True
        hosts, task.left = list(task.left), {}
        if ended.summary is None:
            self._give_up(hosts, ended.error)
            return
        for name in hosts:
            host = self._hosts[name]
            found = ended.summary.hosts[name]
            host.summary = found._replace(changed=found.changed + host.earlier)
        self._changed.set()

    def _publish(self, event: Event) -> None:
        host = self._hosts.get(getattr(event, "host", ""))
        if host is None:
            return
        host.task = getattr(event, "task", "") or host.task
        if isinstance(event, ChangeEvent):
            host.changed += 1
        elif isinstance(event, TaskDone):
            place = (event.task, host.runs.get(event.task, 0))
            host.runs[event.task] = place[1] + 1
            before, host.done[place] = host.done.get(place), event
            if before is not None and before.status == "changed" and event.status == "ok":
                host.done[place] = before
                return  # the event of the lost worker stays: it counts the changes
        self._bus.publish(event)

    def _summary(self, seconds: float) -> Summary:
        hosts = {name: one.summary or HostSummary(failed=1) for name, one in self._hosts.items()}
        return Summary(
            check=self._run.check,
            changed=sum(one.changed for one in hosts.values()),
            failed=sum(1 for one in hosts.values() if one.failed),
            unreachable=sum(1 for one in hosts.values() if one.unreachable),
            seconds=round(seconds, 3),
            hosts=hosts,
            interrupted=self._interrupts > 0,
        )


def on_cluster(run: Run, options: Options, address: str, report: Callable[[str], None]) -> ClusterRun:
    """The run, on the workers of a Dask cluster. Raises UsageError if the extra dask is not installed."""
    try:
        import distributed  # noqa: F401  other commands do without it
    except ImportError as error:
        raise UsageError(
            f"--dask needs the package distributed, which cannot be imported ({error})",
            hint="install it: pip install 'provision[dask]'",
        ) from None
    return ClusterRun(run, options, address, report)
