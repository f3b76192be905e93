"""What runs in the worker processes of a Dask cluster: the functions that the client calls there.

All of them end quickly or wait asynchronously, because Dask calls them in the worker's event loop. Only `work` is a Dask
task, which runs in a thread. No function raises an exception: Dask would log its arguments.

If a worker gets no request for some time, the client or the network has failed. Then the worker does what the first Ctrl-C
does, and removes its private folder at the end.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from provision import __version__
from provision.cluster.shipment import Sealed, Shipment, Unpacked, fingerprint, identity
from provision.engine.assemble import assemble
from provision.engine.events import Event, Message, Output, Start, Step, Summary
from provision.engine.own_files import forget_playbooks
from provision.engine.play_graph import PlayEnded, PlayGraph
from provision.engine.run import Connect, Run
from provision.errors import Locked, as_provision_error
from provision.inventory import Host
from provision.inventory.reading import here
from provision.inventory.secrets import SecretSource, supplied
from provision.report.text import mask_event
from provision.secret import Secret
from provision.ssh.session import Session

SILENCE_SECONDS: Final = 60.0  # without a request, after which the run ends
LOCK_SECONDS: Final = 180.0  # to wait for the lock of a host whose worker was lost; sshd may need that long to notice
_LOCK_PAUSE: Final = 2.0  # seconds between two attempts
_BATCH_SECONDS: Final = 0.1  # between two answers with messages: each request costs 1 to 2 ms of processor time
_BATCH_SIZE: Final = 5000  # messages in one answer, at most
_FETCH_SECONDS: Final = 5.0  # for which a request waits for messages, at most


class TaskEnded(NamedTuple):
    """A Dask task has ended.

    summary  of its hosts; None after an error that is not the failure of one host
    error    its text
    """

    summary: Summary | None
    error: str = ""


class Prepared(NamedTuple):
    """The answer of a worker that has received a shipment.

    error    why it cannot run the hosts, and `hint` what to do; "" if it can
    missing  local files that it does not have
    tasks    the fingerprint of the plays of its run
    """

    error: str = ""
    hint: str = ""
    missing: tuple[str, ...] = ()
    tasks: int = 0


Content = Event | PlayEnded | TaskEnded


class Parcel(NamedTuple):
    """Messages of one task in order. `first` is the number of the first one."""

    task: int
    first: int
    messages: tuple[Content, ...]


class Outbox:
    """The messages of one task that the client may not have received yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._messages: list[Content] = []
        self._first = 0  # the number of the first message in the list

    def add(self, message: Content) -> None:
        """Adds a message."""
        with self._lock:
            self._messages.append(message)

    def after(self, received: int) -> tuple[int, tuple[Content, ...]]:
        """The messages from number `received` on, and the number of the first one. The messages before have arrived."""
        with self._lock:
            if received > self._first:
                del self._messages[: received - self._first]
                self._first = received
            return self._first, tuple(self._messages[:_BATCH_SIZE])


class _Sender:
    """A listener that adds the events of a run to the outbox, with secrets masked."""

    def __init__(self, outbox: Outbox, estate: Unpacked, *, details: bool) -> None:
        self._outbox = outbox
        self._estate = estate
        self._details = details

    def on(self, event: Event) -> None:
        """Adds an event, except for the first and the last one: the client makes its own."""
        if isinstance(event, Start | Summary) or (not self._details and isinstance(event, Step | Output)):
            return
        text = getattr(event, "text", "")
        if self._estate.root in text:
            event = event._replace(text=self._estate.client_path(text))  # type: ignore[call-arg]
        self._outbox.add(mask_event(event))

    def close(self) -> None:
        """Does nothing: the client fetches the messages."""


@dataclass
class WorkerRun:
    """A run on this worker.

    run         the whole run, as assembled here
    graph       of the whole run, with the reports of the hosts of all workers
    active      the runs of Dask tasks that have not ended, by the number of the task
    interrupts  how often the user has pressed Ctrl-C
    requested   when the client sent its last request, in monotonic seconds
    answered    when the client last received messages, or no messages after a wait
    """

    shipment: Shipment
    estate: Unpacked
    run: Run
    graph: PlayGraph
    outboxes: dict[int, Outbox] = field(default_factory=dict)
    active: dict[int, Run] = field(default_factory=dict)
    interrupts: int = 0
    requested: float = field(default_factory=time.monotonic)
    answered: float = 0.0
    is_finished: bool = False
    _by_others: threading.local = field(default_factory=threading.local)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, shipment: Shipment, estate: Unpacked) -> WorkerRun:
        """Assembles the run. Raises UsageError."""
        run = _assembled(shipment, estate)
        if run.dialler is not None:  # the hosts are dialled for each task
            run.dialler.close()
        return cls(shipment, estate, run, PlayGraph(run.plays))

    def add(self, reports: Sequence[PlayEnded]) -> None:
        """Adds the reports of hosts of other workers to the graph."""
        self._by_others.busy = True
        try:
            for one in reports:
                if one.changed:
                    for run in list(self.active.values()):
                        if run.tokens is not None:
                            run.tokens.forget(one.host)
                self.graph.add(one)
        finally:
            self._by_others.busy = False

    def work(self, number: int, names: Sequence[str], *, again: bool) -> None:
        """Runs these hosts to their end. `again`: a lost worker had them before, and their locks may still be held."""
        outbox = self.outboxes.setdefault(number, Outbox())
        own = frozenset(names)

        def send(ended: PlayEnded) -> None:
            if ended.host in own and not getattr(self._by_others, "busy", False):
                outbox.add(ended)

        self.graph.listen(send)
        try:
            run = _assembled(self.shipment, self.estate, own)
            run.graph, run.listeners = self.graph, [_Sender(outbox, self.estate, details=self.shipment.details)]
            if again:
                run.connect = _WaitForLock(run.connect, outbox, lambda: self.interrupts > 0)
            with self._lock:
                self.active[number] = run
                for _ in range(self.interrupts):
                    run.interrupt()
            with supplied(_supply(self.shipment, self.estate)):
                ended = TaskEnded(run.execute())
        except BaseException as error:
            problem = as_provision_error(error)
            ended = TaskEnded(None, self.estate.client_path(problem.text))
        finally:
            with self._lock:
                self.active.pop(number, None)
        outbox.add(ended)

    def interrupt(self, interrupts: int) -> None:
        """Does what Ctrl-C does. `interrupts`: how often the user has pressed it so far."""
        with self._lock:
            while self.interrupts < interrupts:
                self.interrupts += 1
                for run in self.active.values():
                    run.interrupt()

    def remove(self) -> None:
        """Removes the files of this run."""
        forget_playbooks(self.estate.path("/"))
        self.estate.remove()


def _assembled(shipment: Shipment, estate: Unpacked, own: frozenset[str] | None = None) -> Run:
    """The client's run, assembled here: with all hosts, or only with `own`. Raises UsageError."""
    folder = here.set(estate.path(shipment.folder))
    options = shipment.options
    options = options._replace(inventories=tuple(estate.path(one) for one in options.inventories), own=own)
    try:
        with supplied(_supply(shipment, estate)):
            return assemble(options)[0]
    finally:
        here.reset(folder)


def _supply(shipment: Shipment, estate: Unpacked) -> Callable[[SecretSource], Secret | None]:
    def supply(source: SecretSource) -> Secret | None:
        text = shipment.secrets.get(identity(source, estate.root))
        return None if text is None else Secret(text)

    return supply


class _WaitForLock:
    """Connects to a host, and waits for its lock. The lock is free when sshd notices that the lost worker is gone."""

    def __init__(self, connect: Connect, outbox: Outbox, stopping: Callable[[], bool]) -> None:
        self._connect = connect
        self._outbox = outbox
        self._stopping = stopping

    def __call__(self, host: Host) -> Session:
        until = time.monotonic() + LOCK_SECONDS
        reported = False
        while True:
            session = self._connect(host)
            try:
                if (ready := getattr(session, "ready", None)) is not None:
                    ready()
                return session
            except Locked as error:
                session.close()
                if time.monotonic() > until or self._stopping():
                    raise Locked(
                        f"{error.text}; it was not free within {LOCK_SECONDS:.0f} s after the worker that held it was lost",
                        hint="if that worker's machine is down, sshd on the host notices it late: set ClientAliveInterval "
                        f"in its sshd_config; {error.hint}",
                    ) from error
                if not reported:
                    reported = True
                    text = (
                        f"waiting for at most {LOCK_SECONDS:.0f} s until the lost worker's lock is free: {error.text}"
                    )
                    self._outbox.add(Message(host.name, "", text, "waiting"))
            except BaseException:
                session.close()
                raise
            time.sleep(_LOCK_PAUSE)


_runs: dict[str, WorkerRun] = {}  # by the id of the run
_preparing = threading.Lock()


def version() -> str:
    """The version of provision on this worker."""
    return __version__


async def prepare(run_id: str, sealed: Sealed, dask_worker: Any = None) -> Prepared:
    """Unpacks the estate and assembles the run. The answer has the error, if this fails."""
    _quiet()
    folder = getattr(dask_worker, "local_directory", None)
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(None, context.run, _prepare, run_id, sealed, folder)


def _prepare(run_id: str, sealed: Sealed, folder: str | None) -> Prepared:
    with _preparing:
        if run_id in _runs:
            return Prepared(tasks=fingerprint(_runs[run_id].run))
        if any(not one.is_finished for one in _runs.values()):
            return Prepared("it works for another run", "wait until that run has ended, or use other workers")
        try:
            shipment = Shipment.opened(sealed)
            estate = Unpacked(shipment, folder)
        except Exception as error:
            problem = as_provision_error(error)
            return Prepared(f"the files of this run cannot be unpacked: {problem.text}", problem.hint)
        try:
            current = WorkerRun.of(shipment, estate)
            missing = tuple(estate.missing(current.run, shipment.needed))
        except BaseException as error:
            estate.remove()
            problem = as_provision_error(error)
            return Prepared(estate.client_path(problem.text), problem.hint)
        if missing:
            current.remove()
            return Prepared(missing=missing)
        _runs[run_id] = current
        threading.Thread(target=_watch, args=(run_id, current), name="watch", daemon=True).start()
        return Prepared(tasks=fingerprint(current.run))


def work(run_id: str, number: int, names: Sequence[str], again: bool) -> str:
    """The Dask task: runs the hosts. Returns why it cannot begin, or "". Everything else is sent as messages."""
    from distributed import secede

    secede()  # type: ignore[no-untyped-call]
    current = _runs.get(run_id)
    if current is None:
        return "the worker has restarted"
    current.work(number, names, again=again)
    return ""


async def fetch(run_id: str, received: dict[int, int]) -> list[Parcel] | None:
    """The next messages; an empty list if there are none within some seconds; None if this worker does not know the run.

    received  by the number of a task: the number of the next message that the client expects
    """
    current = _runs.get(run_id)
    if current is None:
        return None
    current.requested = time.monotonic()
    until = current.requested + _FETCH_SECONDS
    await asyncio.sleep(max(0.0, current.answered + _BATCH_SECONDS - current.requested))
    while True:
        parcels = []
        for number, outbox in list(current.outboxes.items()):
            first, messages = outbox.after(received.get(number, 0))
            if messages:
                parcels.append(Parcel(number, first, messages))
        if parcels or time.monotonic() > until:
            current.requested = current.answered = time.monotonic()
            return parcels
        await asyncio.sleep(_BATCH_SECONDS)


async def update(run_id: str, reports: Sequence[PlayEnded], interrupts: int) -> bool:
    """Receives the reports of hosts of other workers, and Ctrl-C. Returns False if this worker does not know the run."""
    current = _runs.get(run_id)
    if current is None:
        return False
    current.requested = time.monotonic()
    current.interrupt(interrupts)
    # In a thread: it waits while a token is read on a host, and the event loop must answer meanwhile.
    await asyncio.get_running_loop().run_in_executor(None, current.add, reports)
    return True


async def finish(run_id: str) -> None:
    """Removes the files of a run that has ended."""
    current = _runs.get(run_id)
    if current is not None:
        current.is_finished = True
        if current.active:  # the client has given up
            current.interrupt(1)
        _close(run_id, current)


def _close(run_id: str, current: WorkerRun) -> None:
    if not current.active and _runs.get(run_id) is current:
        current.remove()
        _runs.pop(run_id, None)


def _watch(run_id: str, current: WorkerRun) -> None:
    """Ends a run when its client is gone or its worker ends, and removes its files.

    This is a thread, because after SIGTERM the event loop ends first, while the threads of the hosts still run.
    """
    while _runs.get(run_id) is current:
        time.sleep(1)
        if time.monotonic() - current.requested > SILENCE_SECONDS or not threading.main_thread().is_alive():
            current.is_finished = True
            current.interrupt(1)
        if current.is_finished:
            _close(run_id, current)


class _FrequentCalls(logging.Filter):
    """Drops Dask's log lines about calls of `fetch` and `update`: there are several per second."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write the line."""
        return not (str(record.msg).startswith("Run out-of-band function") and record.args in (("fetch",), ("update",)))


def _quiet() -> None:
    logger = logging.getLogger("distributed.worker")
    if not any(isinstance(one, _FrequentCalls) for one in logger.filters):
        logger.addFilter(_FrequentCalls())
