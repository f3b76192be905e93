"""Talking over a channel: stdin fed and both outputs drained in one loop, under a deadline and a watchdog.

Reading one stream to its end and then the other deadlocks once 2 MiB wait on the second. One thread
does all of it here; paramiko's own thread rings the bell when something has arrived.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from provision.errors import ConnectionLost
from provision.ssh.wire import SILENCE_LIMIT, Wire

_PIECE = 32_000  # bytes per send: one SSH packet, so paramiko slices nothing again
_READ = 1 << 20
_PING_AFTER = 10.0  # seconds of silence before the host is asked whether it is there
_WINDOW_WAIT = 0.05  # seconds to wait for room to send before looking at the outputs again


class Pipe(Protocol):
    """What is used of a paramiko Channel."""

    closed: Any
    eof_received: Any

    def settimeout(self, timeout: float | None) -> None: ...
    def send(self, s: bytes) -> int: ...
    def recv_ready(self) -> bool: ...
    def recv(self, nbytes: int) -> bytes: ...
    def recv_stderr_ready(self) -> bool: ...
    def recv_stderr(self, nbytes: int) -> bytes: ...


class Bell(threading.Event):
    """Rung by paramiko's buffers. They also `clear` it when one of them is empty: that is not theirs to say."""

    def clear(self) -> None:
        """Ignored; the pump resets it itself, before it drains."""

    def reset(self) -> None:
        """Silent until the next ring."""
        super().clear()


class OutOfTime(Exception):
    """The time given to `Pump.run` is over."""


class ChannelEnded(ConnectionLost):
    """The other side closed the channel, or the connection under it."""


class Pump:
    """Moves bytes between a channel and its two listeners (stdout, stderr)."""

    def __init__(self, channel: Pipe, bell: Bell, wire: Wire, ping: Callable[[], None], host: str) -> None:
        self._channel = channel
        self._bell = bell
        self._wire = wire
        self._ping = ping
        self._host = host
        self._asked = 0.0  # when the host was last asked whether it is there
        self.listeners: tuple[Callable[[bytes], None], Callable[[bytes], None]] = (_nobody, _nobody)

    def run(self, data: bytes, until: Callable[[], bool] | None, *, seconds: float) -> None:
        """Sends `data` and listens until `until()`; without one, until all is sent.

        Raises OutOfTime after `seconds`, ConnectionLost when the channel ends first or the host falls silent.
        """
        deadline = time.monotonic() + seconds
        quiet_from = time.monotonic()
        sent = 0
        while True:
            self._bell.reset()
            ended = self._channel.closed or self._channel.eof_received  # looked at before draining: nothing is missed
            heard = self._drain()
            if until is None and sent >= len(data):
                return
            if until is not None and until():
                self._wire.turn()
                return
            if ended and not heard:
                raise ChannelEnded(
                    f"{self._host}: the connection ended while work was under way",
                    hint="did the host reboot, or was the shell there killed? Run again: what is done stays done",
                )
            if time.monotonic() > deadline:
                raise OutOfTime
            self._watch(quiet_from)
            if sent < len(data) and not ended:
                sent += self._send(data[sent : sent + _PIECE])
            elif not heard:
                self._bell.wait(min(1.0, max(0.0, deadline - time.monotonic())))

    def _drain(self) -> bool:
        heard = False
        while self._channel.recv_ready():
            piece = self._channel.recv(_READ)
            if not piece:
                break
            heard = True
            self.listeners[0](piece)
        while self._channel.recv_stderr_ready():
            piece = self._channel.recv_stderr(_READ)
            if not piece:
                break
            heard = True
            self.listeners[1](piece)
        return heard

    def _send(self, piece: bytes) -> int:
        self._channel.settimeout(_WINDOW_WAIT)
        try:
            return self._channel.send(piece)
        except TimeoutError:
            return 0
        except (OSError, EOFError) as error:
            self._drain()  # the last words, which came before the end
            raise ChannelEnded(f"{self._host}: the connection broke while data was sent ({error})") from error

    def _watch(self, quiet_from: float) -> None:
        """A peer that says nothing for long is asked; one that does not answer that is given up."""
        now = time.monotonic()
        heard = max(self._wire.last_heard, quiet_from)
        if self._asked > heard:
            if now - self._asked > SILENCE_LIMIT - _PING_AFTER:
                raise ConnectionLost(
                    f"{self._host}: the host went silent: nothing heard for {now - heard:.0f} s",
                    hint="is it frozen, rebooting, or cut off? The step that ran may still be running there",
                )
        elif now - heard > _PING_AFTER:
            self._asked = now
            self._ping()


def _nobody(_: bytes) -> None:
    """Output that nobody asked for."""
