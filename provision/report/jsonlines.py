"""`--json`: one object a line, for programs. The fields are a contract: scripts hold to them."""

from __future__ import annotations

import json
from typing import Any, TextIO

from provision.engine.events import ChangeSeen, ErrorSeen, Event, Message, Start, Summary, TaskDone
from provision.report.layout import Out
from provision.report.text import safe

SCHEMA = 1


class JsonLines:
    """Writes start, task, change, message, error and summary, each line flushed; the first carries `"schema": 1`."""

    def __init__(self, stream: TextIO) -> None:
        self._out = Out(stream)
        self._begun = False

    def on(self, event: Event) -> None:
        """Writes one line, or none for what only people watch."""
        fields = as_json(safe(event))
        if fields is None:
            return
        if not self._begun:
            self._begun = True
            fields["schema"] = SCHEMA
        # ASCII only: valid in whatever encoding the stream has.
        self._out.line(json.dumps(fields, separators=(",", ":")))

    def close(self) -> None:
        """Nothing is held back."""


def as_json(event: Event) -> dict[str, Any] | None:
    """The event's contracted fields, or None when it has no place in the JSON lines."""
    match event:
        case Start():
            return {"type": "start", **_take(event, "names hosts check")}
        case TaskDone():
            return {"type": "task", **_take(event, "host task status seconds")}
        case ChangeSeen():
            return {"type": "change", **_take(event, "host task resource action summary diff applied predicted")}
        case Message():
            return {"type": "message", **_take(event, "host task text")}
        case ErrorSeen():
            return {"type": "error", **_take(event, "host task resource error text hint")}
        case Summary():
            per_host = "ok changed failed skipped unreachable round_trips seconds"
            hosts = {name: _take(one, per_host) for name, one in event.hosts.items()}
            return {"type": "summary", **_take(event, "check changed failed unreachable seconds"), "hosts": hosts}
        case _:
            return None


def _take(value: object, names: str) -> dict[str, Any]:
    fields = {name: getattr(value, name) for name in names.split()}
    return {name: round(one, 3) if isinstance(one, float) else one for name, one in fields.items()}
