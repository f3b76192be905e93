"""Waiting for Rails on the GitLab host: the script that runs after an upgrade, and the health check that it asks."""

from __future__ import annotations

import re
import socket
import socketserver
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from provision.resources.gitlab.gitlab_rb import ready
from provision.shell import Result
from provision.url import Url
from tests.support.local import Local, one_shell

pytestmark = pytest.mark.slow
Run = Callable[..., Result]


@pytest.fixture
def top() -> Iterator[Path]:
    """The host's folders. The path of a socket is limited to 107 letters: pytest's own folders are too deep."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def wait(top: Path, local: Local) -> Run:
    """Runs the handler on a host on which GitLab is configured: `wait(url, seconds)`."""
    names = {"/opt/gitlab": "opt", "/var/lib/provision": "home", "/var/opt/gitlab": "var"}
    (top / "opt/service/puma").mkdir(parents=True)
    (top / "home").mkdir()
    (top / "var/gitlab-workhorse/sockets").mkdir(parents=True)

    def run(url: str, seconds: int = 20) -> Result:
        session = local({old: top / new for old, new in names.items()})
        return session.run(ready(Url.parse(url), seconds).run, deadline=90)

    return run


@contextmanager
def workhorse(top: Path, *statuses: int) -> Iterator[list[str]]:
    """Workhorse at its socket, with these answers; the first line of each request."""
    asked: list[str] = []
    left = list(statuses)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked.append(self.rfile.readline().decode().strip())
            self.wfile.write(f"HTTP/1.1 {left.pop(0)} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())

    path = str(top / "var/gitlab-workhorse/sockets/socket")
    with socketserver.UnixStreamServer(path, Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield asked
        server.shutdown()


@pytest.mark.parametrize("before", [502, 503, 500])
def test_until_rails_answers(wait: Run, serve: Callable[..., Any], reply: Any, before: int) -> None:
    """The address is GitLab's own, at loopback, whatever its name resolves to; the Host header is its name."""
    answers = [200, before]
    web = serve(lambda _: reply(answers.pop()))
    done = wait(f"http://gitlab.example.com:{web.port}")
    url = f"http://gitlab.example.com:{web.port}/-/readiness"
    assert done.code == 0
    waiting = re.sub(r"for \d+ s of", "for N s of", done.text)  # whole seconds of a clock
    assert waiting == f"waiting until GitLab is ready, for N s of at most 20 s: {url} answers {before}\n"
    assert [one.headers["host"] for one in web.asked] == [f"gitlab.example.com:{web.port}"] * 2


@one_shell
def test_a_connection_without_an_answer(wait: Run) -> None:
    """The socket listens, and the first request is closed: it is asked again."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            for reply in (b"", b"HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n"):
                connection = server.accept()[0]
                with connection:
                    connection.recv(4096)
                    connection.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        done = wait(f"http://gitlab.example.com:{server.getsockname()[1]}")
        thread.join()
    assert (done.code, done.text.count("answers 000")) == (0, 1)


@one_shell
def test_the_limit(wait: Run, serve: Callable[..., Any], reply: Any) -> None:
    """Then it fails with what answers instead."""
    web = serve(lambda _: reply(502))
    done = wait(f"http://127.0.0.1:{web.port}", 1)
    assert done.code == 1
    problem = f"http://127.0.0.1:{web.port}/-/readiness answers 502; see gitlab-ctl tail puma"
    assert done.errors == f"GitLab is not ready within 1 s: {problem}\n"


@pytest.mark.parametrize("path", ["", "/git"])
def test_at_workhorse_s_socket(wait: Run, serve: Callable[..., Any], reply: Any, top: Path, path: str) -> None:
    """TLS ends at another server, so that nothing on this host serves the URL."""
    web = serve(lambda _: reply(200))
    web.close()
    with workhorse(top, 502, 200) as asked:
        done = wait(f"https://gitlab.example.com:{web.port}{path}")
    assert (done.code, asked) == (0, [f"GET {path}/-/readiness HTTP/1.1"] * 2)
    assert done.text.endswith(f"https://gitlab.example.com:{web.port}{path}/-/readiness answers 502\n")


@one_shell
def test_a_host_that_cannot_be_asked(wait: Run, serve: Callable[..., Any], reply: Any) -> None:
    """Every connection is refused, for a tenth of the time: that is reported, and the run goes on."""
    web = serve(lambda _: reply(200))
    web.close()
    done = wait(f"https://gitlab.example.com:{web.port}", 10)
    assert done.code == 0
    url = f"https://gitlab.example.com:{web.port}"
    assert f"it is not known whether GitLab is ready: this host refuses connections to {url}\n" in done.text


@one_shell
@pytest.mark.parametrize("reason", ["not configured", "a reconfigure is pending"])
def test_nothing_to_wait_for(wait: Run, serve: Callable[..., Any], reply: Any, top: Path, reason: str) -> None:
    """GitLab was never configured, or a reconfigure follows, which waits itself: GitLab is not asked."""
    if reason == "not configured":
        (top / "opt/service/puma").rmdir()
    else:
        (top / "home/pending").write_text("reload\treload it\nreconfigure\treconfigure GitLab\n")
    web = serve(lambda _: reply(502))
    done = wait(f"http://127.0.0.1:{web.port}")
    assert (done.code, done.text, web.asked) == (0, "", [])
