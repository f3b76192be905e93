"""A listener that keeps a run's events, for tests of the engine and of tasks."""

from __future__ import annotations

from dataclasses import dataclass, field

from provision.engine.events import ChangeEvent, ErrorEvent, Event, Message, Summary, TaskDone


@dataclass
class RunReport:
    """A run's events and its summary; `closed` counts how often it was closed."""

    events: list[Event] = field(default_factory=list)
    closed: int = 0
    summary: Summary = field(default_factory=lambda: Summary(False, 0, 0, 0, 0.0, {}))

    def on(self, event: Event) -> None:
        """Keeps an event."""
        self.events.append(event)

    def close(self) -> None:
        """Counts the calls."""
        self.closed += 1

    @property
    def code(self) -> int:
        """The exit code: 1 when a host failed."""
        return 1 if self.summary.failed else 0

    @property
    def statuses(self) -> list[str]:
        """`host task status`, in order."""
        return [f"{one.host} {one.task} {one.status}" for one in self.events if isinstance(one, TaskDone)]

    @property
    def changes(self) -> list[str]:
        """`host: summary`, with `?` before a change that is not applied."""
        return [
            f"{one.host}: {'' if one.applied else '?'}{one.summary}"
            for one in self.events
            if isinstance(one, ChangeEvent)
        ]

    @property
    def summaries(self) -> list[str]:
        """The summaries of the changes, applied or planned."""
        return [one.summary for one in self.events if isinstance(one, ChangeEvent)]

    @property
    def diffs(self) -> str:
        """The diffs of all changes."""
        return "\n".join(one.diff for one in self.events if isinstance(one, ChangeEvent))

    def messages_of(self, host: str) -> list[Message]:
        """The messages about one host."""
        return [one for one in self.events if isinstance(one, Message) and one.host == host]

    @property
    def messages(self) -> list[str]:
        """The texts of notes and warnings, without their hosts."""
        return [one.text for one in self.events if isinstance(one, Message)]

    @property
    def errors(self) -> list[ErrorEvent]:
        """The errors."""
        return [one for one in self.events if isinstance(one, ErrorEvent)]

    @property
    def error(self) -> ErrorEvent:
        """The only error."""
        (found,) = self.errors
        return found
