"""The socket under a connection: opening it, socket options, and counting the bytes that it transfers.

paramiko never sets TCP_NODELAY and retries a blocked write without end. Both are corrected here.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from typing import Protocol

from provision.errors import Unreachable
from provision.ssh.paramiko_internals import SocketState
from provision.ssh.session import Traffic

SILENCE_LIMIT = 30.0  # seconds without a received byte, after a request for one, until a host counts as lost
_POLL_INTERVAL = 0.5  # seconds; paramiko polls every 0.1 s, but `close` wakes its reader anyway


class Stream(Protocol):
    """What paramiko needs of a socket: a TCP socket, or a channel through a gateway."""

    def send(self, data: bytes, /) -> int: ...
    def recv(self, size: int, /) -> bytes: ...
    def settimeout(self, seconds: float, /) -> None: ...
    def close(self) -> None: ...


class Wire(SocketState):
    """A stream that counts its bytes and round trips.

    traffic         bytes in both directions, and round trips
    last_received   monotonic time in seconds of the last byte received

    The code that waits for an answer counts the round trip (`count_round_trips`): the bytes alone do not show whether a
    message is an answer.
    """

    def __init__(self, stream: Stream, helper: subprocess.Popen[bytes] | None = None) -> None:
        super().__init__()
        self.traffic = Traffic()
        self.last_received = time.monotonic()
        self._stream = stream
        self._helper = helper
        self._discards = False
        self._blocked_since: float | None = None

    def send(self, data: bytes) -> int:
        """Send some of `data`. Raises OSError when the host has accepted and sent nothing for SILENCE_LIMIT seconds."""
        if self._discards:
            return len(data)
        try:
            count = self._stream.send(data)
        except TimeoutError:
            now = time.monotonic()
            self._blocked_since = self._blocked_since or now
            if now - max(self._blocked_since, self.last_received) > SILENCE_LIMIT:
                raise OSError("the host accepts no more data and sends none") from None
            raise
        self._blocked_since = None
        self.traffic.bytes_sent += count
        return count

    def recv(self, size: int) -> bytes:
        """Receive up to `size` bytes."""
        data = self._stream.recv(size)
        if data:
            self.last_received = time.monotonic()
            self.traffic.bytes_received += len(data)
        return data

    def discard_output(self) -> None:
        """Send nothing from now on: closing must not wait for paramiko's last messages."""
        self._discards = True

    def count_round_trips(self, count: int = 1) -> None:
        """Count answers of the host that had to be waited for."""
        self.traffic.round_trips += count

    def settimeout(self, seconds: float) -> None:
        """Set paramiko's polling interval, but not below _POLL_INTERVAL."""
        self._stream.settimeout(max(seconds, _POLL_INTERVAL))

    def close(self) -> None:
        """Close the stream and wake the thread that is blocked in `recv`."""
        self.mark_closed()
        if isinstance(self._stream, socket.socket):
            with contextlib.suppress(OSError):  # already disconnected
                self._stream.shutdown(socket.SHUT_RDWR)
        self._stream.close()
        if self._helper is not None and self._helper.poll() is None:
            self._helper.terminate()


def run_proxy_command(command: str) -> Wire:
    """Start a ProxyCommand and use its standard input and output as one socket.

    paramiko's own ProxyCommand waits for a timeout on each read.
    """
    own_end, helper_end = socket.socketpair()
    with helper_end:
        helper = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {command}"],
            stdin=helper_end.fileno(),
            stdout=helper_end.fileno(),
            stderr=subprocess.DEVNULL,
        )
    wire = Wire(own_end, helper)
    wire.count_round_trips()
    return wire


def dial(host: str, port: int, *, timeout: float, label: str) -> Wire:
    """Open a TCP connection, trying each address of the name within `timeout` seconds in all.

    `label` names the host in messages ("runner-1 (203.0.113.7)"). Raises Unreachable.
    """
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unreachable(
            f"{label}: the name {host} does not resolve ({error.strerror or error})",
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
        _set_options(connection)
        wire = Wire(connection)
        wire.count_round_trips()
        return wire
    raise _unreachable(label, host, port, timeout, failures) from (failures[-1] if failures else None)


def _set_options(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    limits = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": int(SILENCE_LIMIT * 1000)}
    for name, value in limits.items():
        if option := getattr(socket, name, None):  # not every system has them all
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _unreachable(label: str, host: str, port: int, timeout: float, failures: list[OSError]) -> Unreachable:
    if any(isinstance(error, ConnectionRefusedError) for error in failures):
        return Unreachable(
            f"{label}: port {port} of {host} refused the connection",
            hint=f"check that sshd runs there and listens on port {port}"
            " (`port` in the inventory, Port in ~/.ssh/config)",
        )
    if not failures or all(isinstance(error, TimeoutError) for error in failures):
        return Unreachable(
            f"{label}: no answer from {host} port {port} within {timeout:g} s",
            hint="check that the host is up and that no firewall drops the packets;"
            " connect_timeout in [ssh] sets the time limit",
        )
    return Unreachable(
        f"{label}: cannot connect to {host} port {port}: {failures[-1].strerror or failures[-1]}",
        hint="check the address and the route from this machine",
    )
