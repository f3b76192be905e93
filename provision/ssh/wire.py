"""The socket under a session: without delay, with keepalives, and with a count of what it cost.

paramiko never sets TCP_NODELAY and retries a blocked write for ever; both are put right here.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from typing import Protocol

from provision.errors import Unreachable
from provision.ssh.session import Traffic

SILENCE_LIMIT = 30.0  # seconds without a byte, asked for or not, after which a peer counts as gone
_WAKE_EVERY = 0.5  # paramiko asks for 0.1 s; `close` wakes the reader by itself, so fewer wake-ups do


class Stream(Protocol):
    """What paramiko needs of a socket: a TCP socket, or a channel through a gateway."""

    def send(self, data: bytes, /) -> int: ...
    def recv(self, size: int, /) -> bytes: ...
    def settimeout(self, seconds: float, /) -> None: ...
    def close(self) -> None: ...


class Wire:
    """A counted stream: `traffic`, and `last_heard` (monotonic seconds of the last byte received).

    Round trips are those that were waited for, and are told by whoever waits (`turn`): from the bytes alone
    messages that cross each other cannot be told from an answer.
    """

    def __init__(self, stream: Stream, helper: subprocess.Popen[bytes] | None = None) -> None:
        self.traffic = Traffic()
        self.last_heard = time.monotonic()
        self._closed = False  # paramiko looks at it while it ends its thread
        self._muted = False
        self._stream = stream
        self._helper = helper
        self._blocked_since: float | None = None

    def send(self, data: bytes) -> int:
        """Sends some of `data`; raises OSError when the peer has taken and said nothing for too long."""
        if self._muted:
            return len(data)
        try:
            count = self._stream.send(data)
        except TimeoutError:
            now = time.monotonic()
            self._blocked_since = self._blocked_since or now
            if now - max(self._blocked_since, self.last_heard) > SILENCE_LIMIT:
                raise OSError("the host takes no more data and has gone silent") from None
            raise
        self._blocked_since = None
        self.traffic.bytes_sent += count
        return count

    def recv(self, size: int) -> bytes:
        """Receives."""
        data = self._stream.recv(size)
        if data:
            self.last_heard = time.monotonic()
            self.traffic.bytes_received += len(data)
        return data

    def mute(self) -> None:
        """Nothing is sent any more: paramiko's farewells are heard by nobody who waits for them."""
        self._muted = True

    def turn(self, count: int = 1) -> None:
        """Nothing could go on before the host had answered."""
        self.traffic.round_trips += count

    def settimeout(self, seconds: float) -> None:
        """paramiko's polling interval, stretched."""
        self._stream.settimeout(max(seconds, _WAKE_EVERY))

    def close(self) -> None:
        """Closes and wakes whoever is blocked in `recv`."""
        self._closed = True
        if isinstance(self._stream, socket.socket):
            with contextlib.suppress(OSError):  # not connected any more: nobody to wake
                self._stream.shutdown(socket.SHUT_RDWR)
        self._stream.close()
        if self._helper is not None and self._helper.poll() is None:
            self._helper.terminate()


def through(command: str) -> Wire:
    """A ProxyCommand's standard input and output, as one socket. paramiko's own waits out a timeout on each read."""
    ours, theirs = socket.socketpair()
    with theirs:
        helper = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {command}"],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=subprocess.DEVNULL,
        )
    wire = Wire(ours, helper)
    wire.turn()
    return wire


def dial(host: str, port: int, *, timeout: float, what: str) -> Wire:
    """Opens a TCP connection, trying each of the name's addresses within `timeout` seconds in all.

    Raises Unreachable, in the terms of `what` ("runner-1 (203.0.113.7)").
    """
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unreachable(
            f"{what}: the name {host} does not resolve ({error.strerror or error})",
            hint=f"check `address` in the inventory or HostName in ~/.ssh/config; `getent hosts {host}` must answer",
        ) from error
    deadline = time.monotonic() + timeout
    failures: list[OSError] = []
    for family, kind, protocol, _, address in addresses:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(left)
            connection.connect(address)
        except OSError as error:
            connection.close()
            failures.append(error)
            continue
        _tune(connection)
        wire = Wire(connection)
        wire.turn()
        return wire
    raise _unreachable(what, host, port, timeout, failures) from (failures[-1] if failures else None)


def _tune(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    wanted = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": int(SILENCE_LIMIT * 1000)}
    for name, value in wanted.items():
        if option := getattr(socket, name, None):  # not every system has them all
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _unreachable(what: str, host: str, port: int, timeout: float, failures: list[OSError]) -> Unreachable:
    if any(isinstance(error, ConnectionRefusedError) for error in failures):
        return Unreachable(
            f"{what}: port {port} of {host} refused the connection",
            hint=f"is sshd running there, and on port {port}? `port` in the inventory or Port in ~/.ssh/config",
        )
    if not failures or all(isinstance(error, TimeoutError) for error in failures):
        return Unreachable(
            f"{what}: no answer from {host} port {port} within {timeout:g} s",
            hint="is the host up, and does a firewall let this machine in? connect_timeout in [ssh] gives it longer",
        )
    return Unreachable(
        f"{what}: cannot connect to {host} port {port}: {failures[-1].strerror or failures[-1]}",
        hint="check the address and the route from this machine",
    )
