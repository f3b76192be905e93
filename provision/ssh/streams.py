"""Transfer over a channel: stdin is written and both outputs are read in one loop, with a deadline and a watchdog.

Reading one output to its end before the other would deadlock as soon as 2 MiB wait on the second. Here one thread reads
and writes; paramiko's reader thread sets an event when data has arrived.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import paramiko

from provision.errors import ConnectionLost
from provision.ssh.paramiko_internals import DataEvent, notify_on_data, output_ended
from provision.ssh.wire import SILENCE_LIMIT, Wire

_WRITE_SIZE = 32_000  # bytes per write: one SSH packet, so that paramiko does not slice it again
_READ_SIZE = 1 << 20
_READ_LIMIT = 4 << 20  # bytes of one output that are read before the deadline and the other output are looked at again
_PING_AFTER = 10.0  # seconds of silence before the host is pinged
_WINDOW_WAIT = 0.05  # seconds to wait for room to write before reading the outputs again


class TransferTimeout(Exception):
    """The time given to `Pump.run` is over."""


class ChannelEnded(ConnectionLost):
    """The host closed the channel or the connection."""


class Pump:
    """Moves bytes between a channel and two receivers: one for stdout, one for stderr.

    `ping` requests an answer from the host; `label` names the host in messages.
    """

    def __init__(
        self,
        channel: paramiko.Channel,
        wire: Wire,
        ping: Callable[[], None],
        receivers: tuple[Callable[[bytes], None], Callable[[bytes], None]],
        label: str,
    ) -> None:
        self._channel = channel
        self._data_arrived = DataEvent()
        notify_on_data(channel, self._data_arrived)
        self._wire = wire
        self._ping = ping
        self._pinged = 0.0  # monotonic seconds of the last ping
        self._receivers = receivers
        self._label = label

    def run(self, data: bytes, until: Callable[[], bool] | None, *, seconds: float) -> None:
        """Write `data` and read until `until()` is true; without a condition, until all is written.

        Raises TransferTimeout after `seconds`, also while the host sends without pause; ChannelEnded when the channel
        ends first; ConnectionLost when the host does not answer a ping; and what a receiver raises.
        """
        deadline = time.monotonic() + seconds
        started = time.monotonic()
        sent = 0
        while True:
            self._data_arrived.reset()
            ended = output_ended(self._channel)  # read before draining, so that no data is missed
            received = self._drain()
            if until is None and sent >= len(data):
                return
            if until is not None and until():
                self._wire.count_round_trips()
                return
            if ended and not received:
                raise ChannelEnded(
                    f"{self._label}: the connection ended before the command did",
                    hint="check whether the host rebooted or the shell was killed; rerun the command:"
                    " completed steps are not repeated",
                )
            if time.monotonic() > deadline:
                raise TransferTimeout
            self._watch(started)
            if sent < len(data) and not ended:
                sent += self._write(data[sent : sent + _WRITE_SIZE])
            elif not received:
                self._data_arrived.wait(min(1.0, max(0.0, deadline - time.monotonic())))

    def _drain(self) -> bool:
        """Pass on received data, up to _READ_LIMIT: a host may send faster than this reads. Returns whether there was any."""
        channel = self._channel
        on_stdout, on_stderr = self._receivers
        outputs = (
            (channel.recv_ready, channel.recv, on_stdout),
            (channel.recv_stderr_ready, channel.recv_stderr, on_stderr),
        )
        received = False
        for ready, receive, pass_on in outputs:
            size = 0
            while size < _READ_LIMIT and ready() and (piece := receive(_READ_SIZE)):
                size += len(piece)
                received = True
                pass_on(piece)
        return received

    def _write(self, piece: bytes) -> int:
        self._channel.settimeout(_WINDOW_WAIT)
        try:
            return self._channel.send(piece)
        except TimeoutError:
            return 0
        except (OSError, EOFError) as error:
            self._drain()  # the output that arrived before the end
            raise ChannelEnded(f"{self._label}: the connection broke while data was sent ({error})") from error

    def _watch(self, started: float) -> None:
        """Ping a host that has been silent for long. Raises ConnectionLost when it does not answer."""
        now = time.monotonic()
        last = max(self._wire.last_received, started)
        if self._pinged > last:
            if now - self._pinged > SILENCE_LIMIT - _PING_AFTER:
                raise ConnectionLost(
                    f"{self._label}: the host stopped answering: nothing received for {now - last:.0f} s",
                    hint="check whether the host is frozen, rebooting or disconnected;"
                    " the running step may continue there",
                )
        elif now - last > _PING_AFTER:
            self._pinged = now
            self._ping()
