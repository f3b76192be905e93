"""An HTTP server on loopback that answers as a test wants."""

from __future__ import annotations

import json
import socket
import ssl
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from provision.url import bracketed
from provision_lab.certificates import Pair


@dataclass(frozen=True)
class Request:
    """A received request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def fields(self) -> dict[str, Any]:
        """What the body has, as JSON or as a form."""
        text = self.body.decode()
        if text.startswith("{"):
            return dict(json.loads(text))
        return {name: values[0] for name, values in parse_qs(text).items()}


@dataclass(frozen=True)
class Reply:
    """An answer. A body that is not bytes is sent as JSON."""

    status: int = 200
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)


def answer_of(request: urllib.request.Request) -> tuple[int, bytes, Message]:
    """Status, body and headers of a server's answer, whatever the status."""
    try:
        answer = urllib.request.urlopen(request)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return answer.status, answer.read(), answer.headers


def forwarded(asked: Request, server: str) -> Reply:
    """The answer of another server to a request that was received: with its body, its type, and the token or login."""
    names = ("content-type", "private-token", "authorization", "content-encoding", "git-protocol")
    headers = {name: asked.headers[name] for name in names if name in asked.headers}
    request = urllib.request.Request(server + asked.path, asked.body or None, headers, method=asked.method)
    status, body, returned = answer_of(request)
    kept = {name: returned[name] for name in ("Content-Type", "WWW-Authenticate") if name in returned}
    return Reply(status, body, kept)


def tls(pair: Pair, folder: Path) -> ssl.SSLContext:
    """A server's TLS with a certificate, which is written to `chain.pem` and `key.pem` in the folder."""
    chain, key = folder / "chain.pem", folder / "key.pem"
    chain.write_text(pair.fullchain)
    key.write_text(pair.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    return context


class Web:
    """A running server. `answer` is called with each request; `asked` has all requests."""

    def __init__(
        self, answer: Callable[[Request], Reply], context: ssl.SSLContext | None = None, address: str = "127.0.0.1"
    ) -> None:
        self.answer = answer
        self.asked: list[Request] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                asked = Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                web.asked.append(asked)
                reply = web.answer(asked)
                data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                self.send_response(reply.status)
                kind = {} if isinstance(reply.body, bytes) else {"Content-Type": "application/json"}
                for name, value in {**kind, **reply.headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data if self.command != "HEAD" else b"")

            def log_message(self, *_: object) -> None:
                """Logs nothing."""

        class Server(ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in address else socket.AF_INET

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Prints the traceback, except for clients that end early: tests kill them."""
                if not isinstance(sys.exception(), ConnectionError):
                    super().handle_error(request, client_address)

        self._server = Server((address, 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = int(self._server.server_address[1])
        self.url = f"{'https' if context else 'http'}://{bracketed(address)}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the server: its port refuses connections."""
        self._server.shutdown()
        self._server.server_close()
