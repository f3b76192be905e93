"""A build context: its entries, equal bytes wherever it is packed, and what is refused."""

from __future__ import annotations

import gzip
import io
import os
import socket
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from provision.errors import UsageError
from provision.formats import build_context as context
from provision.formats.build_context import Context


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A small app with a Dockerfile."""
    folder = tmp_path / "app"
    (folder / "src").mkdir(parents=True)
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    (folder / "src/app.py").write_text("print('hello')\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o775)
    (folder / "link").symlink_to("src/app.py")
    (folder / "empty").mkdir()
    return folder


def members(wanted: Context) -> dict[str, tarfile.TarInfo]:
    """The entries of the stream that is sent."""
    stream, _ = wanted.packed()
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(stream))) as tar:
        return {entry.name: entry for entry in tar.getmembers()}


def test_entries(app: Path) -> None:
    """They are sorted, owned by root and of one time; folders, links and the execute permission stay."""
    found = members(Context(app))
    assert list(found) == ["Dockerfile", "empty", "link", "run.sh", "src", "src/app.py"]
    assert {(entry.uid, entry.gid, entry.mtime) for entry in found.values()} == {(0, 0, 315619200)}
    assert oct(found["run.sh"].mode) == "0o755"
    assert (found["link"].issym(), found["link"].linkname) == (True, "src/app.py")
    assert found["empty"].isdir()


def test_the_digest_is_of_what_is_built(app: Path, tmp_path: Path) -> None:
    """Times and the umask do not count; bytes, names and the execute permission do."""
    before = Context(app).digest()
    assert Context(app).packed()[1] == before
    os.utime(app / "run.sh", (1, 1))
    (app / "src/app.py").chmod(0o664)
    assert Context(app).digest() == before
    assert Context(app).packed()[0] == Context(app.rename(tmp_path / "elsewhere")).packed()[0]
    app = tmp_path / "elsewhere"
    seen = {before}
    for change in (
        lambda: (app / "run.sh").chmod(0o644),
        lambda: (app / "src/app.py").write_text("print('hallo')\n"),
        lambda: (app / "src/app.py").rename(app / "src/main.py"),
        lambda: (app / "empty").rmdir(),
    ):
        change()
        seen.add(Context(app).digest())
    assert len(seen) == 5


def test_what_is_excluded_is_not_sent(app: Path) -> None:
    """Only the Dockerfile and the list itself are sent though excluded, and folders of what is included again."""
    (app / ".dockerignore").write_text("*\n!src/app.py\n")
    assert list(members(Context(app))) == [".dockerignore", "Dockerfile", "src", "src/app.py"]


def test_an_excluded_file_does_not_count(app: Path) -> None:
    """It may be unreadable, too."""
    (app / ".dockerignore").write_text("secret\n")
    before = Context(app).digest()
    (app / "secret").write_text("x")
    assert Context(app).digest() == before


def test_a_dockerfile_in_a_folder(app: Path) -> None:
    """It has a list of its own, and is sent though excluded."""
    (app / "docker").mkdir()
    (app / "Dockerfile").rename(app / "docker/web.Dockerfile")
    (app / "docker/web.Dockerfile.dockerignore").write_text("docker\nrun.sh\n")
    assert list(members(Context(app, "docker/web.Dockerfile"))) == [
        "docker", "docker/web.Dockerfile", "empty", "link", "src", "src/app.py"
    ]  # fmt: skip


def test_a_rendered_dockerfile(app: Path) -> None:
    """It replaces a Dockerfile in the folder, and is part of the digest."""
    rendered = Context(app, rendered=b"FROM python\n")
    found = members(rendered)
    assert list(found).count("Dockerfile") == 1
    assert found["Dockerfile"].size == 12
    assert rendered.digest() != Context(app, rendered=b"FROM other\n").digest()
    (app / "Dockerfile").unlink()
    assert "Dockerfile" in members(rendered)


@contextmanager
def as_other_user() -> Iterator[None]:
    """Run as another user when the tests run as root, who may read everything."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def make_reachable(app: Path) -> None:
    """Other users may enter the folders above."""
    for folder in app.parents[:4]:
        if folder.name.startswith(("pytest", "popen", "test_")):
            folder.chmod(0o755)


def test_a_folder_that_cannot_be_entered(app: Path) -> None:
    """The message names the context."""
    make_reachable(app)
    app.parent.chmod(0o700)
    with pytest.raises(UsageError, match=r"cannot be read: .*Permission denied"), as_other_user():
        Context(app).digest()


def unreadable_file(app: Path) -> None:
    """One file."""
    (app / "src/app.py").chmod(0)


def unreadable_folder(app: Path) -> None:
    """A folder below."""
    (app / "src").chmod(0)


def pipe(app: Path) -> None:
    """Docker could not copy it."""
    os.mkfifo(app / "pipe")


def bad_pattern(app: Path) -> None:
    """A list with a pattern that is not valid."""
    (app / ".dockerignore").write_text("a\n[b\n")


REFUSED = [
    (lambda app: (app / "Dockerfile").unlink(), "there is no Dockerfile in"),
    (lambda app: (app / "Dockerfile").rename(app / "dockerfile"), "there is no Dockerfile in"),
    (lambda app: app.rename(app.parent / "moved"), "does not exist"),
    (unreadable_file, "cannot be read: [Errno 13] Permission denied"),
    (unreadable_folder, "cannot be read: [Errno 13] Permission denied"),
    (pipe, "is not a file, folder or link"),
    (bad_pattern, "line 2: '[b' is not a valid pattern"),
]


@pytest.mark.parametrize(("damage", "why"), REFUSED)
def test_refused(app: Path, damage: Callable[[Path], object], why: str) -> None:
    """One message names the place and what to do."""
    make_reachable(app)
    damage(app)
    with pytest.raises(UsageError) as refusal, as_other_user():
        Context(app).digest()
    assert why in refusal.value.text
    assert str(app) in refusal.value.text
    assert refusal.value.hint
    for path in (app, app / "src"):
        if path.exists():
            path.chmod(0o755)


def test_a_socket_is_skipped(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Docker does."""
    monkeypatch.chdir(app)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("socket")
        assert "socket" not in members(Context(app))


def test_too_large(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the limit and what to do."""
    monkeypatch.setattr(context, "LIMIT", 1 << 20)
    with (app / "dump").open("wb") as dump:
        dump.truncate(2 << 20)
    with pytest.raises(UsageError, match="larger than 1 MiB") as refusal:
        Context(app).digest()
    assert ".dockerignore" in refusal.value.hint
