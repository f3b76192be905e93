"""What a run has told so far, kept for those who report at the end."""

from __future__ import annotations

from dataclasses import dataclass, field

from provision.engine.events import ChangeSeen, ErrorSeen, Event, Message, Start, Summary, TaskDone


@dataclass
class Ledger:
    """Events by kind, in order of arrival; hosts in inventory order."""

    names: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    check: bool = False
    done: dict[tuple[str, str], TaskDone] = field(default_factory=dict)
    headlines: dict[str, str] = field(default_factory=dict)
    changes: list[ChangeSeen] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    errors: list[ErrorSeen] = field(default_factory=list)
    summary: Summary | None = None

    def note(self, event: Event) -> None:
        """Takes an event in; those of the live view alone are not kept."""
        match event:
            case Start():
                self.names, self.hosts, self.check = event.names, event.hosts, event.check
            case TaskDone():
                self.done[event.host, event.task] = event
                self.headlines.setdefault(event.task, event.headline)
            case ChangeSeen():
                self.changes.append(event)
            case Message():
                self.messages.append(event)
            case ErrorSeen():
                self.errors.append(event)
            case Summary():
                self.summary = event
            case _:
                pass

    @property
    def quiet(self) -> bool:
        """Nothing happened that a reader must see: no change, message or error."""
        return not (self.changes or self.messages or self.errors)

    def in_order(self, hosts: set[str]) -> list[str]:
        """These hosts in inventory order; names that are not in the inventory last."""
        place = {name: index for index, name in enumerate(self.hosts)}
        return sorted(hosts, key=lambda name: (place.get(name, len(place)), name))
