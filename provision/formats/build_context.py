"""What a .dockerignore excludes. Pure.

Lines are patterns as Go's filepath.Match has them, and `**` for any number of folders; `!` takes back in; the last line
that fits decides; what fits a folder fits all below it. `#` begins a comment in the first column only.
Sources: docs.docker.com "Build context", github.com/moby/patternmatcher (its regular expressions and its order).

A build context: a folder on this machine as a tar stream that is the same, byte for byte, wherever it is packed.

Entries are sorted; times are fixed; owners are root; what group and others may write is theirs to read only, as a
checkout's umask decides that. So its digest names what is built. It is sent within one message to the host, which holds
it in memory a few times over: hence the limit.
"""

from __future__ import annotations

import hashlib
import io
import os
import posixpath
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from provision.errors import UsageError

if TYPE_CHECKING:
    import tarfile


# Which patterns fit a path or a folder above it, one for each line.
Fits = tuple[bool, ...]


@dataclass(frozen=True)
class Ignore:
    """The patterns in order; `exceptions` are those that began with `!`."""

    patterns: tuple[re.Pattern[str], ...]
    exceptions: Fits

    @classmethod
    def parse(cls, text: str) -> Ignore:
        """A file's text. Raises ValueError that names the line of a pattern that is none."""
        patterns, exceptions = [], []
        for number, line in _lines(text):
            exception = line.startswith("!")
            pattern = _clean(line[1:] if exception else line)
            if not pattern:
                raise ValueError(f"line {number}: {line!r} excludes nothing: a pattern is missing")
            try:
                patterns.append(re.compile(_expression(pattern)))
            except re.error:
                raise ValueError(f"line {number}: {line!r} is no pattern: look at its brackets") from None
            exceptions.append(exception)
        return cls(tuple(patterns), tuple(exceptions))

    @property
    def none(self) -> Fits:
        """What fits the top folder itself."""
        return (False,) * len(self.patterns)

    @property
    def has_exceptions(self) -> bool:
        """Whether something below an excluded folder may be wanted."""
        return any(self.exceptions)

    def fits(self, path: str, above: Fits) -> Fits:
        """Which patterns fit a path, given those that fit the folder it is in."""
        return tuple(
            inherited or bool(pattern.fullmatch(path)) for pattern, inherited in zip(self.patterns, above, strict=True)
        )

    def excluded(self, fits: Fits) -> bool:
        """Whether the path that these patterns fit is excluded: the last of them decides."""
        for fit, exception in zip(reversed(fits), reversed(self.exceptions), strict=True):
            if fit:
                return not exception
        return False


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if not line.startswith("#") and (stripped := line.strip()):
            yield number, stripped


def _clean(pattern: str) -> str:
    """As Go's filepath.Clean, and without the slash that stands for the context's own folder."""
    stripped = pattern.strip()
    if not stripped:
        return ""
    cleaned = posixpath.normpath(stripped)
    return cleaned.lstrip("/") if len(cleaned.lstrip("/")) else cleaned


def _expression(pattern: str) -> str:
    """The pattern as a regular expression for a whole path."""
    if pattern.startswith("**") and not pattern.startswith("**/") and not re.search(r"[*?\[\]\\]", pattern[2:]):
        return ".*" + re.escape(pattern[2:])  # `**.pyc`: whatever ends so, in any folder
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
            found += re.escape(pattern[place : place + 1] or "\\")
            place += 1
        elif letter == "[":
            members, place = _members(pattern, place)
            found += members
        else:
            found += re.escape(letter)
    return f"(?s:{found})"


def _members(pattern: str, place: int) -> tuple[str, int]:
    """A class of letters from behind its bracket on, and where it ends."""
    end = pattern.find("]", place + pattern.startswith("^", place) + 1)
    if end < 0:
        raise re.error("no closing bracket")
    negated = pattern.startswith("^", place)
    inside = re.sub(r"([\[\]&~|^])", r"\\\1", pattern[place + negated : end])
    return f"[{'^/' if negated else ''}{inside}]", end + 1


# tarfile and gzip take milliseconds to import: only who builds images pays for them.
LIMIT: Final = 100 * 1024 * 1024  # bytes of the tar stream
_TIME: Final = 315_619_200  # 1980-01-02: zip files, wheels among them, know nothing older
_NOT_WRITABLE_BY_OTHERS: Final = 0o7755


class _Sink(Protocol):
    def write(self, data: bytes, /) -> Any: ...


@dataclass(frozen=True)
class Context:
    """A folder and its Dockerfile.

    dockerfile  its path inside the context
    rendered    the Dockerfile's text where it is made from a template; it is sent in the place of one that is there
    """

    folder: Path
    dockerfile: str = "Dockerfile"
    rendered: bytes | None = field(default=None, repr=False)

    def digest(self) -> str:
        """sha256 of the tar stream, in hexadecimal. Raises UsageError: what is missing, unreadable or too large."""
        meter = _Meter(str(self.folder))
        self._pack(meter)
        return meter.hash.hexdigest()

    def packed(self) -> tuple[bytes, str]:
        """The tar stream, compressed, and its digest. Raises UsageError likewise."""
        import gzip

        memory = io.BytesIO()
        with gzip.GzipFile("", "wb", 6, memory, mtime=0) as zipped:
            meter = _Meter(str(self.folder), zipped)
            self._pack(meter)
        return memory.getvalue(), meter.hash.hexdigest()

    def _pack(self, sink: _Sink) -> None:
        import tarfile

        with _Told(self.folder):
            self._check()
        with _Told(self.folder), tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]  # it only writes
            for name, path in self._entries():
                _add(tar, name, path)
            if self.rendered is not None:
                tar.addfile(_entry(self.dockerfile, 0o644, len(self.rendered)), io.BytesIO(self.rendered))

    def _check(self) -> None:
        if not self.folder.is_dir():
            what = "is no folder" if self.folder.exists() else "is not there"
            raise UsageError(f"the build context {self.folder} {what}", hint="context is a folder on this machine")
        if self.rendered is None and not (self.folder / self.dockerfile).is_file():
            raise UsageError(
                f"there is no {self.dockerfile} in {self.folder}",
                hint="write one, name it in dockerfile, or choose a template",
            )

    def _entries(self) -> Iterator[tuple[str, Path]]:
        """What is sent, in order, folders before what is in them."""
        ignore = self._ignore()
        kept: set[str] = set()
        for name, path, excluded in _walk(self.folder, "", ignore, ignore.none, self.dockerfile):
            # Docker wants to see these two though they are excluded.
            if excluded and name not in (self.dockerfile, ".dockerignore"):
                continue
            if name == self.dockerfile and self.rendered is not None:
                continue
            for above in [*reversed(Path(name).parents)][1:]:
                if str(above) not in kept:
                    kept.add(str(above))
                    yield str(above), self.folder / above
            kept.add(name)
            yield name, path

    def _ignore(self) -> Ignore:
        for name in (f"{self.dockerfile}.dockerignore", ".dockerignore"):
            path = self.folder / name
            if path.is_file():
                try:
                    return Ignore.parse(path.read_text("utf-8", "surrogateescape"))
                except (OSError, ValueError) as error:
                    raise UsageError(f"{path}: {error}", hint="docs.docker.com tells its rules") from error
        return Ignore((), ())


def _walk(folder: Path, below: str, ignore: Ignore, above: Fits, needed: str) -> Iterator[tuple[str, Path, bool]]:
    """All that is in a folder, with whether it is excluded. Excluded folders are entered only for what may be wanted."""
    with _Told(folder), os.scandir(folder) as scan:
        entries = sorted(scan, key=lambda one: one.name)
    for entry in entries:
        name = f"{below}{entry.name}"
        fits = ignore.fits(name, above)
        excluded = ignore.excluded(fits)
        yield name, Path(entry.path), excluded
        wanted = not excluded or ignore.has_exceptions or needed.startswith(f"{name}/")
        if wanted and entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), f"{name}/", ignore, fits, needed)


def _add(tar: tarfile.TarFile, name: str, path: Path) -> None:
    from tarfile import DIRTYPE, SYMTYPE

    status = path.lstat()
    mode = stat.S_IMODE(status.st_mode) & _NOT_WRITABLE_BY_OTHERS
    if stat.S_ISDIR(status.st_mode):
        tar.addfile(_entry(name, mode, kind=DIRTYPE))
    elif stat.S_ISLNK(status.st_mode):
        tar.addfile(_entry(name, 0o777, kind=SYMTYPE, link=os.readlink(path)))  # noqa: PTH115 - as it stands
    elif stat.S_ISREG(status.st_mode):
        with path.open("rb") as content:
            tar.addfile(_entry(name, mode, status.st_size), content)
    elif not stat.S_ISSOCK(status.st_mode):  # Docker passes sockets over
        raise UsageError(f"{path} is no file, folder or link", hint="exclude it in .dockerignore")


def _entry(name: str, mode: int, size: int = 0, *, kind: bytes = b"0", link: str = "") -> tarfile.TarInfo:
    from tarfile import TarInfo

    entry = TarInfo(name)
    entry.mode, entry.size, entry.type, entry.linkname, entry.mtime = mode, size, kind, link, _TIME
    return entry


class _Told:
    """Says of a file that cannot be read which it is."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        """Nothing to open."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError):
            raise UsageError(
                f"the build context {self._folder} cannot be read: {error}",
                hint="make it readable for you, or exclude it in .dockerignore",
            ) from error


class _Meter:
    """Takes the stream's digest, and refuses one that is too large."""

    def __init__(self, name: str, sink: _Sink | None = None) -> None:
        self.hash = hashlib.sha256()
        self._name = name
        self._sink = sink
        self._size = 0

    def write(self, data: bytes) -> int:
        """Takes the next piece."""
        self._size += len(data)
        if self._size > LIMIT:
            raise UsageError(
                f"the build context {self._name} has more than {LIMIT >> 20} MiB, which is the most that is sent",
                hint="exclude in .dockerignore what the build does not need",
            )
        self.hash.update(data)
        if self._sink is not None:
            self._sink.write(data)
        return len(data)
