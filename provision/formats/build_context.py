"""A build context: a folder on this machine as a tar stream with the same bytes on every machine.

Entries are sorted, times are fixed, owners are root, and the write permissions of group and others are removed, since
they depend on a checkout's umask. Therefore the digest of the stream identifies its content. The stream is sent to
the host in one message, and several copies of it are in memory: therefore its size is limited.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from provision.errors import UsageError
from provision.formats.dockerignore import Ignore, Matches

if TYPE_CHECKING:  # slow to import: only tasks that build images import tarfile and gzip
    import tarfile

LIMIT: Final = 100 * 1024 * 1024  # bytes of the tar stream
_TIME: Final = 315_619_200  # 1980-01-02: zip files, wheels among them, cannot hold earlier times
_NOT_WRITABLE_BY_OTHERS: Final = 0o7755


class _Sink(Protocol):
    def write(self, data: bytes, /) -> Any: ...


@dataclass(frozen=True)
class Context:
    """A folder and its Dockerfile.

    dockerfile  its path inside the context
    rendered    the text of a Dockerfile made from a template; it is sent in place of a file of that name
    """

    folder: Path
    dockerfile: str = "Dockerfile"
    rendered: bytes | None = field(default=None, repr=False)

    def digest(self) -> str:
        """Return the sha256 of the tar stream in hexadecimal.

        Raises UsageError for what is missing, unreadable or too large.
        """
        meter = _Meter(str(self.folder))
        self._pack(meter)
        return meter.hash.hexdigest()

    def packed(self) -> tuple[bytes, str]:
        """Return the tar stream, compressed with gzip, and its digest. Raises UsageError as `digest` does."""
        import gzip

        memory = io.BytesIO()
        with gzip.GzipFile("", "wb", 6, memory, mtime=0) as zipped:
            meter = _Meter(str(self.folder), zipped)
            self._pack(meter)
        return memory.getvalue(), meter.hash.hexdigest()

    def _pack(self, sink: _Sink) -> None:
        import tarfile

        with _reading(self.folder):
            self._check()
        with _reading(self.folder), tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]  # the sink has only `write`
            for name, path in self._entries():
                _add(tar, name, path)
            if self.rendered is not None:
                tar.addfile(_entry(self.dockerfile, 0o644, len(self.rendered)), io.BytesIO(self.rendered))

    def _check(self) -> None:
        if not self.folder.is_dir():
            what = "is not a folder" if self.folder.exists() else "does not exist"
            raise UsageError(f"the build context {self.folder} {what}", hint="context is a folder on this machine")
        if self.rendered is None and not (self.folder / self.dockerfile).is_file():
            raise UsageError(
                f"there is no {self.dockerfile} in {self.folder}",
                hint="write one, name it in dockerfile, or choose a template",
            )

    def _entries(self) -> Iterator[tuple[str, Path]]:
        """The files and folders to send, in order, each folder before its content."""
        ignore = self._ignore()
        sent: set[str] = set()
        for name, path, excluded in _walk(self.folder, "", ignore, ignore.top, self.dockerfile):
            # Docker reads these two even if they are excluded.
            if excluded and name not in (self.dockerfile, ".dockerignore"):
                continue
            if name == self.dockerfile and self.rendered is not None:
                continue
            for above in [*reversed(Path(name).parents)][1:]:
                if str(above) not in sent:
                    sent.add(str(above))
                    yield str(above), self.folder / above
            sent.add(name)
            yield name, path

    def _ignore(self) -> Ignore:
        for name in (f"{self.dockerfile}.dockerignore", ".dockerignore"):
            path = self.folder / name
            if path.is_file():
                try:
                    return Ignore.parse(path.read_text("utf-8", "surrogateescape"))
                except (OSError, ValueError) as error:
                    raise UsageError(
                        f"{path}: {error}", hint="its rules: docs.docker.com/build/concepts/context"
                    ) from error
        return Ignore()


def _walk(folder: Path, below: str, ignore: Ignore, parent: Matches, needed: str) -> Iterator[tuple[str, Path, bool]]:
    """Everything in a folder, each with whether it is excluded.

    An excluded folder is entered only when something in it may be included, or when `needed` is in it.
    """
    with _reading(folder), os.scandir(folder) as scan:
        entries = sorted(scan, key=lambda one: one.name)
    for entry in entries:
        name = f"{below}{entry.name}"
        matches, excluded = ignore.match(name, parent)
        yield name, Path(entry.path), excluded
        enter = not excluded or ignore.has_exceptions or needed.startswith(f"{name}/")
        if enter and entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), f"{name}/", ignore, matches, needed)


def _add(tar: tarfile.TarFile, name: str, path: Path) -> None:
    from tarfile import DIRTYPE, SYMTYPE

    status = path.lstat()
    mode = stat.S_IMODE(status.st_mode) & _NOT_WRITABLE_BY_OTHERS
    if stat.S_ISDIR(status.st_mode):
        tar.addfile(_entry(name, mode, kind=DIRTYPE))
    elif stat.S_ISLNK(status.st_mode):
        tar.addfile(_entry(name, 0o777, kind=SYMTYPE, link=os.readlink(path)))  # noqa: PTH115 - its text, unchanged
    elif stat.S_ISREG(status.st_mode):
        with path.open("rb") as content:
            tar.addfile(_entry(name, mode, status.st_size), content)
    elif not stat.S_ISSOCK(status.st_mode):  # Docker skips sockets
        raise UsageError(f"{path} is not a file, folder or link", hint="exclude it in .dockerignore")


def _entry(name: str, mode: int, size: int = 0, *, kind: bytes = b"0", link: str = "") -> tarfile.TarInfo:
    from tarfile import TarInfo

    entry = TarInfo(name)
    entry.mode, entry.size, entry.type, entry.linkname, entry.mtime = mode, size, kind, link, _TIME
    return entry


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Turn an error of the file system into a UsageError that names the context."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"the build context {folder} cannot be read: {error}",
            hint="make it readable for you, or exclude it in .dockerignore",
        ) from error


class _Meter:
    """Computes the digest of a stream, passes it on, and refuses one that is too large."""

    def __init__(self, name: str, sink: _Sink | None = None) -> None:
        self.hash = hashlib.sha256()
        self._name = name
        self._sink = sink
        self._size = 0

    def write(self, data: bytes) -> int:
        """Take the next bytes."""
        self._size += len(data)
        if self._size > LIMIT:
            raise UsageError(
                f"the build context {self._name} is larger than {LIMIT >> 20} MiB, the limit for one build",
                hint="exclude what the build does not need in .dockerignore",
            )
        self.hash.update(data)
        if self._sink is not None:
            self._sink.write(data)
        return len(data)
