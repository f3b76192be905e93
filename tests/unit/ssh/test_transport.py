"""The transport without a thread: ciphers, new keys, idle connections, data in both directions at once."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from paramiko.common import MSG_CHANNEL_REQUEST, MSG_GLOBAL_REQUEST
from paramiko.message import Message
from paramiko.packet import Packetizer

from provision.errors import ConnectionLost, ProvisionError
from provision.shell import Command, sh
from provision.ssh import connect
from provision.ssh import wire as wire_module
from provision.ssh.paramiko_internals import SessionTransport
from provision.ssh.shell_session import ShellSession
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from tests.unit.ssh.conftest import Sshd

MEGABYTES = 8_000_000


def transfers(session: ShellSession, size: int = MEGABYTES) -> None:
    """Sends that many bytes, and receives them again while the rest is being sent."""
    data = bytes(range(256)) * (size // 256)
    assert session.run(Command("cat", data), deadline=60).stdout == data


@contextmanager
def opened(target: object) -> Iterator[ShellSession]:
    """A session without the lock."""
    session = connect(target, lock=False, who="test")  # type: ignore[arg-type]
    try:
        yield session
    finally:
        session.close()


def test_open_connections_have_no_threads(sshd: Sshd) -> None:
    """One thread drives all idle connections. It ends when no connection is left."""
    before = {one for one in threading.enumerate() if one.name != "idle connections"}
    sessions = [connect(sshd.target(), lock=False, who="test") for _ in range(6)]
    for one in sessions:
        assert one.ask([sh("echo ok")], deadline=10)[0].text == "ok\n"
    assert [one.name for one in set(threading.enumerate()) - before] == ["idle connections"]
    for one in sessions:
        one.close()
    wait_for(lambda: set(threading.enumerate()) <= before, "the thread has ended")


@pytest.mark.parametrize(
    ("cipher", "mac"),
    [
        ("aes256-gcm@openssh.com", "hmac-sha2-256"),
        ("aes128-ctr", "hmac-sha2-256-etm@openssh.com"),
        ("aes128-ctr", "hmac-sha2-256"),
        ("aes256-cbc", "hmac-sha2-512"),
    ],
)
def test_every_kind_of_cipher(sshd_factory: Callable[..., Sshd], cipher: str, mac: str) -> None:
    """Data in both directions at once, with ciphers that leave the length of a packet plain, and with those that encrypt it."""
    with opened(sshd_factory(f"Ciphers {cipher}", f"MACs {mac}").target()) as session:
        transfers(session)


def test_packets_arrive_in_pieces(sshd_factory: Callable[..., Sshd]) -> None:
    """A few bytes arrive at a time, so that most packets are cut, some of them within the first block."""
    sshd = sshd_factory("Ciphers aes128-ctr", "MACs hmac-sha2-256")

    def pass_on(source: socket.socket, sink: socket.socket, size: int) -> None:
        with suppress(OSError):  # the client has closed the connection
            while data := source.recv(size):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client = server.accept()[0]
            host = socket.create_connection(("127.0.0.1", sshd.port))
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with client, host:
                up = threading.Thread(target=pass_on, args=(client, host, 4096))
                up.start()
                pass_on(host, client, 5)
                up.join()

        thread = threading.Thread(target=serve)
        thread.start()
        target = sshd.target(port=server.getsockname()[1], host_key=sshd.public())
        with opened(target) as session:
            transfers(session, 20_000)
        thread.join(10)


@pytest.mark.slow
def test_the_host_asks_for_new_keys(sshd_factory: Callable[..., Sshd]) -> None:
    """The host requests them every 300 KB, during a transfer in both directions."""
    with opened(sshd_factory("RekeyLimit 300K").target()) as session:
        transfers(session)
        transfers(session)


def test_we_request_new_keys(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """This side requests them after it has sent or received a number of bytes."""
    monkeypatch.setattr(Packetizer, "REKEY_BYTES", 300_000)
    with opened(sshd.target()) as session:
        first = session._connection.transport.H  # type: ignore[attr-defined]
        transfers(session)
        assert first != session._connection.transport.H  # type: ignore[attr-defined]
        transfers(session)


@pytest.mark.slow
def test_an_idle_connection_answers_the_host(
    sshd_factory: Callable[..., Sshd], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread waits for the connection. sshd sends a third request only after an answer to the first two.

    Meanwhile it requests new keys.
    """
    handle, requests = SessionTransport._handle, []

    def record(self: SessionTransport, kind: int, message: Message) -> None:
        requests.extend([kind] if kind in (MSG_GLOBAL_REQUEST, MSG_CHANNEL_REQUEST) else [])
        handle(self, kind, message)

    monkeypatch.setattr(SessionTransport, "_handle", record)
    sshd = sshd_factory("ClientAliveInterval 2", "ClientAliveCountMax 1", "RekeyLimit default 3")
    with opened(sshd.target()) as session:
        session.ready()
        first = session._connection.transport.H  # type: ignore[attr-defined]
        before = len(requests)
        wait_for(lambda: len(requests) >= before + 3, "sshd has sent three requests", 30)
        wait_for(lambda: first != session._connection.transport.H, "there are new keys")  # type: ignore[attr-defined]
        assert session._connection.is_open
        assert session.ask([sh("echo ok")], deadline=10)[0].text == "ok\n"


def test_the_end_of_an_idle_connection_is_noticed(sshd_factory: Callable[..., Sshd]) -> None:
    """The end is noticed while no thread waits. The next question raises an error that reports it."""
    with opened(sshd_factory("ForceCommand sleep 0.5; kill $PPID").target()) as session:
        wait_for(lambda: not session._connection.is_open, "the end is noticed")
        with pytest.raises(ProvisionError, match="web1"):
            session.ask([sh("echo ok")], deadline=5)


def test_an_answer_that_another_thread_handled_is_noticed(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread of idle connections is faster than one that the machine is too busy to run: nobody waits in vain."""
    drive, slow = SessionTransport.drive, threading.Event()

    def late(self: SessionTransport, seconds: float) -> bool:
        if threading.current_thread() is threading.main_thread() and self.channel_events and not slow.is_set():
            slow.set()
            wait_for(lambda: not self.channel_events, "the answer is handled")
        return drive(self, seconds)

    monkeypatch.setattr(SessionTransport, "drive", late)
    started = time.monotonic()
    with opened(sshd.target()) as session:
        assert session.ask([sh("echo ok")], deadline=10)[0].text == "ok\n"
    assert slow.is_set()
    assert time.monotonic() - started < 15


def test_an_abort_ends_a_wait_at_once(sshd: Sshd) -> None:
    """The thread that waits is woken by the closed socket."""
    session = connect(sshd.target(), lock=False, who="test")
    session.ready()
    timer = threading.Timer(0.5, session.abort)
    timer.start()
    started = time.monotonic()
    with pytest.raises(ConnectionLost):
        session.run(sh("sleep 30"), deadline=60)
    assert time.monotonic() - started < 5
    timer.join()
    session.close()


def test_a_host_that_accepts_nothing_until_its_output_is_read() -> None:
    """While sending is blocked, what arrives is collected in order, up to a limit. Nothing is lost."""
    ours, theirs = socket.socketpair()
    size = 3_000_000

    def talk() -> None:
        theirs.sendall(bytes(range(250)) * (size // 250))  # blocks until it is read
        received = 0
        while received < size:
            received += len(theirs.recv(65536))
        theirs.close()

    wire = wire_module.Wire(ours)
    wire.login_complete()
    thread = threading.Thread(target=talk)
    thread.start()
    left = size
    while left:
        left -= wire.send(bytes(left))
    received = b""
    while data := wire.receive(10):
        received += data
    assert received == bytes(range(250)) * (size // 250)
    thread.join(10)
    wire.close()
    assert not thread.is_alive()
