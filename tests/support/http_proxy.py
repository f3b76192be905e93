"""An HTTP proxy on loopback that records what it is asked."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self


class HttpProxy:
    """A running proxy: `CONNECT` opens a tunnel, everything else is answered with 403.

    asked     the first line of each request
    received  all bytes that clients sent
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.received = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which programs use it for everything."""
        names = ("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY")
        return dict.fromkeys(names, self.url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # ends accept(), which close() does not
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                piece = client.recv(65536)
                if not piece:
                    break
                head += piece
            self.received += head
            line = head.partition(b"\r\n")[0].decode("latin-1")
            self.asked.append(line)
            method, _, rest = line.partition(" ")
            if method != "CONNECT":
                client.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            host, _, port = rest.partition(" ")[0].rpartition(":")
            with socket.create_connection((host.strip("[]"), int(port))) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                answers = threading.Thread(target=self._copy, args=[server, client, False], daemon=True)
                answers.start()
                self._copy(client, server, True)
                answers.join(5)

    def _copy(self, source: socket.socket, target: socket.socket, record: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                if record:
                    self.received += piece
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)
