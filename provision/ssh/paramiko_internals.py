"""Everything here that depends on paramiko's private or undocumented attributes. Read in paramiko 5.1.0.

No other module of the product uses such an attribute. tests/unit/ssh/test_paramiko_internals.py checks that rule, and
each assumption of this file. If it fails after an upgrade, read the named function in paramiko again.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from typing import Any

import paramiko
from paramiko.agent import AgentSSH
from paramiko.auth_handler import AuthHandler
from paramiko.buffered_pipe import BufferedPipe
from paramiko.common import cMSG_CHANNEL_REQUEST, cMSG_GLOBAL_REQUEST
from paramiko.message import Message
from paramiko.packet import Packetizer
from paramiko.ssh_exception import SSHException

_PACKET_LIMIT = 256 << 10  # bytes; OpenSSH's own limit. Source: packet.h, PACKET_MAX_SIZE
_BANNER_SHOWN = 200  # characters
_BUFFER_LIMIT = 4 << 20  # bytes; paramiko's window is 2 MiB for both outputs together


class EagerAuthHandler(AuthHandler):
    """Sends the authentication request right after the request for the authentication service (RFC 4252, section 4).

    paramiko waits for the service to be accepted first, which costs a round trip. The server answers both requests in
    order. Relies on: `_request_auth` sends the service request, and `_parse_service_accept` sends the authentication
    request for the service that the given message names.
    """

    def _request_auth(self) -> None:
        super()._request_auth()  # type: ignore[misc]
        accepted = Message()
        accepted.add_string("ssh-userauth")
        accepted.rewind()
        super()._parse_service_accept(accepted)  # type: ignore[misc]

    def _parse_service_accept(self, m: Message) -> None:
        """The authentication request has been sent already."""


class SessionTransport(paramiko.Transport):
    """The transport of one connection.

    host_key_algorithms   what is offered to the host, best first
    handshake_timeout     seconds for the key exchange
    """

    def __init__(
        self, sock: Any, *, host_key_algorithms: tuple[str, ...], handshake_timeout: float, **options: Any
    ) -> None:
        super().__init__(sock, **options)
        self._host_key_algorithms = host_key_algorithms
        self.handshake_timeout = handshake_timeout  # undocumented; paramiko's default is 15
        limit_packets(self.packetizer)

    def _parse_kex_init(self, m: Message) -> None:
        """Keep what the host offers, before paramiko compares it. `m` begins after the message's type."""
        self.offered_by_host: dict[str, list[str]] = self._really_parse_kex_init(m)  # type: ignore[attr-defined]
        m.rewind()
        super()._parse_kex_init(m)  # type: ignore[misc]

    @property
    def preferred_ciphers(self) -> tuple[str, ...]:
        """GCM first: one call into OpenSSL for each packet, instead of two and an HMAC in Python."""
        gcm = [one for one in super().preferred_ciphers if "-gcm@" in one]
        return (*gcm, *(one for one in super().preferred_ciphers if one not in gcm))

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        """Only the given algorithms. paramiko always adds the certificate types; host_keys.py names them when due.

        `_key_info` maps the algorithms that paramiko can verify to their key classes.
        """
        return tuple(one for one in self._host_key_algorithms if one in self._key_info)  # type: ignore[attr-defined]

    def auth_publickey(self, username: str, key: paramiko.PKey, event: Any = None) -> list[str]:
        """Authenticate as paramiko does, with the eager handler. Raises SSHException and its subclasses.

        paramiko's own method creates an AuthHandler by name, so the method is repeated here.
        """
        if not self.is_active() or not self.initial_kex_done:
            raise SSHException("No existing session")
        answered = event or threading.Event()
        self.auth_handler = EagerAuthHandler(self)
        self.auth_handler.auth_publickey(username, key, answered)
        if event is not None:
            return []
        answer: list[str] = self.auth_handler.wait_for_response(answered)
        return answer

    def ping(self) -> None:
        """Request any answer from the host, without waiting for it. A refusal is an answer too.

        The public `global_request` either waits for the answer or asks for none.
        """
        request = Message()
        request.add_byte(cMSG_GLOBAL_REQUEST)
        request.add_string("keepalive@openssh.com")
        request.add_boolean(True)
        self._send_user_message(request)  # type: ignore[attr-defined]

    def execute(self, channel: paramiko.Channel, command: str) -> None:
        """`Channel.exec_command` without waiting for its answer: data sent afterwards is read by the program.

        The server answers requests in order. One that refuses closes the channel (see `request_refused`).
        """
        request = Message()
        request.add_byte(cMSG_CHANNEL_REQUEST)
        request.add_int(channel.remote_chanid)
        request.add_string("exec")
        request.add_boolean(True)
        request.add_string(command)
        channel._event_pending()  # type: ignore[attr-defined]
        self._send_user_message(request)  # type: ignore[attr-defined]


def algorithms_of_host(transport: paramiko.Transport | None) -> tuple[str, list[str], list[str]]:
    """The first kind of algorithm that host and paramiko do not share: its name, the host's list, and paramiko's.

    Empty lists when the host has sent none. At most 20 of its names, without those that RFC 4251 (section 6) forbids.
    """
    offered = getattr(transport, "offered_by_host", None)
    if transport is None or offered is None:
        return "", [], []
    for kind, key, supported in (
        ("key exchange method", "kex_algo_list", transport.preferred_kex),
        ("cipher", "client_encrypt_algo_list", transport.preferred_ciphers),
        ("MAC", "client_mac_algo_list", transport.preferred_macs),
    ):
        theirs = [one for one in offered[key] if not one.startswith(("ext-info-", "kex-strict-"))]
        if not set(theirs) & set(supported):
            return kind, [one for one in theirs if re.fullmatch(r"[!-~]{1,64}", one)][:20], list(supported)
    return "", [], []


def last_banner_line(transport: paramiko.Transport) -> str:
    """The last line that the host sent during the login, or "": why it disconnected, if it says so.

    sshd sends PAM's message as a banner; pam_nologin's, for example, while the host boots or shuts down. A legal notice
    is a banner too. paramiko keeps the last banner, and `Transport.get_banner` returns it only while connected.
    """
    banner = getattr(transport.auth_handler, "banner", None) or b""
    lines = [line.strip() for line in banner.decode("utf-8", "replace").split("\n")]
    return next((line for line in reversed(lines) if line), "")[:_BANNER_SHOWN]


class SocketAgent(AgentSSH):
    """The ssh-agent that listens on a socket. paramiko's own class takes only the one that SSH_AUTH_SOCK names.

    An agent that cannot be contacted has no keys. Relies on: `_connect` reads the list of keys, `_close` disconnects.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(path)
            self._connect(connection)  # type: ignore[attr-defined]
        except (OSError, SSHException):
            connection.close()

    def close(self) -> None:
        """Disconnect from the agent."""
        self._close()  # type: ignore[attr-defined]


def limit_packets(packetizer: Packetizer) -> None:
    """Refuse a packet that is longer than any that a server sends: paramiko would read the whole packet into memory.

    The banner must be complete in the time that paramiko gives to its first line; paramiko gives that time to each
    byte. Relies on: `read_message` reads each packet through `read_all`, and `_check_banner` through `readline`.
    """
    read_all, read_some = packetizer.read_all, packetizer._read_timeout  # type: ignore[attr-defined]
    deadline: float | None = None

    def bounded(n: int, check_rekey: bool = False) -> bytes:
        if n > _PACKET_LIMIT:
            raise SSHException(f"the host announced a packet of {n} bytes")
        data: bytes = read_all(n, check_rekey)
        return data

    def timely(timeout: float) -> bytes:
        nonlocal deadline
        if deadline is None:
            deadline = time.monotonic() + timeout
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("it takes too long")
        data: bytes = read_some(min(timeout, left))
        return data

    packetizer.read_all = bounded  # type: ignore[method-assign]
    packetizer._read_timeout = timely  # type: ignore[attr-defined]


class SocketState:
    """The private attribute that paramiko reads from the socket under a transport.

    `Transport.stop_thread` polls `sock._closed` while it waits for its reader thread to end.
    """

    def __init__(self) -> None:
        self._closed = False

    def mark_closed(self) -> None:
        """Make paramiko stop waiting for its reader thread."""
        self._closed = True


class DataEvent(threading.Event):
    """Set when a channel has received data, or has ended.

    Both buffers of a channel share it. paramiko's `BufferedPipe` clears its event when that one buffer becomes empty,
    although the other may hold data: `clear` does nothing here. The reader calls `reset` before it drains both.
    """

    def clear(self) -> None:
        """Do nothing."""

    def reset(self) -> None:
        """Clear the event."""
        super().clear()


def notify_on_data(channel: paramiko.Channel, event: DataEvent) -> None:
    """Set `event` whenever stdout or stderr of the channel receives data or ends. What waits in them is bounded."""
    channel.in_buffer.set_event(event)
    channel.in_stderr_buffer.set_event(event)
    limit_buffers(channel)


def limit_buffers(channel: paramiko.Channel) -> None:
    """End the connection when more data waits in a channel than its window allows: paramiko does not check this."""
    for buffer in (channel.in_buffer, channel.in_stderr_buffer):
        _limit_buffer(buffer)


def _limit_buffer(buffer: BufferedPipe[Any]) -> None:
    """Relies on: `Channel._feed` and `_feed_extended` pass received data to `feed`, in the transport's thread."""
    feed = buffer.feed

    def bounded(data: bytes) -> None:
        if len(buffer) > _BUFFER_LIMIT:
            raise SSHException("the host sends more than the channel's window allows")
        feed(data)

    buffer.feed = bounded  # type: ignore[method-assign]


def output_ended(channel: paramiko.Channel) -> bool:
    """Whether the channel will receive no more data. Data that arrived before may still wait in its buffers."""
    return bool(channel.closed or channel.eof_received)


def request_refused(channel: paramiko.Channel) -> bool:
    """Whether the server closed the channel instead of accepting `SessionTransport.execute`."""
    return bool(channel.closed and not channel.event_ready)


def wait_for_exit(channel: paramiko.Channel, seconds: float) -> int | None:
    """The exit code of the channel's program; None when it is not known after `seconds`.

    The public `recv_exit_status` has no timeout.
    """
    channel.status_event.wait(seconds)
    return channel.exit_status if channel.exit_status >= 0 else None
