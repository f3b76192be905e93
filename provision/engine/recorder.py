"""The counts and events of one host."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from provision.engine.events import (
    Bus,
    ChangeEvent,
    ErrorEvent,
    HostSummary,
    Message,
    MessageKind,
    Output,
    Status,
    Step,
    StepKind,
    TaskDone,
)
from provision.engine.plan import Planned
from provision.errors import ProvisionError, Unreachable
from provision.host.pending import Handler
from provision.ssh.session import Traffic
from provision.tasks.base import Task


@dataclass
class Recorder:
    """Counts for the host's summary, and events for the listeners. `step` is the current step, in words."""

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

    def start_step(self, step: str, kind: StepKind) -> None:
        """Reports that the host begins a step."""
        self.step = step
        self.bus.publish(Step(self.host, self.task, step, kind))

    def output(self, text: str) -> None:
        """Reports a piece of the running step's output."""
        self.bus.publish(Output(self.host, self.task, text))

    def message(self, text: str, kind: MessageKind = "note") -> None:
        """Reports a message for the user."""
        self.bus.publish(Message(self.host, self.task, text, kind))

    def change(self, planned: Planned, *, applied: bool, seconds: float = 0.0) -> None:
        """Reports a change that was applied, or that check mode predicts."""
        change = planned.change
        requires = "" if applied else change.requires
        self._change(
            ChangeEvent(
                self.host,
                self.task,
                planned.label,
                change.action,
                change.summary,
                change.diff,
                applied,
                bool(requires),
                seconds,
                change.identity,
                requires,
            )
        )

    def handler(self, handler: Handler, *, applied: bool, seconds: float = 0.0) -> None:
        """Reports a handler that ran, or that would run."""
        event = ChangeEvent(
            self.host, self.task, handler.name, "run", handler.summary, "", applied, seconds=seconds, id="handler"
        )
        self._change(event)

    def task_done(self, task: Task, status: Status, started: float, changed_before: int) -> None:
        """Counts and reports a task that ended on this host."""
        if status in ("ok", "changed"):
            self.ok += 1
        elif status == "skipped":
            self.skipped += 1
        elif status == "failed":
            self.failed += 1
        seconds = time.monotonic() - started
        self.bus.publish(TaskDone(self.host, task.name, status, seconds, self.changed - changed_before, task.headline))

    def error(self, resource: str, error: ProvisionError) -> None:
        """Reports an error of the host, or of a task or resource on it."""
        self.unreachable = isinstance(error, Unreachable)
        self.bus.publish(ErrorEvent(self.host, self.task, resource, _kind(error), error.text, error.hint))

    def _change(self, event: ChangeEvent) -> None:
        self.changed += 1
        self.bus.publish(event)

    def summary(self, traffic: Traffic | None) -> HostSummary:
        """The counts, for the end of the report."""
        used = traffic or Traffic()
        return HostSummary(
            ok=self.ok,
            changed=self.changed,
            failed=self.failed,
            skipped=self.skipped,
            unreachable=self.unreachable,
            round_trips=used.round_trips,
            bytes_sent=used.bytes_sent,
            bytes_received=used.bytes_received,
            seconds=round((self.ended or time.monotonic()) - self.started, 3),
        )


def _kind(error: ProvisionError) -> str:
    """The error's name in `provision.errors`; for a class from another module, the name of its base class."""
    return next(one.__name__ for one in type(error).__mro__ if one.__module__ == ProvisionError.__module__)
