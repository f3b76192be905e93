"""The HTTP server: threads, keep-alive, one write per answer."""

from __future__ import annotations

import json
import secrets
import socket
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ..paths import Paths  # noqa: TID252 - the package has another name on the host

# The endpoints register themselves when they are imported.
from . import (  # noqa: F401
    instance,
    lint,
    machines,
    merge_requests,
    projects,
    registry_auth,
    registry_listing,
    repository,
    runners,
    variables,
)
from .faults import Dropped, fault
from .http import ApiError, Request, Response, parse_body, parse_pairs
from .routing import dispatch
from .seed import plant
from .store import Store

_REASONS = {code.value: code.phrase for code in HTTPStatus}


class Application:
    """Store, settings and switches of one instance."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.settings: dict[str, Any] = json.loads(paths.api_settings.read_text())
        self.store = Store(paths.database)
        plant(self.store, paths)
        self._prefix = "/" + self.settings["external_url"].partition("://")[2].partition("/")[2]

    def answer(self, request: Request) -> Response:
        """The answer to one request. Raises Dropped."""
        wrong = fault(self.paths.switches / "api-faults.json", request)
        return wrong or dispatch(request, self.store, self.settings, self._switches())

    def local(self, path: str) -> str:
        """A path without the prefix of a relative external_url."""
        return path[len(self._prefix) :] or "/" if self._prefix != "/" and path.startswith(self._prefix) else path

    def _switches(self) -> dict[str, Any]:
        path = self.paths.switches / "settings.json"
        switches: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return switches


class Handler(BaseHTTPRequestHandler):
    """Translates between the wire and the application."""

    protocol_version = "HTTP/1.1"
    application: Application

    def do_GET(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        path, _, query = self.path.partition("?")
        try:
            request = Request(
                self.command,
                self.application.local(path),
                parse_pairs(query),
                parse_body(headers.get("content-type", ""), raw),
                headers,
                headers.get("x-real-ip", self.client_address[0]),
                query,
            )
            self._send(self.application.answer(request))
        except ApiError as error:
            self._send(error.response)
        except Dropped:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = do_GET

    def _send(self, response: Response) -> None:
        body, kind = b"", "application/json"
        if isinstance(response.body, str):
            body, kind = response.body.encode(), "text/html; charset=utf-8"
        elif response.body is not None:
            body = json.dumps(response.body).encode()
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), "X-Request-Id": secrets.token_hex(13)}
        if response.status in (204, 304):
            headers.pop("Content-Length")
        lines = [f"HTTP/1.1 {response.status} {_REASONS.get(response.status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in (headers | dict(response.headers)).items()]
        head = "\r\n".join(lines).encode() + b"\r\n\r\n"
        self.wfile.write(head if self.command == "HEAD" else head + body)

    def log_message(self, format: str, *arguments: object) -> None:
        """No access log here: the front end keeps one, and what people send may be secret."""


class Server(ThreadingHTTPServer):
    """Many at once; small answers leave at once."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], application: Application) -> None:
        super().__init__(address, type("BoundHandler", (Handler,), {"application": application}))
        self.application = application

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, address


def make_server(paths: Paths, address: tuple[str, int]) -> Server:
    """A server that listens, and does not serve yet."""
    return Server(address, Application(paths))


def main(arguments: list[str]) -> int:
    """`HOST:PORT [ROOT]`: serves until it is ended."""
    host, _, port = arguments[0].rpartition(":")
    server = make_server(Paths(Path(arguments[1]) if len(arguments) > 1 else Path("/")), (host, int(port)))
    print(f"listening on {host}:{server.server_address[1]}", file=sys.stderr, flush=True)
    server.serve_forever()
    return 0
