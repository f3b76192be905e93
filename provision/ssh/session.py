"""The one way to a host that the engine knows: a session with a root shell on it.

`provision.testing.FakeSession` is the other implementation; the engine cannot tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from provision.resources.base import Result
from provision.shell import Command


@dataclass
class Traffic:
    """What a session cost so far: turns from sending to receiving, and bytes on the wire."""

    round_trips: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0


class Session(Protocol):
    """An open, privileged, framed shell. Not thread-safe: one worker owns it."""

    traffic: Traffic

    def ask(self, commands: Sequence[Command], *, deadline: float) -> list[Result]:
        """Runs all in one round trip, each in a subshell of its own, in order; all run whatever their codes."""

    def run(self, command: Command, *, deadline: float, on_output: Callable[[bytes], None] | None = None) -> Result:
        """Runs one, feeding its stdin; `on_output` is given pieces of stdout and stderr as they come.

        Raises DeadlineExceeded when it does not end within `deadline` seconds (it is then stopped on the
        host), ConnectionLost when the session breaks.
        """

    def close(self) -> None:
        """Ends the session; the host's lock is free after it."""

    def abort(self) -> None:
        """Breaks the session off at once; callable from any thread."""
