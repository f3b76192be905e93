"""The proxy with latency: what it costs and what it counts."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

from provision_lab.proxy import Proxy

ROUND_TRIP = 0.04
SLOW = 2.0  # what a busy machine may add


@contextlib.contextmanager
def server(greeting: bytes = b"") -> Iterator[int]:
    """A server that greets and echoes lines; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()

        def talk(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                connection.sendall(greeting)
                while data := connection.recv(65536):
                    connection.sendall(data)

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # ends accept(), which close() does not


def test_each_question_costs_a_round_trip() -> None:
    """Three questions and answers cost the handshake's round trip and three more."""
    with server() as port, Proxy("127.0.0.1", port, round_trip=ROUND_TRIP) as proxy:
        started = time.monotonic()
        with socket.create_connection((proxy.address, proxy.port)) as client:
            for _ in range(3):
                client.sendall(b"x")
                assert client.recv(1) == b"x"
        took = time.monotonic() - started
        assert 4 * ROUND_TRIP <= took < 4 * ROUND_TRIP + SLOW
        assert (proxy.connections, proxy.round_trips) == (1, 4)
        assert (proxy.bytes_up, proxy.bytes_down) == (3, 3)


def test_a_server_that_speaks_first_is_heard_after_two_round_trips() -> None:
    """Handshake, then the greeting, as on a real connection."""
    with server(b"hello") as port, Proxy("127.0.0.1", port, round_trip=ROUND_TRIP) as proxy:
        started = time.monotonic()
        with socket.create_connection((proxy.address, proxy.port)) as client:
            assert client.recv(5) == b"hello"
        assert 2 * ROUND_TRIP <= time.monotonic() - started < 2 * ROUND_TRIP + SLOW


def test_much_at_once_is_delayed_only_once() -> None:
    """8 MB in one direction arrive complete and in order, delayed once."""
    data = bytes(range(256)) * 32768
    with server() as port, Proxy("127.0.0.1", port, round_trip=ROUND_TRIP) as proxy:
        started = time.monotonic()
        with socket.create_connection((proxy.address, proxy.port)) as client:
            threading.Thread(target=client.sendall, args=(data,), daemon=True).start()
            got = bytearray()
            while len(got) < len(data):
                got += client.recv(1 << 20)
        assert bytes(got) == data
        assert time.monotonic() - started < SLOW
        assert proxy.bytes_down == len(data)


def test_nobody_there_ends_the_connection() -> None:
    """If the target refuses, the connection is closed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with (
        Proxy("127.0.0.1", port, round_trip=0.001) as proxy,
        socket.create_connection((proxy.address, proxy.port)) as client,
    ):
        client.settimeout(5)
        assert client.recv(1) == b""


def test_the_servers_end_reaches_the_client() -> None:
    """When the server closes, so does the proxy."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Proxy("127.0.0.1", listener.getsockname()[1], round_trip=0.001) as proxy,
        socket.create_connection((proxy.address, proxy.port)) as client,
    ):
        listener.accept()[0].close()
        client.settimeout(5)
        assert client.recv(1) == b""
