"""The socket below a connection, the transfer over a channel, and the connections that no thread waits for.

The socket counts its bytes. It limits how long a write may block: paramiko repeats a blocked write without end.

The transfer writes stdin and reads both outputs in one loop, with a deadline and a watchdog. Reading one output to its end
before the other one would deadlock when 2 MiB wait in the second. One thread does all of this: it drives the transport
(see `SessionTransport`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Protocol

import paramiko

from provision.errors import ConnectionLost
from provision.ssh.dial import SILENCE_LIMIT
from provision.ssh.paramiko_internals import SessionTransport, SocketState, limit_buffers, output_ended, room_to_write
from provision.ssh.session import Traffic

_LOGIN_LIMIT = 256 << 10  # bytes that a host may send before the login is complete; usual are 3 to 8 KiB
_BEGINNING = 200  # bytes
_HELPER_ENDS = 0.5  # seconds for a ProxyCommand to end after SIGHUP
_POLL_INTERVAL = 0.5  # seconds; closing ends a wait at once
_CHANNEL_WAIT = 0.1  # seconds to wait for room in a gateway's channel before reading from it
_RECEIVED = 64 << 10  # bytes that are received at once
_COLLECTED = 4 << 20  # bytes that are received while the host accepts no data

# The transfer over a channel:
_WRITE_SIZE = 32_000  # bytes per write: one SSH packet, so that paramiko does not slice it again
_READ_SIZE = 1 << 20
_READ_LIMIT = 4 << 20  # bytes of one output that are read before the deadline and the other output are checked again
_PING_AFTER = 10.0  # seconds of silence before the host is pinged

# Connections that no thread waits for:
_IDLE_INTERVAL = 1.0  # seconds between two reads of a connection; sshd's ClientAliveInterval is usually 15 or more
_IDLE_SEND_LIMIT = 1.0  # seconds that sending may take: the other idle connections wait meanwhile


class Stream(Protocol):
    """A TCP socket, one end of a socket pair, or a channel through a gateway."""

    def send(self, data: bytes, /) -> int: ...
    def recv(self, size: int, /) -> bytes: ...
    def settimeout(self, seconds: float, /) -> None: ...
    def close(self) -> None: ...


class Wire(SocketState):
    """A stream that counts its bytes and round trips.

    traffic         bytes in both directions, and round trips
    last_received   monotonic time in seconds of the last byte received
    idle_thread     the id of the thread of `IdleConnections`: its writes have a shorter time limit
    beginning       the first bytes that the host sent: an SSH server's banner, or what another server sent in its place

    The code that waits for an answer counts the round trip (`count_round_trips`): the bytes alone do not show whether a
    message is an answer.
    """

    def __init__(self, stream: Stream, helper: subprocess.Popen[bytes] | None = None) -> None:
        super().__init__()
        self.traffic = Traffic()
        self.last_received = time.monotonic()
        self.beginning = b""
        self.idle_thread: int | None = None
        self._stream = stream
        self._helper = helper
        self._ending_helper = threading.Lock()
        self._discards = False
        self._logged_in = False
        self._collected = bytearray()
        self._ended = False  # while bytes were collected
        self._receiving = threading.Lock()
        self._socket = stream if isinstance(stream, socket.socket) else None
        if self._socket is not None:
            self._socket.setblocking(False)
            self._readable = select.poll()
            self._readable.register(self._socket, select.POLLIN)

    def send(self, data: bytes) -> int:
        """Wait until the host accepts data, and send as much of `data` as it accepts. Returns the number of bytes.

        What the host sends meanwhile is collected for `receive`: some hosts accept nothing until their output is read.
        Raises OSError when the host has neither accepted nor sent anything for SILENCE_LIMIT seconds, and when it has sent
        but accepted nothing for twice that time.
        """
        if self._discards:
            return len(data)
        blocked_since: float | None = None
        while True:
            try:
                if self._socket is None:
                    self._stream.settimeout(_CHANNEL_WAIT)
                count = self._stream.send(data)
            except (BlockingIOError, TimeoutError):
                now = time.monotonic()
                blocked_since = blocked_since or now
                if now - max(blocked_since, self.last_received) > SILENCE_LIMIT:
                    raise OSError("the host accepts no more data and sends none") from None
                is_idle = self.idle_thread == threading.get_ident()
                if now - blocked_since > (_IDLE_SEND_LIMIT if is_idle else 2 * SILENCE_LIMIT):
                    raise OSError("the host accepts no more data") from None
                self._wait_for_room()
                continue
            self.traffic.bytes_sent += count
            return count

    def _wait_for_room(self) -> None:
        """Wait until the host may accept data. Collect what arrives, unless another thread receives: bytes keep their order."""
        mine = self._receiving.acquire(blocking=False)
        try:
            collects = mine and len(self._collected) < _COLLECTED and not self._ended
            if self._socket is not None:
                room = select.poll()
                room.register(self._socket, select.POLLOUT | (select.POLLIN if collects else 0))
                room.poll(_POLL_INTERVAL * 1000)
            if collects and (data := self._receive_now()) is not None:
                self._collected += data
                self._ended = not data
        finally:
            if mine:
                self._receiving.release()

    def receive(self, seconds: float) -> bytes | None:
        """What has arrived; b"" at the end of the connection; None if nothing arrives within `seconds`.

        Raises OSError when the host sends too much before the login is complete.
        """
        with self._receiving:
            if self._collected:
                data, self._collected = bytes(self._collected), bytearray()
                return data
            if self._ended:
                return b""
            if self._socket is None:
                self._stream.settimeout(seconds)
                return self._receive_now()
            if seconds > 0 and not self._closed and not self._readable.poll(seconds * 1000):
                return None
            return self._receive_now()

    def _receive_now(self) -> bytes | None:
        try:
            data = self._stream.recv(_RECEIVED)
        except (BlockingIOError, TimeoutError):
            return None
        if data:
            self.last_received = time.monotonic()
            if len(self.beginning) < _BEGINNING:
                self.beginning += data[:_BEGINNING]
            self.traffic.bytes_received += len(data)
            if not self._logged_in and self.traffic.bytes_received > _LOGIN_LIMIT:
                # With a number, as every OSError of the system.
                raise OSError(errno.EMSGSIZE, f"the host sent more than {_LOGIN_LIMIT >> 10} KiB before the login")
        return data

    def login_complete(self) -> None:
        """The host has accepted the login: it may send more now."""
        self._logged_in = True

    def discard_output(self) -> None:
        """Send nothing from now on: closing must not wait for paramiko's last messages."""
        self._discards = True

    def count_round_trips(self, count: int = 1) -> None:
        """Count answers that the caller had to wait for."""
        self.traffic.round_trips += count

    def settimeout(self, seconds: float) -> None:
        """Do nothing: paramiko sets its polling interval, which is not needed here."""

    def close(self) -> None:
        """Close the stream and wake the thread that is blocked in `recv`."""
        self.mark_closed()
        if isinstance(self._stream, socket.socket):
            with contextlib.suppress(OSError):  # already disconnected
                self._stream.shutdown(socket.SHUT_RDWR)
        self._stream.close()
        if self._helper is not None:
            with self._ending_helper:
                _end(self._helper)


def _end(helper: subprocess.Popen[bytes]) -> None:
    """End a ProxyCommand with the processes it started, and reap it. OpenSSH sends SIGHUP too."""
    for number in (signal.SIGHUP, signal.SIGKILL):
        if helper.returncode is not None:
            return
        # Not reaped yet, so the process group still has this number. One of another user (sudo) ends with its input.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(helper.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            helper.wait(_HELPER_ENDS)


def run_proxy_command(command: str) -> Wire:
    """Start a ProxyCommand with the user's shell, as OpenSSH does; its standard input and output are one socket.

    It has a session of its own: Ctrl-C in the terminal must not end the connection while the run finishes its step.
    paramiko's own ProxyCommand waits for a timeout on each read.
    """
    own_end, helper_end = socket.socketpair()
    with helper_end:
        helper = subprocess.Popen(
            [os.environ.get("SHELL") or "/bin/sh", "-c", f"exec {command}"],
            stdin=helper_end.fileno(),
            stdout=helper_end.fileno(),
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    wire = Wire(own_end, helper)
    wire.count_round_trips()
    return wire


class TransferTimeout(Exception):
    """The time given to `Pump.run` is over."""


class ChannelEnded(ConnectionLost):
    """The host closed the channel or the connection."""


class Pump:
    """Moves bytes between a channel and two receivers: one for stdout, one for stderr.

    `label` names the host in messages.
    """

    def __init__(
        self,
        channel: paramiko.Channel,
        wire: Wire,
        transport: SessionTransport,
        receivers: tuple[Callable[[bytes], None], Callable[[bytes], None]],
        label: str,
    ) -> None:
        self._channel = channel
        limit_buffers(channel)
        self._wire = wire
        self._transport = transport
        self._pinged = 0.0  # monotonic seconds of the last ping
        self._receivers = receivers
        self._label = label

    def run(
        self,
        data: bytes,
        until: Callable[[], bool] | None,
        *,
        seconds: float | Callable[[], float],
        further: Callable[[], bytes] = lambda: b"",
    ) -> None:
        """Write `data` and read until `until()` is true; without a condition, until all is written.

        seconds  the time limit, or a function that returns the seconds that are left
        further  is called about once per second after `data` was written; what it returns is written too

        Raises TransferTimeout after `seconds`, also while the host sends without pause; ChannelEnded when the channel
        ends first; ConnectionLost when the host does not answer a ping; and what a receiver raises.
        """
        started = time.monotonic()
        left = seconds if callable(seconds) else lambda: started + seconds - time.monotonic()
        sent = 0
        while True:
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
            if (remaining := left()) < 0:
                raise TransferTimeout
            self._watch(started)
            if sent >= len(data):
                data, sent = further(), 0
            if sent < len(data) and not ended and room_to_write(self._channel):
                sent += self._write(data[sent : sent + _WRITE_SIZE])
                self._transport.drive(0)
            elif not received:
                self._transport.drive(min(1.0, remaining))

    def _drain(self) -> bool:
        """Pass on received data. Returns whether there was any. The limit matters where a host sends faster than we read."""
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
        try:
            return self._channel.send(piece)
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
            self._transport.ping()


class IdleConnections:
    """One thread drives all connections that no other thread waits for: those of hosts that wait for other hosts.

    sshd may request an answer (ClientAliveInterval) or new keys (RekeyLimit), and ends a connection that does not answer.
    """

    def __init__(self) -> None:
        self._wires: dict[SessionTransport, Wire] = {}
        self._lock = threading.Lock()
        self._running = False

    def add(self, transport: SessionTransport, wire: Wire) -> None:
        """Drive this connection from now on, whenever it is idle."""
        with self._lock:
            self._wires[transport] = wire
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="idle connections", daemon=True).start()

    def remove(self, transport: SessionTransport) -> None:
        """Stop driving a connection: it is closed, or a thread of its own drives it."""
        with self._lock:
            self._wires.pop(transport, None)

    def _run(self) -> None:
        while True:
            time.sleep(_IDLE_INTERVAL)
            with self._lock:
                if not self._wires:
                    self._running = False
                    return
                connections = list(self._wires.items())
            for transport, wire in connections:
                if time.monotonic() - transport.last_driven > _IDLE_INTERVAL:
                    wire.idle_thread = threading.get_ident()
                    transport.drive_idle()


idle_connections = IdleConnections()
