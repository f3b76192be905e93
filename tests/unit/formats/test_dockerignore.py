"""What a .dockerignore excludes, by examples; Docker's own client must agree. tests/lab asks Docker 20.10."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from provision.formats.build_context import Ignore
from tests.support.ignore import CASES, LATER_CASES


def sent(text: str, paths: tuple[str, ...]) -> list[str]:
    """The files that are not excluded."""
    ignore = Ignore.parse(text)
    found = []
    for path in paths:
        matches, excluded, parts = ignore.top, False, path.split("/")
        for depth in range(len(parts)):
            matches, excluded = ignore.match("/".join(parts[: depth + 1]), matches)
        if not excluded:
            found.append(path)
    return found


@pytest.mark.parametrize(("text", "paths", "left"), CASES + LATER_CASES)
def test_patterns_exclude_files(text: str, paths: tuple[str, ...], left: tuple[str, ...]) -> None:
    """Which of some files are sent."""
    assert sent(text, paths) == list(left)


def test_an_exception_for_a_folder_does_not_include_what_a_deep_pattern_excludes() -> None:
    """The folder itself was not excluded, so the exception has no effect below it: secrets stay out."""
    files = ("app/.env", "app/main.py", "app/node_modules/x.js", "other/.env")
    assert sent("**/.env\n**/node_modules\n!app\n", files) == ["app/main.py"]
    assert sent("*\n!app\n**/.env\n", files) == ["app/main.py", "app/node_modules/x.js"]


NOT_VALID = [
    ("!", "line 1"),
    ("a\n[b", "line 2"),
    ("a\n\n# c\n!  \n", "line 4"),
    ("[", "brackets"),
    ("app.py\\c", "backslashes"),
]


@pytest.mark.parametrize(("text", "why"), NOT_VALID)
def test_invalid_patterns(text: str, why: str) -> None:
    """Docker refuses these too; here the line is named."""
    with pytest.raises(ValueError, match=why):
        Ignore.parse(text)


class Daemon(ThreadingHTTPServer):
    """A stand-in of the Docker daemon: it takes the build context that Docker's client sends."""

    context = b""

    def files(self) -> set[str]:
        """The files of the last context."""
        with tarfile.open(fileobj=io.BytesIO(self.context)) as tar:
            return {entry.name for entry in tar if not entry.isdir()}


class Api(BaseHTTPRequestHandler):
    """As much of the daemon's API as `docker build` needs."""

    protocol_version = "HTTP/1.1"
    server: Daemon

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def do_HEAD(self) -> None:
        """The client asks which API this is."""
        self._answer(b"")

    def do_GET(self) -> None:
        """The client asks for the version."""
        self._answer(b'{"ApiVersion": "1.50", "OSType": "linux"}')

    def do_POST(self) -> None:
        """The build: its body is the context, in chunks."""
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        self.server.context = b"".join(chunks)
        self._answer(b'{"stream": "done"}\n')

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        for name, value in (("Api-Version", "1.50"), ("Ostype", "linux"), ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """The stand-in, on a free port."""
    with Daemon(("127.0.0.1", 0), Api) as daemon:
        threading.Thread(target=daemon.serve_forever, daemon=True).start()
        yield daemon
        daemon.shutdown()


def has_docker_23() -> bool:
    """Whether a Docker client is installed whose rules are those of 23.0 and later."""
    if shutil.which("docker") is None:
        return False
    printed = subprocess.run(["docker", "--version"], capture_output=True, text=True).stdout
    digits = printed.partition("version ")[2].partition(".")[0]
    return digits.isdigit() and int(digits) >= 23


@pytest.mark.skipif(not has_docker_23(), reason="needs Docker's client, 23.0 or later")
@pytest.mark.parametrize(("text", "paths", "left"), CASES + LATER_CASES)
def test_dockers_client_sends_the_same(
    daemon: Daemon, tmp_path: Path, text: str, paths: tuple[str, ...], left: tuple[str, ...]
) -> None:
    """The client packs the context by its own rules."""
    for name in paths:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / ".dockerignore").write_bytes(text.encode())
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    where = {"DOCKER_HOST": f"tcp://127.0.0.1:{daemon.server_port}", "DOCKER_BUILDKIT": "0"}
    subprocess.run(["docker", "build", "-q", tmp_path], env={**os.environ, **where}, check=True, capture_output=True)
    assert daemon.files() & set(paths) == set(left)
