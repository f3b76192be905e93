"""The JSON lines, field by field."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from provision.engine.events import (
    ChangeEvent,
    ErrorEvent,
    Event,
    HostSummary,
    Message,
    Start,
    StartedPlay,
    Summary,
    TaskDone,
)
from provision.report.jsonlines import JsonLines
from provision.secret import Secret

EventsOf = Callable[[str], list[Event]]
FIELDS = {
    "start": "names hosts check plays",
    "task": "host task status seconds",
    "change": "host task resource action summary diff applied predicted requires",
    "message": "host task text kind",
    "error": "host task resource error text hint",
    "summary": "check changed failed unreachable seconds hosts",
}


def lines(events: list[Event]) -> list[dict[str, Any]]:
    """The objects written for these events."""
    stream = io.StringIO()
    listener = JsonLines(stream)
    for event in events:
        listener.on(event)
    listener.close()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize("run", ["first", "check", "noop", "failed", "interrupted", "many"])
def test_every_line_has_exactly_the_contracted_fields(run: str, events_of: EventsOf) -> None:
    """No field is missing or added; only the first line has `schema`; the summary comes last."""
    first, *rest = lines(events_of(run))
    assert first.pop("schema") == 1
    assert first["type"] == "start"
    assert rest[-1]["type"] == "summary"
    for one in [first, *rest]:
        assert set(one) == {"type", *FIELDS[one["type"]].split()}


def test_each_event_is_written_with_its_values() -> None:
    """Floats are rounded to milliseconds; fields that only people need are left out."""
    counts = HostSummary(5, 3, 0, 0, False, 4, 10, 20, 3.94444)
    assert lines(
        [
            Start(("all",), ("gitlab",), False, (StartedPlay(("registry",), ("gitlab",), (), serial=True),)),
            ChangeEvent("gitlab", "registry", "File x", "update", "write x", "-a\n+b\n", True, False, 1.5),
            Message("gitlab", "registry", "é"),
            TaskDone("gitlab", "registry", "changed", 1.23456, 1, "headline"),
            ErrorEvent("gitlab", "registry", "File x", "ChangeFailed", "no", "do"),
            Summary(False, 3, 0, 0, 4.1, {"gitlab": counts}),
        ]
    ) == [
        {
            "type": "start",
            "names": ["all"],
            "hosts": ["gitlab"],
            "check": False,
            "plays": [{"tasks": ["registry"], "hosts": ["gitlab"], "after": [], "serial": True}],
            "schema": 1,
        },
        {
            "type": "change",
            "host": "gitlab",
            "task": "registry",
            "resource": "File x",
            "action": "update",
            "summary": "write x",
            "diff": "-a\n+b\n",
            "applied": True,
            "predicted": False,
            "requires": "",
        },
        {"type": "message", "host": "gitlab", "task": "registry", "text": "é", "kind": "note"},
        {"type": "task", "host": "gitlab", "task": "registry", "status": "changed", "seconds": 1.235},
        {
            "type": "error",
            "host": "gitlab",
            "task": "registry",
            "resource": "File x",
            "error": "ChangeFailed",
            "text": "no",
            "hint": "do",
        },
        {
            "type": "summary",
            "check": False,
            "changed": 3,
            "failed": 0,
            "unreachable": 0,
            "seconds": 4.1,
            "hosts": {
                "gitlab": {
                    "ok": 5,
                    "changed": 3,
                    "failed": 0,
                    "skipped": 0,
                    "unreachable": False,
                    "round_trips": 4,
                    "seconds": 3.944,
                }
            },
        },
    ]


def test_secrets_are_masked_and_names_are_kept() -> None:
    """Secrets in free texts are masked. A secret that equals a host's name does not change that name."""
    canary = Secret('canary-"7f3a\n').reveal()
    Secret("gitlab-host")
    (one, two) = lines(
        [
            ChangeEvent("gitlab-host", "t", canary, "update", f"write {canary}", f"+x = {json.dumps(canary)}", True),
            ErrorEvent("gitlab-host", "t", canary, "ChangeFailed", f"said {canary}", f"not {canary}"),
        ]
    )
    assert "canary" not in json.dumps([one, two])
    assert one["summary"] == "write ***"
    assert one["host"] == two["host"] == "gitlab-host"


def test_bytes_that_are_not_utf8_and_newlines_keep_one_line() -> None:
    """They are written as JSON escapes."""
    (one,) = lines([Message("h", "t", "a\udcff\n\x1b[31mb\u2028")])
    assert one["text"] == "a\udcff\n\x1b[31mb\u2028"
