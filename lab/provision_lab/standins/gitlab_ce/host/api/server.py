"""The HTTP server of the API: threads, keep-alive, one write for each answer; and its wrong answers for tests.

/etc/gitlab-standin/api-faults.json lists the wrong answers:

    [{"method": "POST", "path": "/api/v4/user/runners", "status": 429,
      "headers": {"Retry-After": "2"}, "body": {"message": "…"}, "delay": 0.5, "times": 1}]

`path` may contain `*`; without `method` it is any; without `times` the fault stays. Used faults are removed from the
file, so that a test can see which are left. `"drop": true` closes the connection without an answer.
"""

from __future__ import annotations

import json
import secrets
import socket
import sys
import threading
import time
from contextlib import suppress
from fnmatch import fnmatchcase
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ..layout import Paths, linger, write_atomically
from . import (  # noqa: F401 - they register endpoints  # noqa: F401 - as above
    accounts,
    git_http,
    groups,
    instance,
    lint,
    pipeline_requests,
    projects,
    protected_tags,
    registry,
    repository,
    runners,
)
from .access import Throttle
from .http import ApiError, Request, Response, dispatch, parse_body, parse_pairs
from .jobs import held
from .store import Store, apply_seed

_REASONS = {code.value: code.phrase for code in HTTPStatus}


class Application:
    """Store, settings and switches of one instance."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.settings: dict[str, Any] = json.loads(paths.api_settings.read_text())
        self.store = Store(paths.database)
        apply_seed(self.store, paths)
        self._throttle = Throttle()
        self._prefix = "/" + self.settings["external_url"].partition("://")[2].partition("/")[2]

    def answer(self, request: Request) -> Response:
        """The answer to one request. Raises Dropped."""
        wrong = fault(self.paths.switches / "api-faults.json", request)
        switches = self._switches()
        refusal = wrong or self._throttle.refusal(request, self.store, switches.get("api_throttle"))
        return refusal or held(request, self.store) or dispatch(request, self.store, self.settings, switches)

    def local(self, path: str) -> str:
        """A path without the prefix of a relative external_url."""
        return path[len(self._prefix) :] or "/" if self._prefix != "/" and path.startswith(self._prefix) else path

    def _switches(self) -> dict[str, Any]:
        path = self.paths.switches / "settings.json"
        switches: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return switches


class Handler(BaseHTTPRequestHandler):
    """Reads requests from the connection and writes answers."""

    protocol_version = "HTTP/1.1"
    application: Application

    def do_GET(self) -> None:
        raw = self._body()
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
                raw,
            )
            self._send(self.application.answer(request))
        except ApiError as error:
            self._send(error.response)
        except Dropped:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = do_GET

    def _body(self) -> bytes:
        """The body, also in chunks: git sends a large push so."""
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers
        return b"".join(parts)

    def _send(self, response: Response) -> None:
        body, kind = b"", "application/json"
        if isinstance(response.body, bytes):
            body = response.body
        elif isinstance(response.body, str):
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
        """Logs nothing: the front end has an access log, and requests may contain secrets."""


class Server(ThreadingHTTPServer):
    """A threading server that sends small answers at once."""

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
    """A server that listens but does not serve yet."""
    return Server(address, Application(paths))


def main(arguments: list[str]) -> int:
    """`HOST:PORT [ROOT]`: serves until the process is ended.

    As Puma, it runs and has no socket yet while Rails boots.
    """
    host, _, port = arguments[0].rpartition(":")
    paths = Paths(Path(arguments[1]) if len(arguments) > 1 else Path("/"))
    linger(paths.switches, "rails-boot-seconds")
    server = make_server(paths, (host, int(port)))
    with suppress(OSError):  # the log is on a full disk
        print(f"listening on {host}:{server.server_address[1]}", file=sys.stderr, flush=True)
    server.serve_forever()
    return 0


_lock = threading.Lock()


class Dropped(Exception):
    """The connection is to be closed without an answer."""


def fault(path: Path, request: Request) -> Response | None:
    """The wrong answer for this request, or None. Raises Dropped."""
    if not path.exists():
        return None
    with _lock:
        faults: list[dict[str, Any]] = json.loads(path.read_text() or "[]")
        found = next((one for one in faults if _fits(one, request)), None)
        if found is None:
            return None
        if "times" in found:
            found["times"] -= 1
            left = [one for one in faults if one.get("times", 1) > 0]
            write_atomically(path, json.dumps(left, indent=1) + "\n")
    time.sleep(found.get("delay", 0))
    if found.get("drop"):
        raise Dropped
    if "status" not in found:
        return None
    body = found.get("body", {"message": f"{found['status']} on demand"})
    return Response(found["status"], body, found.get("headers", {}))


def _fits(one: dict[str, Any], request: Request) -> bool:
    return one.get("method", request.method) == request.method and fnmatchcase(request.path, one["path"])
