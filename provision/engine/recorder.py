"""What becomes of one host, counted and told."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from provision.engine.events import (
    Bus,
    ChangeSeen,
    ErrorSeen,
    HostSummary,
    Message,
    MessageKind,
    Output,
    Status,
    Step,
    StepKind,
    TaskDone,
)
from provision.errors import ProvisionError, Unreachable
from provision.host.pending import Handler
from provision.resources.base import Change
from provision.ssh.session import Traffic
from provision.tasks.base import Task


@dataclass
class Teller:
    """Counts for the host's summary, and events for the bus. `step` is what the host is at."""

    host: str
    bus: Bus
    task: str = ""
    step: str = ""
    ok: int = 0
    changed: int = 0
    failed: int = 0
    skipped: int = 0
    unreachable: bool = False
    started: float = field(default_factory=time.monotonic)
    ended: float = 0.0

    def at(self, step: str, kind: StepKind = "applying") -> None:
        """The host is busy with this."""
        self.step = step
        self.bus.tell(Step(self.host, self.task, step, kind))

    def say(self, output: str) -> None:
        """A piece of the running step's output."""
        self.bus.tell(Output(self.host, self.task, output))

    def note(self, text: str, kind: MessageKind = "note") -> None:
        """Something the reader should know."""
        self.bus.tell(Message(self.host, self.task, text, kind))

    def change(self, label: str, change: Change, *, applied: bool, seconds: float = 0.0) -> None:
        """A change was made, or would be."""
        self.changed += 1
        waits = bool(change.waits_for)
        summary = f"after {change.waits_for}: {change.summary}" if waits else change.summary
        self.bus.tell(
            ChangeSeen(
                self.host,
                self.task,
                label,
                change.action,
                summary,
                change.diff,
                applied,
                waits and not applied,
                seconds,
            )
        )

    def handler(self, handler: Handler, *, applied: bool, seconds: float = 0.0) -> None:
        """Owed work was done, or would be."""
        self.change(handler.name, Change(handler.summary, handler.run, "run"), applied=applied, seconds=seconds)

    def done(self, task: Task, status: Status, started: float, changed_before: int) -> None:
        """A task ended here."""
        if status in ("ok", "changed"):
            self.ok += 1
        elif status == "skipped":
            self.skipped += 1
        elif status == "failed":
            self.failed += 1
        seconds = time.monotonic() - started
        self.bus.tell(TaskDone(self.host, task.name, status, seconds, self.changed - changed_before, task.headline))

    def error(self, resource: str, error: ProvisionError) -> None:
        """The host goes no further."""
        self.unreachable = isinstance(error, Unreachable)
        self.bus.tell(ErrorSeen(self.host, self.task, resource, _kind(error), error.text, error.hint))

    def summary(self, traffic: Traffic | None) -> HostSummary:
        """The counts, for the end of the report."""
        spent = traffic or Traffic()
        return HostSummary(
            ok=self.ok,
            changed=self.changed,
            failed=self.failed,
            skipped=self.skipped,
            unreachable=self.unreachable,
            round_trips=spent.round_trips,
            bytes_sent=spent.bytes_sent,
            bytes_received=spent.bytes_received,
            seconds=round((self.ended or time.monotonic()) - self.started, 3),
        )


def _kind(error: ProvisionError) -> str:
    """The error's name in the published tree: kinds that a module keeps for itself count as their base."""
    return next(one.__name__ for one in type(error).__mro__ if one.__module__ == ProvisionError.__module__)
