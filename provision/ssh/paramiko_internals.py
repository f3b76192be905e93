"""Everything here that depends on paramiko's private or undocumented attributes. Read in paramiko 5.1.0.

No other module of the product uses such an attribute. tests/unit/ssh/test_paramiko_internals.py checks that rule, and
each assumption of this file. If it fails after an upgrade, read the named function in paramiko again.
"""

from __future__ import annotations

import re
import socket
import threading
import time
import weakref
from typing import Any, Protocol

import paramiko
from paramiko.agent import AgentSSH
from paramiko.auth_handler import AuthHandler
from paramiko.buffered_pipe import BufferedPipe
from paramiko.common import (
    MSG_DEBUG,
    MSG_DISCONNECT,
    MSG_IGNORE,
    MSG_KEXINIT,
    MSG_UNIMPLEMENTED,
    cMSG_CHANNEL_REQUEST,
    cMSG_GLOBAL_REQUEST,
    cMSG_UNIMPLEMENTED,
)
from paramiko.message import Message
from paramiko.packet import Packetizer
from paramiko.ssh_exception import MessageOrderError, SSHException

_PACKET_LIMIT = 256 << 10  # bytes; OpenSSH's own limit. Source: packet.h, PACKET_MAX_SIZE
_BANNER_SHOWN = 200  # characters
_BUFFER_LIMIT = 4 << 20  # bytes; paramiko's window is 2 MiB for both outputs together
_WAIT = 1.0  # seconds; closing the connection ends the wait
_IDLE_READS = 16  # of up to 64 KiB each, of one idle connection; then the next idle connection is read


_ALGORITHMS: dict[str, tuple[str, ...]] = {
    kind: tuple(getattr(paramiko.Transport, f"_preferred_{kind}"))
    for kind in ("ciphers", "macs", "keys", "pubkeys", "kex", "compression")
}
# GCM first: it needs one call into OpenSSL for each packet. The other ciphers need two calls, and an HMAC in Python.
_ALGORITHMS["ciphers"] = tuple(sorted(_ALGORITHMS["ciphers"], key=lambda one: "-gcm@" not in one))


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


class Stream(Protocol):
    """What a transport needs from the socket below it. wire.py has the only implementation."""

    def receive(self, seconds: float) -> bytes | None: ...
    def send(self, data: bytes) -> int: ...
    def close(self) -> None: ...


class SessionTransport(paramiko.Transport):
    """The transport of one connection, without a thread of its own.

    paramiko reads and handles messages in a thread for each connection. Here the thread that waits for a message does so:
    it drives the transport (`drive`). `IdleConnections` in wire.py drives connections that no thread waits for. `serve`
    starts a thread for the connection to a gateway, because its users wait in several threads.

    host_key_algorithms   what is offered to the host, best first
    handshake_timeout     seconds for the key exchange

    Relies on: messages reach paramiko's state only through its tables of handlers, and everything that waits does so for
    `clear_to_send`, an event given to the AuthHandler, or the event of a channel that is being opened.
    """

    packetizer: Packets

    def __init__(
        self, sock: Stream, *, host_key_algorithms: tuple[str, ...], handshake_timeout: float, **options: Any
    ) -> None:
        super().__init__(sock, packetizer_class=Packets, **options)  # type: ignore[arg-type]
        # `_key_info` maps the algorithms that paramiko can verify to their key classes.
        self._host_key_algorithms = tuple(one for one in host_key_algorithms if one in self._key_info)  # type: ignore[attr-defined]
        self.handshake_timeout = handshake_timeout  # undocumented; paramiko's default is 15
        self.clear_to_send = _DrivenEvent(self)
        self.served = False
        self.last_driven = time.monotonic()
        self._wire = sock
        self._driving = threading.RLock()  # a handler may wait for an event, and drive
        self._opening: float | None = None

    def start_client(self, event: threading.Event | None = None, timeout: float | None = None) -> None:  # noqa: ARG002
        """Exchange banners and keys. Raises SSHException, EOFError, OSError."""
        self.active = True
        self.completion_event = threading.Event()
        with self._driving:
            try:
                self.packetizer.write_all(f"{self.local_version}\r\n".encode())
                self._check_banner()  # type: ignore[attr-defined]
                self._send_kex_init()  # type: ignore[attr-defined]
                self._expect_packet(MSG_KEXINIT)  # type: ignore[attr-defined]
            except Exception as error:
                self._end(error)
        deadline = time.monotonic() + self.handshake_timeout
        while self.active and not self.initial_kex_done:
            if (left := deadline - time.monotonic()) <= 0:
                self._end(EOFError())
            self.drive(left)
        if not self.active:
            raise self.get_exception() or SSHException("Negotiation failed.")

    def drive(self, seconds: float) -> bool:
        """Handle the messages that have arrived, or wait up to `seconds` for data. Returns whether there were any.

        It waits for a second at most: before that, `drive_idle` may have handled what the caller waits for. Data may be a part of
        a message. An error ends the connection, and is kept for `get_exception`.
        """
        with self._driving:
            self.last_driven = time.monotonic()
            try:
                if self._handle_messages():
                    return True
                if not self.active:
                    return False
                data = self._wire.receive(min(seconds, _WAIT))
                if data is None:
                    return False
                if not data:
                    raise EOFError
                self.packetizer.received += data
                return self._handle_messages()
            except Exception as error:  # paramiko's parsers raise any
                self._end(error)
                return False

    def drive_idle(self) -> None:
        """Handle what has arrived, without waiting. Do nothing while another thread drives the connection."""
        if self._driving.acquire(blocking=False):
            try:
                for _ in range(_IDLE_READS):
                    if not self.drive(0):
                        break
            finally:
                self._driving.release()

    def serve(self) -> None:
        """Start a thread that drives this connection until it ends."""
        self.served = True
        self.start()

    def run(self) -> None:
        """Drive the connection until it ends. paramiko calls this in the thread that `start` creates."""
        while self.active:
            self.drive(_WAIT)

    def _handle_messages(self) -> bool:
        handled = False
        while self.active:
            if self.packetizer.need_rekey() and not self.in_kex:
                self._send_kex_init()  # type: ignore[attr-defined]
            if not self.packetizer.has_message():
                break
            handled = True
            kind, message = self.packetizer.read_message()
            self._handle(kind, message)
        return handled

    def _handle(self, kind: int, message: Message) -> None:
        """Pass a message on to paramiko's handler, as `Transport.run` does."""
        if kind in (MSG_IGNORE, MSG_DEBUG):
            self._enforce_strict_kex(kind)  # type: ignore[attr-defined]
            return
        if kind == MSG_DISCONNECT:
            self._parse_disconnect(message)  # type: ignore[attr-defined]
            self._end(None)
            return
        if expected := self._expected_packet:
            if kind not in expected:
                unexpected = MessageOrderError if self.agreed_on_strict_kex else SSHException  # type: ignore[attr-defined]
                raise unexpected(f"the host sent message {kind} instead of one of {expected}")
            self._expected_packet: tuple[int, ...] = ()
            if 30 <= kind <= 41:  # the meaning of these numbers depends on the method of the key exchange
                assert self.kex_engine is not None
                self.kex_engine.parse_next(kind, message)
                return
        if (handler := self._handler_table.get(kind)) is not None:  # type: ignore[attr-defined]
            handler(message)
        elif (channel_handler := self._channel_handler_table.get(kind)) is not None:  # type: ignore[attr-defined]
            number = message.get_int()
            channel = self._channels.get(number)  # type: ignore[attr-defined]
            if channel is not None:
                channel_handler(channel, message)
            elif number not in self.channels_seen:
                raise SSHException(f"the host sent data for channel {number}, which was never opened")
        elif self.auth_handler is not None and kind in self.auth_handler._handler_table:  # type: ignore[attr-defined]
            self.auth_handler._handler_table[kind](message)  # type: ignore[attr-defined]
        elif kind != MSG_UNIMPLEMENTED:
            answer = Message()
            answer.add_byte(cMSG_UNIMPLEMENTED)
            answer.add_int(message.seqno)
            self._send_message(answer)  # type: ignore[attr-defined]

    def _end(self, error: Exception | None) -> None:
        """Close the connection, and wake every thread that waits for it, as `Transport.run` does at its end."""
        if error is not None:
            self.saved_exception = error
        was_active, self.active = self.active, False
        for channel in list(self._channels.values()):  # type: ignore[attr-defined]
            channel._unlink()
        if was_active:
            self.packetizer.close()
            if self.completion_event is not None:
                self.completion_event.set()
            if self.auth_handler is not None:
                self.auth_handler.abort()
            for event in list(self.channel_events.values()):
                event.set()
        self._wire.close()

    def open_session(
        self, window_size: int | None = None, max_packet_size: int | None = None, timeout: float | None = None
    ) -> paramiko.Channel:
        """Open a channel, as paramiko does. Raises SSHException, ChannelException, EOFError, OSError."""
        self._opening = timeout
        return super().open_session(window_size, max_packet_size, timeout)

    def _send_user_message(self, data: Message) -> None:
        """Send a message. Wait for the answer to a request to open a channel: `open_channel` itself waits without driving."""
        super()._send_user_message(data)  # type: ignore[misc]
        if self._opening is None or self.served:
            return
        deadline = time.monotonic() + self._opening
        self._opening = None
        while self.channel_events and self.active and (left := deadline - time.monotonic()) > 0:
            self.drive(left)

    def _parse_kex_init(self, m: Message) -> None:
        """Keep what the host offers, before paramiko compares it. `m` begins after the message's type."""
        self.offered_by_host: dict[str, list[str]] = self._really_parse_kex_init(m)  # type: ignore[attr-defined]
        m.rewind()
        super()._parse_kex_init(m)  # type: ignore[misc]

    def _filter_algorithm(self, type_: str) -> tuple[str, ...]:
        """The algorithms of one kind. paramiko filters its lists at each of twenty calls; here no algorithm is disabled."""
        return _ALGORITHMS[type_]

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        """Only the given algorithms. paramiko would add all certificate types; host_keys.py names those that are needed."""
        return self._host_key_algorithms

    def auth_publickey(self, username: str, key: paramiko.PKey, event: Any = None) -> list[str]:
        """Authenticate as paramiko does, with the eager handler. Raises SSHException and its subclasses.

        paramiko's own method creates an AuthHandler by name, so the method is repeated here.
        """
        if not self.is_active() or not self.initial_kex_done:
            raise SSHException("No existing session")
        answered = event or _DrivenEvent(self)
        self.auth_handler = EagerAuthHandler(self)
        self.auth_handler.auth_publickey(username, key, answered)
        if event is not None:
            return []
        answer: list[str] = self.auth_handler.wait_for_response(answered)
        return answer

    def ping(self) -> None:
        """Send a request that the host must answer, as `global_request` does. Do not wait; a refusal is an answer too."""
        request = Message()
        request.add_byte(cMSG_GLOBAL_REQUEST)
        request.add_string("keepalive@openssh.com")
        request.add_boolean(True)
        self._send_user_message(request)

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
        self._send_user_message(request)


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


class _DrivenEvent(threading.Event):
    """An event of a transport. The thread that waits for it drives the transport meanwhile."""

    def __init__(self, transport: SessionTransport) -> None:
        super().__init__()
        self._transport: SessionTransport = weakref.proxy(transport)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the event is set, the connection has ended, or `timeout` seconds have passed."""
        if self._transport.served:
            return super().wait(timeout)
        deadline = time.monotonic() + (_WAIT if timeout is None else timeout)
        while not self.is_set() and self._transport.active and (left := deadline - time.monotonic()) > 0:
            self._transport.drive(left)
        return self.is_set()


class Packets(Packetizer):
    """Reads packets from `received`, so that reading never waits. `has_message`: whether the next packet is complete.

    A packet that is longer than any packet of a server is refused: paramiko would read the whole packet into memory.
    Relies on: `read_message` reads each packet through `read_all`, and decrypts the first block of a packet whose length
    is encrypted with one call of the engine's `update`.
    """

    def __init__(self, sock: Stream) -> None:
        super().__init__(sock)  # type: ignore[arg-type]
        self.received = bytearray()
        self._wire = sock
        self._first_block: _FirstBlock | None = None

    def set_inbound_cipher(self, block_engine: Any, *arguments: Any, **options: Any) -> None:
        """Keep what `has_message` needs: with `etm` and `aead` a packet's length is plain, otherwise it is encrypted."""
        self._first_block = None
        if not options["etm"] and not options["aead"]:
            block_engine = self._first_block = _FirstBlock(block_engine)
        super().set_inbound_cipher(block_engine, *arguments, **options)

    def has_message(self) -> bool:
        """Whether `read_message` can be called. Raises SSHException when the next packet is too long."""
        size: int = self._Packetizer__block_size_in  # type: ignore[attr-defined]
        if len(self.received) < size:
            return False
        block = bytes(self.received[:size])
        if self._first_block is not None:
            block = self._first_block.peek(block)
        length = int.from_bytes(block[:4], "big")
        if length > _PACKET_LIMIT:
            raise SSHException(f"the host announced a packet of {length} bytes")
        return len(self.received) >= max(size, 4 + length + self.get_mac_size_in())

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:  # noqa: ARG002
        """The next n bytes. They have been received already."""
        if n > len(self.received):
            raise SSHException("the host sent a packet of a wrong length")
        data = bytes(self.received[: max(n, 0)])
        del self.received[: max(n, 0)]
        return data

    def readline(self, timeout: float) -> str:
        """A line of the banner. All lines together must arrive within the time for the first one. Raises TimeoutError."""
        self._banner_ends: float = getattr(self, "_banner_ends", time.monotonic() + timeout)
        while b"\n" not in self.received:
            if (left := self._banner_ends - time.monotonic()) <= 0:
                raise TimeoutError("it takes too long" if self.received else "")
            if (data := self._wire.receive(left)) == b"":
                raise EOFError
            self.received += data or b""
        line, _, rest = self.received.partition(b"\n")
        self.received = rest
        return line.removesuffix(b"\r").decode("utf-8", "replace")


class _FirstBlock:
    """A cipher that can decrypt the next block before it is read."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._block = b""  # decrypted, and not read yet

    def peek(self, block: bytes) -> bytes:
        """The decrypted block. The data of the next `update` begins with this block."""
        self._block = self._block or self._engine.update(block)
        return self._block

    def update(self, data: bytes) -> bytes:
        """Decrypt the data, except for the block that `peek` has decrypted already."""
        block, self._block = self._block, b""
        rest: bytes = self._engine.update(data[len(block) :])
        return block + rest


class SocketState:
    """The private attribute that paramiko reads from the socket under a transport.

    `Transport.stop_thread` polls `sock._closed` while it waits for its reader thread to end.
    """

    def __init__(self) -> None:
        self._closed = False

    def mark_closed(self) -> None:
        """End paramiko's wait for its reader thread."""
        self._closed = True


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


def room_to_write(channel: paramiko.Channel) -> bool:
    """Whether the host accepts data on the channel. `Channel.send` would wait for room without driving its transport."""
    return bool(channel.out_window_size)


def wait_for_exit(transport: SessionTransport, channel: paramiko.Channel, seconds: float) -> int | None:
    """The exit code of the channel's program; None when it is not known after `seconds`."""
    deadline = time.monotonic() + seconds
    while not channel.status_event.is_set() and transport.active and (left := deadline - time.monotonic()) > 0:
        transport.drive(left)
    return channel.exit_status if channel.exit_status >= 0 else None
