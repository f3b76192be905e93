"""`Download`: bare, half done, converged, broken; then applied with a real curl and a server on loopback."""

from __future__ import annotations

import hashlib
import io
import shutil
import socket
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provision.errors import ProbeFailed, Refused, UsageError
from provision.host.scripts import script
from provision.resources import Download, Handler, Result
from provision.testing import LocalSession, observe, planned
from tests.support.local import Local
from tests.support.resources import ME, apply, refuse

pytestmark = pytest.mark.slow

CONTENT = b"#!/bin/sh\necho 1.9.1\n"
GOOD, OTHER = hashlib.sha256(CONTENT).hexdigest(), "0" * 64
URL = "https://dl.example.com/tool-1.9.1"
TOOL = Download(URL, "/usr/local/bin/tool", GOOD, notify=Handler.restart("tool"))


def found(digest: str = GOOD, access: str = "0755 root:root", *missing: str) -> str:
    """The answer for a regular file."""
    return "\n".join(["file", access, f"{digest}  -", *(f"missing {one}" for one in missing)]) + "\n"


@pytest.mark.parametrize(
    ("answer", "summaries"),
    [
        ("absent\n", [f"fetch /usr/local/bin/tool from {URL}"]),
        ("absent\nmissing curl\n", ["install curl", f"fetch /usr/local/bin/tool from {URL}"]),
        (
            "absent\nmissing curl\nmissing ca-certificates\n",
            ["install curl, ca-certificates", f"fetch /usr/local/bin/tool from {URL}"],
        ),
        (found(OTHER), [f"replace /usr/local/bin/tool by {URL}"]),
        (
            found(access="0644 bob:bob"),
            ["set /usr/local/bin/tool to 0755 root:root (was 0644 bob:bob)"],
        ),
        (found(), []),
        (found(GOOD, "0755 root:root", "curl"), []),
    ],
)
def test_plan(answer: str, summaries: list[str]) -> None:
    """By the checksum of the file itself; curl is installed only where something must be fetched."""
    changes = planned(TOOL, observe(TOOL, answer))
    assert [one.summary for one in changes] == summaries
    assert all(one.notify == (TOOL.handlers if URL in one.summary else ()) for one in changes)


MEMBER = Download(URL, "/usr/local/bin/tool", GOOD, extract="tool-1/tool")


@pytest.mark.parametrize(
    ("answer", "record", "count"),
    [
        ("absent\n", None, 1),
        (found(OTHER), None, 1),
        (found(OTHER), {"archive": GOOD, "file": OTHER}, 0),
        (found(GOOD), {"archive": GOOD, "file": OTHER}, 1),
        (found(OTHER), {"archive": OTHER, "file": OTHER}, 1),
        ("absent\n", {"archive": GOOD, "file": OTHER}, 1),
    ],
    ids=["bare", "not ours", "converged", "changed by hand", "another archive", "deleted"],
)
def test_a_member_is_known_by_its_record(answer: str, record: Any, count: int) -> None:
    """The checksum is the archive's; that of the member is recorded when it was extracted."""
    changes = planned(MEMBER, observe(MEMBER, answer, record=record))
    assert len(changes) == count
    for change in changes:
        assert change.record_from is not None
        assert change.record_from(f"{OTHER}\n") == {"archive": GOOD, "file": OTHER}


def test_http_needs_no_certificates() -> None:
    """Plain HTTP is used only where the URL has it."""
    plain = Download(URL.replace("https", "http"), "/tool", GOOD)
    assert [one.summary for one in planned(plain, observe(plain, "absent\nmissing ca-certificates\n"))] == [
        f"fetch /tool from {plain.url}"
    ]


@pytest.mark.parametrize(("scheme", "protocols"), [("https", "https"), ("http", "http,https")])
def test_protocols(scheme: str, protocols: str) -> None:
    """A redirect cannot turn https into http."""
    one = Download(URL.replace("https", scheme), "/tool", GOOD)
    (change,) = planned(one, observe(one, "absent\n"))
    assert change.run == script("download", one.url, "/tool", GOOD, "0755", "root:root", "", protocols, 60)


@pytest.mark.parametrize(
    ("url", "sha256", "words"),
    [
        ("ftp://example.com/x", GOOD, "is no URL to fetch"),
        ("example.com/x", GOOD, "is no URL to fetch"),
        ("https:///x", GOOD, "is no URL to fetch"),
        ("https://bob:pass@example.com/x", GOOD, "the URL holds a login"),
        (URL, "", "is not a checksum"),
        (URL, GOOD.upper(), "is not a checksum"),
        (URL, GOOD[:40], "is not a checksum"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_contacted(url: str, sha256: str, words: str) -> None:
    """Also a login, which `ps` on the host would show; it is not repeated."""
    with pytest.raises(UsageError, match=words) as caught:
        Download(url, "/tool", sha256)
    assert "pass" not in str(caught.value)
    assert caught.value.hint


def test_broken() -> None:
    """What is no regular file stays; what cannot be read is not taken for missing."""
    with pytest.raises(Refused, match="/usr/local/bin/tool is not a regular file"):
        planned(TOOL, observe(TOOL, "other\n"))
    with pytest.raises(ProbeFailed, match="cannot be read: sha256sum: Input/output error"):
        planned(TOOL, observe(TOOL, Result(b"file\n", b"sha256sum: Input/output error\n", 1)))


def archive(**members: bytes) -> bytes:
    """A tar.gz of these files, each in the folder `tool-1`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(f"tool-1/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
class TestApplied:
    """With a real sh, curl and tar."""

    @pytest.fixture
    def host(self, tmp_path: Path, local: Local) -> LocalSession:
        """This machine, with its folders elsewhere."""
        return local({"/opt": tmp_path / "opt", "/var/lib/provision": tmp_path / "home"})

    def test_it_converges(self, host: LocalSession, tmp_path: Path, serve: Callable[..., Any], reply: Any) -> None:
        """Fetched once; another version replaces it; a symlink planted under the temporary name is not followed."""
        web = serve(lambda asked: reply(200, CONTENT if asked.path == "/1" else b"newer"))
        tool = Download(f"{web.url}/1", "/opt/bin/tool", GOOD, owner=ME)
        (tmp_path / "opt/bin").mkdir(parents=True)
        (tmp_path / "opt/bin/.tool.download").symlink_to(tmp_path / "victim")
        assert apply(tool, host) == [f"fetch /opt/bin/tool from {tool.url}"]
        file = tmp_path / "opt/bin/tool"
        assert (file.read_bytes(), file.stat().st_mode & 0o7777) == (CONTENT, 0o755)
        assert apply(tool, host) == []
        newer = Download(f"{web.url}/2", "/opt/bin/tool", hashlib.sha256(b"newer").hexdigest(), "0700", ME)
        assert apply(newer, host) == [f"replace /opt/bin/tool by {newer.url}"]
        assert file.read_bytes() == b"newer"
        assert [one.name for one in file.parent.iterdir()] == ["tool"]
        assert not (tmp_path / "victim").exists()

    def test_another_checksum(self, host: LocalSession, tmp_path: Path, serve: Callable[..., Any], reply: Any) -> None:
        """What the server has is not what was expected: the old file stays, nothing else is left."""
        web = serve(lambda _: reply(200, b"something else"))
        file = tmp_path / "opt/tool"
        file.parent.mkdir()
        file.write_bytes(b"old")
        text = refuse(Download(f"{web.url}/x", "/opt/tool", GOOD, owner=ME), host)
        assert f"expected {GOOD}: nothing was replaced" in text
        assert file.read_bytes() == b"old"
        assert [one.name for one in file.parent.iterdir()] == ["tool"]

    def test_not_found(self, host: LocalSession, tmp_path: Path, serve: Callable[..., Any], reply: Any) -> None:
        """curl's own words."""
        web = serve(lambda _: reply(404, b"no"))
        assert "404" in refuse(Download(f"{web.url}/x", "/opt/tool", GOOD, owner=ME), host)
        assert list((tmp_path / "opt").iterdir()) == []

    def test_a_member_of_an_archive(
        self, host: LocalSession, tmp_path: Path, serve: Callable[..., Any], reply: Any
    ) -> None:
        """It alone is unpacked, with the mode and owner that are wanted."""
        data = archive(tool=CONTENT, readme=b"no")
        web = serve(lambda _: reply(200, data))
        digest = hashlib.sha256(data).hexdigest()
        apply(Download(f"{web.url}/x", "/opt/tool", digest, owner=ME, extract="tool-1/tool"), host)
        assert (tmp_path / "opt/tool").read_bytes() == CONTENT
        assert [one.name for one in (tmp_path / "opt").iterdir()] == ["tool"]
        missing = Download(f"{web.url}/x", "/opt/other", digest, owner=ME, extract="tool-1/other")
        assert "tool-1/other: Not found in archive" in refuse(missing, host)
        assert not (tmp_path / "opt/other").exists()

    def test_it_ends_when_nothing_arrives(self, host: LocalSession, tmp_path: Path) -> None:
        """A server that sends half the file and then nothing; the file that was there stays."""
        (tmp_path / "opt").mkdir()
        (tmp_path / "opt/tool").write_bytes(b"old")
        server = socket.create_server(("127.0.0.1", 0))

        def send_half() -> None:
            connection, _ = server.accept()
            server.close()  # curl tries again, and is refused
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 50)
                connection.recv(65536)
                connection.recv(65536)  # returns when curl ends

        thread = threading.Thread(target=send_half)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        result = host.run(script("download", url, "/opt/tool", GOOD, "0755", ME, "", "http", 1), deadline=30)
        thread.join()
        assert result.code != 0
        assert "Operation too slow" in result.errors
        assert (tmp_path / "opt/tool").read_bytes() == b"old"
