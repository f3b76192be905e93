"""What each host is busy with at this moment, for those who show a run while it goes on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from provision.engine.events import ChangeSeen, ErrorSeen, Event, Message, Output, Start, Status, Step, TaskDone
from provision.report.clean import printable, printable_lines

State = Literal["waiting", "busy", "idle", "failed", "unreachable"]


@dataclass
class Busy:
    """A host: its state, task and step, since when (monotonic seconds), and the last line that it said."""

    state: State = "waiting"
    task: str = ""
    text: str = ""
    since: float = 0.0
    said: str = ""
    announced: float = 0.0


@dataclass
class Activity:
    """All hosts in inventory order, and the run's counts so far."""

    names: tuple[str, ...] = ()
    check: bool = False
    began: float = 0.0
    hosts: dict[str, Busy] = field(default_factory=dict)
    changes: int = 0

    def note(self, event: Event, now: float) -> None:
        """Takes an event in; `now` is monotonic seconds."""
        match event:
            case Start():
                self.names, self.check, self.began = event.names, event.check, now
                self.hosts = {name: Busy() for name in event.hosts}
            case Step():
                # "waiting for the hosts before": at a barrier, no work.
                state: State = "waiting" if event.text.startswith("waiting") else "busy"
                self.hosts[event.host] = Busy(state, event.task, printable(event.text), now)
            case Output():
                said = [line for line in printable_lines(event.text) if line.strip()]
                if said and event.host in self.hosts:
                    self.hosts[event.host].said = said[-1].strip()
            case ChangeSeen():
                self.changes += 1
            case TaskDone():
                self._task_done(event, now)
            case ErrorSeen() if event.host in self.hosts:
                self.hosts[event.host] = Busy("failed", event.task, printable_lines(event.text)[0], now)
            case _:
                pass

    def _task_done(self, event: TaskDone, now: float) -> None:
        before = self.hosts.get(event.host, Busy())
        if event.status == "unreachable":
            self.hosts[event.host] = Busy("unreachable", event.task, before.text, now)
        elif event.status == "failed":
            self.hosts[event.host] = Busy("failed", event.task, before.text, now)
        elif before.state not in ("failed", "unreachable"):  # what is skipped after a failure does not cover it
            self.hosts[event.host] = Busy("idle", event.task, _ended(event.status, event.changes), now)

    def count(self, *states: State) -> int:
        """How many hosts are in one of these states."""
        return len([one for one in self.hosts.values() if one.state in states])


def urgent(message: Message) -> bool:
    """Whether to say it at once: the engine's answers to Ctrl-C, for whoever waits with a finger on the key."""
    return message.text.startswith(("stopping after: ", "abandoned during: "))


def _ended(status: Status, changes: int) -> str:
    if not changes:
        return status
    return "1 change" if changes == 1 else f"{changes} changes"
