"""What happens in a run, as values. Reports listen to these events and read nothing else.

The fields of most events are the contract of `--json`. `Step` and `Output` are for live output only; the JSON
lines leave them out. Events reach listeners one at a time, in the order in which they happened.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Literal, NamedTuple, Protocol

from provision.secret import mask

Status = Literal["ok", "changed", "failed", "skipped", "unreachable"]

StepKind = Literal["connecting", "observing", "applying", "checking", "handler", "waiting"]
"""What a host does. `checking`: it runs a verification. `waiting`: it waits for other hosts."""

MessageKind = Literal["note", "check", "stopping", "skipped", "abandoned", "waiting"]
"""`check`: what check mode would verify. `stopping`, `abandoned`: answers to Ctrl-C. `skipped`: tasks that do not run.

`waiting`: GitLab is not ready yet, or news about the pipeline that the run waits for.
"""


class StartedPlay(NamedTuple):
    """A play of the run: its tasks and hosts, and the plays that it waits for, by their index in `Start.plays`."""

    tasks: tuple[str, ...]
    hosts: tuple[str, ...]
    after: tuple[int, ...] = ()
    serial: bool = False


class Start(NamedTuple):
    """The run begins: the names that the user gave, the hosts in inventory order, and the plays."""

    names: tuple[str, ...]
    hosts: tuple[str, ...]
    check: bool
    plays: tuple[StartedPlay, ...] = ()


class Step(NamedTuple):
    """A host is busy with something (live view only). `text` is for people; `kind` is for programs."""

    host: str
    task: str
    text: str
    kind: StepKind = "applying"


class Output(NamedTuple):
    """A piece of a running step's output, masked (live view and -v only)."""

    host: str
    task: str
    text: str


class TaskDone(NamedTuple):
    """A task ended on a host after `seconds`; `changes` is their number."""

    host: str
    task: str
    status: Status
    seconds: float
    changes: int = 0
    headline: str = ""


class ChangeEvent(NamedTuple):
    """A change: applied, or planned in check mode.

    A planned change may be `predicted`: it `requires` the outcome of a task that has not run yet. `id` distinguishes
    the changes of one resource and is the same on every host; `summary` is for people.
    """

    host: str
    task: str
    resource: str
    action: str
    summary: str
    diff: str
    applied: bool
    predicted: bool = False
    seconds: float = 0.0
    id: str = ""
    requires: str = ""


class Message(NamedTuple):
    """Something that the reader should know. `text` is for people; `kind` is for programs."""

    host: str
    task: str
    text: str
    kind: MessageKind = "note"


class ErrorEvent(NamedTuple):
    """A host failed, or one of its tasks. `error` is the name of a class in `provision.errors`."""

    host: str
    task: str
    resource: str
    error: str
    text: str
    hint: str


class HostSummary(NamedTuple):
    """A host's counts: tasks that are ok, changes, failed and skipped tasks; bytes and seconds."""

    ok: int = 0
    changed: int = 0
    failed: int = 0
    skipped: int = 0
    unreachable: bool = False
    round_trips: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    seconds: float = 0.0


class Summary(NamedTuple):
    """The run ended: totals over hosts. `changed` counts changes; `failed` and `unreachable` count hosts."""

    check: bool
    changed: int
    failed: int
    unreachable: int
    seconds: float
    hosts: dict[str, HostSummary]
    interrupted: bool = False


Event = Start | Step | Output | TaskDone | ChangeEvent | Message | ErrorEvent | Summary


class Listener(Protocol):
    """Receives every event, in order, one at a time: the engine serialises them."""

    def on(self, event: Event) -> None:
        """Called for each event."""

    def close(self) -> None:
        """Called once, after the last event."""


class Bus:
    """Passes each event to every listener; safe to call from any thread.

    An exception in a listener does not end the run: the first one of each listener is printed on stderr.
    """

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = tuple(listeners)
        self._failed: set[int] = set()
        self._lock = threading.Lock()

    def publish(self, event: Event) -> None:
        """Delivers one event."""
        with self._lock:
            for index, listener in enumerate(self._listeners):
                with self._contained(index):
                    listener.on(event)

    def close(self) -> None:
        """Lets each listener finish (write its file, restore the terminal)."""
        with self._lock:
            for index, listener in enumerate(self._listeners):
                with self._contained(index):
                    listener.close()

    @contextmanager
    def _contained(self, index: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if index in self._failed:
                return
            self._failed.add(index)
            name, reason = type(self._listeners[index]).__name__, mask(f"{type(error).__name__}: {error}")
            with suppress(OSError, ValueError):  # stderr may be full or closed
                print(f"provision: the report {name} failed: {reason}; the run continues", file=sys.stderr)
