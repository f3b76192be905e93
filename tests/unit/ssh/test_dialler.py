"""Dialling many hosts in one thread: hosts that do not answer delay no others, and no connection waits for long."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue

import pytest

from provision.errors import Unreachable
from provision.ssh import Target
from provision.ssh import dial as dial_module
from provision.ssh.dial import Dialler
from tests.support.waiting import wait_for
from tests.unit.ssh.test_wire import silent


@contextmanager
def server(banner: bytes = b"SSH-2.0-test\r\n") -> Iterator[tuple[int, list[socket.socket]]]:
    """A server that sends a banner to each client; its port, and the clients. Without a banner it sends nothing."""
    clients: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    client = listener.accept()[0]
                except OSError:
                    return
                clients.append(client)
                client.sendall(banner)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1], clients
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            for one in clients:
                one.close()


class Dialled:
    """A dialler for hosts at these ports: what it reports, in order."""

    def __init__(self, ports: Sequence[int], workers: int, timeout: float = 10.0) -> None:
        self.ready: SimpleQueue[str] = SimpleQueue()
        self.late: list[str] = []
        self.names = [f"h{number}" for number in range(len(ports))]
        targets = {
            name: Target(name, "127.0.0.1", port, connect_timeout=timeout)
            for name, port in zip(self.names, ports, strict=True)
        }
        self.dialler = Dialler(targets, workers)
        self.dialler.start(self.names, self.ready.put, self.late.append)

    def wait(self, count: int, seconds: float = 10) -> list[str]:
        """The next hosts that are ready."""
        return [self.ready.get(timeout=seconds) for _ in range(count)]


@pytest.fixture
def dial() -> Iterator[Callable[..., Dialled]]:
    """Starts diallers, and closes them."""
    made: list[Dialled] = []

    def start(*arguments: object, **options: object) -> Dialled:
        made.append(Dialled(*arguments, **options))  # type: ignore[arg-type]
        return made[-1]

    yield start
    for one in made:
        one.dialler.close()


@pytest.mark.slow
def test_hosts_that_do_not_answer_do_not_delay_the_others(dial: Callable[..., Dialled]) -> None:
    """Of 44 hosts, the first 40 drop packets or send nothing. The other 4 are ready long before these 40 have failed."""
    with silent() as dropping, server(b"") as (quiet, _), server() as (port, _):
        dialled = dial([dropping, quiet] * 20 + [port] * 4, workers=2, timeout=60)
        started = time.monotonic()
        answered = []
        for _ in range(4):
            (name,) = dialled.wait(1, 50)
            answered.append(name)
            connection = dialled.dialler.take(name)
            assert connection is not None
            assert connection.recv(100, socket.MSG_PEEK) == b"SSH-2.0-test\r\n"
            connection.close()
            dialled.dialler.release(name)
        assert sorted(answered) == ["h40", "h41", "h42", "h43"]
        assert time.monotonic() - started < 45
        assert dialled.late[:3] == ["h0", "h1", "h2"]


def test_no_host_is_dialled_before_a_thread_is_free_for_it(dial: Callable[..., Dialled]) -> None:
    """sshd would count a connection that waits for its login against this machine."""
    with server() as (port, clients):
        dialled = dial([port] * 8, workers=3)
        first = dialled.wait(3)
        with pytest.raises(Empty):
            dialled.ready.get(timeout=0.5)
        assert len(clients) == 3
        dialled.dialler.release(first[0])
        assert len(dialled.wait(1)) == 1
        assert len(clients) == 4


def test_why_dialling_a_host_fails(dial: Callable[..., Dialled]) -> None:
    """No answer, no banner, a refusal: the errors are those of `dial`."""
    with silent() as dropping, server(b"") as (quiet, _), socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dialled = dial([dropping, quiet, closed.getsockname()[1]], workers=3, timeout=0.3)
        assert set(dialled.wait(3)) == {"h0", "h1", "h2"}
        for name, text in (("h0", "no answer from"), ("h1", "sends no SSH banner"), ("h2", "refused the connection")):
            with pytest.raises(Unreachable, match=text) as caught:
                dialled.dialler.take(name)
            assert caught.value.text.startswith(name)
            assert caught.value.hint


def test_a_host_behind_a_gateway_is_left_to_its_thread(dial: Callable[..., Dialled], empty_home: Path) -> None:
    """It is reported as ready at once, without a connection."""
    (empty_home / ".ssh" / "config").write_text("Host 127.0.0.1\n ProxyCommand true\n")
    dialled = dial([1, 2], workers=1)
    assert dialled.wait(1) == ["h0"]
    assert dialled.dialler.take("h0") is None


def test_cancelling_reports_every_host(dial: Callable[..., Dialled]) -> None:
    """Hosts that are being dialled, and hosts that are not yet. Their connections are closed."""
    with silent() as dropping, server(b"") as (quiet, clients):
        dialled = dial([dropping, quiet, dropping, quiet], workers=2, timeout=60)
        wait_for(lambda: len(clients) == 1, "the host is connected")
        dialled.dialler.cancel()
        assert sorted(dialled.wait(4)) == dialled.names
        assert all(dialled.dialler.take(name) is None for name in dialled.names)
        assert clients[0].recv(1) == b""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_error_of_the_dialler_leaves_the_hosts_to_their_threads(
    dial: Callable[..., Dialled], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every host is ready, without a connection: no run waits for a thread that has ended."""

    def broken(*_: object) -> None:
        raise OSError("bug")

    monkeypatch.setattr(Dialler, "_socket_ready", broken)
    with server() as (port, _):
        dialled = dial([port] * 5, workers=2)
        assert sorted(dialled.wait(5)) == dialled.names
        assert all(dialled.dialler.take(name) is None for name in dialled.names)


def test_an_unused_connection_is_closed(dial: Callable[..., Dialled], monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of the run, and when it has become too old for a login."""
    with server() as (port, clients):
        dialled = dial([port, port], workers=2)
        dialled.wait(2)
        monkeypatch.setattr(dial_module, "_STALE", 0.0)
        assert dialled.dialler.take("h0") is None
        dialled.dialler.close()
        for client in clients:
            client.settimeout(5)
            with suppress(ConnectionResetError):  # the banner was not read
                assert client.recv(1) == b""
