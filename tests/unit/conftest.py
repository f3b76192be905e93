"""What several folders of tests use: an HTTP server on loopback, and this machine as a host."""

from __future__ import annotations

import json
import shutil
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest

from provision import secret
from provision.testing import LocalSession


@dataclass(frozen=True)
class Asked:
    """A request as it came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """What is answered. A body that is no bytes is sent as JSON."""

    status: int = 200
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)


class Web:
    """One server. `answer` is given each request; `asked` holds all that came."""

    def __init__(self, answer: Callable[[Asked], Reply], context: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                asked = Asked(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
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
                """Nothing on stderr."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = int(self._server.server_address[1])
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the server: its port refuses from now on."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(autouse=True)
def only_its_own_secrets() -> Iterator[None]:
    """What one test keeps secret is not blanked in the texts of the next."""
    before = set(secret._known)
    yield
    secret._known.intersection_update(before)


@pytest.fixture
def serve() -> Iterator[Callable[..., Web]]:
    """Starts a server: `serve(lambda asked: reply(401))`."""
    running: list[Web] = []

    def start(answer: Callable[[Asked], Reply], context: ssl.SSLContext | None = None) -> Web:
        running.append(Web(answer, context))
        return running[-1]

    yield start
    for one in running:
        one.close()


@pytest.fixture
def reply() -> type[Reply]:
    """`reply(401, headers={…})`."""
    return Reply


SHELLS: Final = {"dash": ("dash",), "bash": ("bash", "--posix"), "busybox": ("busybox", "sh")}
Local = Callable[..., LocalSession]
# For tests of a script that other tests run in each shell: make check must stay quick.
one_shell = pytest.mark.parametrize("shell", ["dash"], indirect=True)


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """A shell's command line: Debian's /bin/sh, the one of other distributions, and a small one."""
    command = SHELLS[request.param]
    assert shutil.which(command[0]), f"{command[0]} is missing: make system installs it"
    return command


@pytest.fixture
def local(shell: tuple[str, ...]) -> Local:
    """Makes a session that runs scripts with this shell; arguments as for LocalSession."""

    def make(folders: Mapping[str, Path], environment: Mapping[str, str] | None = None) -> LocalSession:
        return LocalSession(folders, environment, shell=shell)

    return make
