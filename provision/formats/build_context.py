"""A build context: a folder on this machine as a tar stream with the same bytes on every machine.

Entries are sorted, times are fixed, owners are root, and the write permissions of group and others are removed, since
they depend on a checkout's umask. Therefore the digest of the stream identifies its content. The stream is sent to
the host in one message, and several copies of it are in memory: therefore its size is limited.

Files that .dockerignore names are left out. Each of its lines is a pattern as Go's filepath.Match has them, with `**`
for any number of folders. `!` includes again what an earlier line left out. The last line that matches decides. A pattern
that matches a folder matches everything below it. `#` begins a comment in the first column only. A `!` line counts for a
folder only when an earlier line left that folder out. So `**/.env` followed by `!app` leaves app/.env out, as Docker does
from 23.0 on; 20.10 included it.

Sources: docs.docker.com "Build context"; github.com/moby/patternmatcher, `MatchesUsingParentResults`.
"""

from __future__ import annotations

import hashlib
import io
import os
import posixpath
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from provision.errors import UsageError

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


Matches: TypeAlias = tuple[bool, ...]
"""Which patterns match a path or a folder above it, one for each line."""


@dataclass(frozen=True)
class Ignore:
    """The patterns in order; `exceptions` are those that began with `!`."""

    patterns: tuple[re.Pattern[str], ...] = ()
    exceptions: tuple[bool, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Ignore:
        """Read the text of a file. Raises ValueError that names the line of a pattern that is not valid."""
        patterns, exceptions = [], []
        for number, line in _lines(text):
            exception = line.startswith("!")
            pattern = _clean(line[1:] if exception else line)
            if not pattern:
                raise ValueError(f"line {number}: {line!r} has no pattern")
            try:
                patterns.append(re.compile(_expression(pattern)))
            except re.error:
                raise ValueError(
                    f"line {number}: {line!r} is not a valid pattern: check its brackets and backslashes"
                ) from None
            exceptions.append(exception)
        return cls(tuple(patterns), tuple(exceptions))

    @property
    def top(self) -> Matches:
        """The matches of the context's own folder: none."""
        return (False,) * len(self.patterns)

    @property
    def has_exceptions(self) -> bool:
        """Whether something below an excluded folder may be included."""
        return any(self.exceptions)

    def match(self, path: str, parent: Matches) -> tuple[Matches, bool]:
        """Return the matches of a path, given those of its folder, and whether the path is excluded."""
        excluded = False
        found = []
        for pattern, exception, inherited in zip(self.patterns, self.exceptions, parent, strict=True):
            # A line that would not change the result is not tried, so it does not match below this path either.
            matches = inherited or (exception == excluded and pattern.fullmatch(path) is not None)
            found.append(matches)
            if matches:
                excluded = not exception
        return tuple(found), excluded


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if not line.startswith("#") and (stripped := line.strip()):
            yield number, stripped


def _clean(pattern: str) -> str:
    """The pattern after Go's filepath.Clean, without a slash at the beginning."""
    stripped = pattern.strip()
    if not stripped:
        return ""
    cleaned = posixpath.normpath(stripped)
    return cleaned.lstrip("/") or cleaned


def _expression(pattern: str) -> str:
    """The pattern as a regular expression for a whole path."""
    if pattern.startswith("**") and not pattern.startswith("**/") and not re.search(r"[*?\[\]\\]", pattern[2:]):
        return ".*" + re.escape(pattern[2:])  # `**.pyc`: any name with this ending, in any folder
    found, place = "", 0
    while place < len(pattern):
        letter = pattern[place]
        place += 1
        if pattern.startswith("**", place - 1):
            place += 1
            place += pattern.startswith("/", place)
            found += ".*" if place >= len(pattern) else "(?:.*/)?"
        elif letter == "*":
            found += "[^/]*"
        elif letter == "?":
            found += "[^/]"
        elif letter == "\\":
            if pattern[place : place + 1].isalnum():
                raise re.error("a backslash before a letter")  # Docker treats it as a part of a regular expression
            found += re.escape(pattern[place : place + 1] or "\\")
            place += 1
        elif letter == "[":
            members, place = _members(pattern, place)
            found += members
        else:
            found += re.escape(letter)
    return f"(?s:{found})"


def _members(pattern: str, place: int) -> tuple[str, int]:
    """The class of letters that begins at `place`, after its bracket, and the offset of its end."""
    end = pattern.find("]", place + pattern.startswith("^", place) + 1)
    if end < 0:
        raise re.error("no closing bracket")
    negated = pattern.startswith("^", place)
    inside = re.sub(r"([\[\]&~|^])", r"\\\1", pattern[place + negated : end])
    return f"[{'^/' if negated else ''}{inside}]", end + 1
