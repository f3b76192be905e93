"""What runs in the worker processes of a Dask cluster: the functions that the client calls there.

All of them end quickly or wait asynchronously, since Dask calls them in the worker's event loop; only `work` is a Dask
task, in a thread of its own. None raises: Dask logs the arguments of a function that does.

A worker that gets no request for some time takes the client or the network for dead. It then does what the first Ctrl-C
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

SILENCE_SECONDS: Final = 60.0  # without a request, after which the client is taken for dead
LOCK_SECONDS: Final = 180.0  # to wait for the lock of a host whose worker was lost; sshd may need that long to notice
_LOCK_PAUSE: Final = 2.0
_BATCH_SECONDS: Final = 0.1  # messages of this time travel together: each request costs 1 to 2 ms of processor
_BATCH_SIZE: Final = 5000
_FETCH_SECONDS: Final = 5.0  # that a request waits for messages


class Ended(NamedTuple):
    """A task has ended, with the summary of its hosts. `error` ended it outside of its hosts."""

    summary: Summary | None
    error: str = ""


class Prepared(NamedTuple):
    """The answer of a worker that was sent a shipment. `missing`: local files that it does not have."""

    error: str = ""
    hint: str = ""
    missing: tuple[str, ...] = ()
    tasks: int = 0


Content = Event | PlayEnded | Ended


class Parcel(NamedTuple):
    """Messages of one task, numbered from `first`, in order."""

    task: int
    first: int
    messages: tuple[Content, ...]


class Outbox:
    """The messages of one task, until the client has received them. One thread at a time adds; the event loop reads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._messages: list[Content] = []
        self._first = 0  # the number of the first of them

    def add(self, message: Content) -> None:
        """Adds a message."""
        with self._lock:
            self._messages.append(message)

    def after(self, received: int) -> tuple[int, tuple[Content, ...]]:
        """The number of the next message and the messages from there on; those below `received` have arrived."""
        with self._lock:
            if received > self._first:
                del self._messages[: received - self._first]
                self._first = received
            return self._first, tuple(self._messages[:_BATCH_SIZE])


class _Sender:
    """Listens to the events of a run, and adds them to the outbox, with secrets masked."""

    def __init__(self, outbox: Outbox, estate: Unpacked, *, details: bool) -> None:
        self._outbox = outbox
        self._estate = estate
        self._details = details

    def on(self, event: Event) -> None:
        """Adds an event. The client has its own first and last one."""
        if isinstance(event, Start | Summary) or (not self._details and isinstance(event, Step | Output)):
            return
        text = getattr(event, "text", "")
        if self._estate.root in text:
            event = event._replace(text=self._estate.client_path(text))  # type: ignore[call-arg]
        self._outbox.add(mask_event(event))

    def close(self) -> None:
        """Does nothing: the client fetches the messages."""


@dataclass
class Share:
    """A run on this worker.

    run      the whole run, as assembled here
    graph    of the whole run: what hosts of this worker report is sent, what others report is added
    """

    shipment: Shipment
    estate: Unpacked
    run: Run
    graph: PlayGraph
    outboxes: dict[int, Outbox] = field(default_factory=dict)
    active: dict[int, Run] = field(default_factory=dict)  # by the number of the task
    presses: int = 0  # of Ctrl-C
    heard: float = field(default_factory=time.monotonic)
    answered: float = 0.0  # when messages were fetched last
    is_finished: bool = False
    _by_others: threading.local = field(default_factory=threading.local)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, shipment: Shipment, estate: Unpacked) -> Share:
        """Assembles the run. Raises UsageError."""
        run = _assembled(shipment, estate)
        if run.dialler is not None:  # the hosts are dialled for each task
            run.dialler.close()
        return cls(shipment, estate, run, PlayGraph(run.plays))

    def add(self, passed: Sequence[PlayEnded]) -> None:
        """Takes in what hosts of other workers have reported."""
        self._by_others.busy = True
        try:
            for one in passed:
                for run in list(self.active.values()) if one.changed else ():
                    if run.tokens is not None:
                        run.tokens.forget(one.host)
                self.graph.add(one)
        finally:
            self._by_others.busy = False

    def work(self, number: int, names: Sequence[str], *, again: bool) -> None:
        """Runs these hosts to their end. `again`: another worker, which was lost, may still hold their locks."""
        outbox = self.outboxes.setdefault(number, Outbox())
        own = frozenset(names)

        def relay(passed: PlayEnded) -> None:
            if passed.host in own and not getattr(self._by_others, "busy", False):
                outbox.add(passed)

        self.graph.listen(relay)
        try:
            run = _assembled(self.shipment, self.estate, own)
            run.graph, run.listeners = self.graph, [_Sender(outbox, self.estate, details=self.shipment.details)]
            if again:
                run.connect = _Patient(run.connect, outbox, lambda: self.presses > 0)
            with self._lock:
                self.active[number] = run
                for _ in range(self.presses):
                    run.interrupt()
            with supplied(_supply(self.shipment, self.estate)):
                ended = Ended(run.execute())
        except BaseException as error:
            problem = as_provision_error(error)
            ended = Ended(None, self.estate.client_path(problem.text))
        finally:
            with self._lock:
                self.active.pop(number, None)
        outbox.add(ended)

    def press(self, presses: int) -> None:
        """Does what Ctrl-C does, as often as the user has pressed it."""
        with self._lock:
            while self.presses < presses:
                self.presses += 1
                for run in self.active.values():
                    run.interrupt()

    def remove(self) -> None:
        """Removes the files of this run."""
        forget_playbooks(self.estate.path("/"))
        self.estate.remove()


def _assembled(shipment: Shipment, estate: Unpacked, own: frozenset[str] | None = None) -> Run:
    """The run, as the client has it, of all hosts or of `own`. Raises UsageError."""
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


class _Patient:
    """Connects to a host, and waits for its lock: sshd frees it when it notices that a lost worker is gone."""

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


_shares: dict[str, Share] = {}
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
        if run_id in _shares:
            return Prepared(tasks=fingerprint(_shares[run_id].run))
        if any(not one.is_finished for one in _shares.values()):
            return Prepared("it works for another run", "wait until that run has ended, or use other workers")
        try:
            shipment = Shipment.opened(sealed)
            estate = Unpacked(shipment, folder)
        except Exception as error:
            problem = as_provision_error(error)
            return Prepared(f"the files of this run cannot be unpacked: {problem.text}", problem.hint)
        try:
            share = Share.of(shipment, estate)
            missing = tuple(estate.missing(share.run, shipment.needed))
        except BaseException as error:
            estate.remove()
            problem = as_provision_error(error)
            return Prepared(estate.client_path(problem.text), problem.hint)
        if missing:
            share.remove()
            return Prepared(missing=missing)
        _shares[run_id] = share
        threading.Thread(target=_watch, args=(run_id, share), name="watch", daemon=True).start()
        return Prepared(tasks=fingerprint(share.run))


def work(run_id: str, number: int, names: Sequence[str], again: bool) -> str:
    """The Dask task: runs the hosts. Returns "" or why it could not begin; everything else is a message."""
    from distributed import secede

    secede()  # type: ignore[no-untyped-call]
    share = _shares.get(run_id)
    if share is None:
        return "the worker has restarted"
    share.work(number, names, again=again)
    return ""


async def fetch(run_id: str, received: dict[int, int]) -> list[Parcel] | None:
    """The next messages; after some seconds without any, none. None: this worker does not know the run.

    received  by the number of a task: the number of the next message that the client expects
    """
    share = _shares.get(run_id)
    if share is None:
        return None
    share.heard = time.monotonic()
    until = share.heard + _FETCH_SECONDS
    await asyncio.sleep(max(0.0, share.answered + _BATCH_SECONDS - share.heard))
    while True:
        parcels = []
        for number, outbox in list(share.outboxes.items()):
            first, messages = outbox.after(received.get(number, 0))
            if messages:
                parcels.append(Parcel(number, first, messages))
        if parcels or time.monotonic() > until:
            share.heard = share.answered = time.monotonic()
            return parcels
        await asyncio.sleep(_BATCH_SECONDS)


async def update(run_id: str, passed: Sequence[PlayEnded], presses: int) -> bool:
    """Receives what hosts of other workers have reported, and Ctrl-C. False: this worker does not know the run."""
    share = _shares.get(run_id)
    if share is None:
        return False
    share.heard = time.monotonic()
    share.add(passed)
    share.press(presses)
    return True


async def finish(run_id: str) -> None:
    """The run has ended: its files are removed."""
    share = _shares.get(run_id)
    if share is not None:
        share.is_finished = True
        if share.active:  # the client has given up
            share.press(1)
        _close(run_id, share)


def _close(run_id: str, share: Share) -> None:
    if not share.active and _shares.get(run_id) is share:
        share.remove()
        _shares.pop(run_id, None)


def _watch(run_id: str, share: Share) -> None:
    """Ends a run whose client is gone, or whose worker ends, and removes its files.

    A thread of its own: when a worker gets SIGTERM, its event loop ends first, and Python waits for the hosts' threads.
    """
    while _shares.get(run_id) is share:
        time.sleep(1)
        if time.monotonic() - share.heard > SILENCE_SECONDS or not threading.main_thread().is_alive():
            share.is_finished = True
            share.press(1)
        if share.is_finished:
            _close(run_id, share)


class _NotOurs(logging.Filter):
    """Drops Dask's line in the log for each call of a function of this module: there are several in a second."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write the line."""
        return not (str(record.msg).startswith("Run out-of-band function") and record.args in (("fetch",), ("update",)))


def _quiet() -> None:
    logger = logging.getLogger("distributed.worker")
    if not any(isinstance(one, _NotOurs) for one in logger.filters):
        logger.addFilter(_NotOurs())
