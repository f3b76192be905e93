"""TCP servers on loopback that misbehave in a way that a test describes."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def tcp_server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that calls `serve` for each connection, in a thread, and then closes it; its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):  # the listener is closed
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=run, args=(connection,), daemon=True).start()

        def run(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):  # the client is gone
                serve(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            # close() would leave the thread in accept(): it could then take connections of a later test's server.
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def relay(connection: socket.socket, port: int, size: int) -> None:
    """Connect a client with a real server, and end both connections after `size` bytes of the server."""
    with socket.create_connection(("127.0.0.1", port)) as real:

        def upward() -> None:
            with contextlib.suppress(OSError):
                while data := connection.recv(65536):
                    real.sendall(data)

        threading.Thread(target=upward, daemon=True).start()
        sent = 0
        while sent < size and (data := real.recv(min(65536, size - sent))):
            connection.sendall(data)
            sent += len(data)
        for one in (connection, real):  # `close` alone does not end what the other thread reads
            one.shutdown(socket.SHUT_RDWR)
