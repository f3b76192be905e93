"""`--json`: one JSON object per line, for programs. The fields are a public contract."""

from __future__ import annotations

import json
from typing import Any, TextIO

from provision.engine.events import ChangeEvent, ErrorEvent, Event, Message, Output, Start, Step, Summary, TaskDone
from provision.report.console import SafeStream
from provision.report.text import mask_event

SCHEMA = 1


class JsonLines:
    """Writes start, task, change, message, error and summary, each line flushed; the first carries `"schema": 1`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = SafeStream(stream)
        self._has_begun = False

    def on(self, event: Event) -> None:
        """Writes one line, or none for an event that is not part of the contract."""
        if isinstance(event, Step | Output):  # most events: returning here saves masking them
            return
        fields = as_json(mask_event(event))
        if not self._has_begun:
            self._has_begun = True
            fields["schema"] = SCHEMA
        # json.dumps writes ASCII only: valid in any encoding of the stream.
        self._stream.write(json.dumps(fields, separators=(",", ":")) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Does nothing: every line has been flushed."""


def as_json(event: Event) -> dict[str, Any]:
    """The event's fields in the JSON lines. Raises TypeError for an event that is not part of the contract."""
    match event:
        case Start():
            plays = [_fields(one, "tasks hosts after serial") for one in event.plays]
            return {"type": "start", **_fields(event, "names hosts check"), "plays": plays}
        case TaskDone():
            return {"type": "task", **_fields(event, "host task status seconds")}
        case ChangeEvent():
            return {
                "type": "change",
                **_fields(event, "host task resource action summary diff applied predicted requires"),
            }
        case Message():
            return {"type": "message", **_fields(event, "host task text kind")}
        case ErrorEvent():
            return {"type": "error", **_fields(event, "host task resource error text hint")}
        case Summary():
            per_host = "ok changed failed skipped unreachable round_trips seconds"
            hosts = {name: _fields(one, per_host) for name, one in event.hosts.items()}
            return {"type": "summary", **_fields(event, "check changed failed unreachable seconds"), "hosts": hosts}
        case Step() | Output():
            raise TypeError(f"{type(event).__name__} is for live output only")


def _fields(value: object, names: str) -> dict[str, Any]:
    fields = {name: getattr(value, name) for name in names.split()}
    return {name: round(one, 3) if isinstance(one, float) else one for name, one in fields.items()}
