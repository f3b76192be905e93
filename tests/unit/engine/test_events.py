"""Events reach every listener, and no listener can end the run."""

from __future__ import annotations

import io
import sys

import pytest

from provision.engine.events import Bus, Event, Message
from provision.secret import Secret


class Recording:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.closed = False

    def on(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        self.closed = True


class Failing:
    """Fails at every call, with a secret in its message."""

    def on(self, event: Event) -> None:
        raise ValueError(f"cannot show {event.text}" if isinstance(event, Message) else "")

    def close(self) -> None:
        raise RuntimeError("cannot close")


def test_a_failing_listener_ends_neither_the_run_nor_other_listeners(capsys: pytest.CaptureFixture[str]) -> None:
    """Its first exception is reported on stderr, with secrets masked."""
    canary = Secret("canary-2f90").reveal()
    recording = Recording()
    bus = Bus([Failing(), recording])
    events = [Message("h", "t", canary), Message("h", "t", "second")]
    for event in events:
        bus.publish(event)
    bus.close()
    assert (recording.events, recording.closed) == (events, True)
    assert capsys.readouterr().err == (
        "provision: the report Failing failed: ValueError: cannot show ***; the run continues\n"
    )


def test_a_stderr_that_cannot_be_written_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure of a report cannot be reported then; the other listeners get every event."""
    for broken in (closed_stream(), open("/dev/full", "w", buffering=1)):  # noqa: SIM115, PTH123
        monkeypatch.setattr(sys, "stderr", broken)
        recording = Recording()
        bus = Bus([Failing(), recording])
        bus.publish(Message("h", "t", "first"))
        bus.close()
        assert (len(recording.events), recording.closed) == (1, True)


def closed_stream() -> io.StringIO:
    """A stream whose methods raise ValueError."""
    stream = io.StringIO()
    stream.close()
    return stream
