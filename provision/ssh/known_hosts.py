"""known_hosts files: who is known by which keys. Format: sshd(8), SSH_KNOWN_HOSTS FILE FORMAT.

paramiko reads these too, but passes `@revoked` over and knows no wildcards, and writing rewrites the whole
file without its comments. Here a file is read as OpenSSH reads it, and only ever appended to.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import fnmatch
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

from provision.values import dataclass

Marker = Literal["", "@revoked", "@cert-authority"]
_DEFAULT_PORT = 22
_USER, _SYSTEM = "~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts"


@dataclass(frozen=True)
class KnownKey:
    """One line of a file that speaks of the host asked for."""

    kind: str
    blob: bytes
    place: str
    marker: Marker = ""


def fingerprint(blob: bytes) -> str:
    """A key as OpenSSH shows it: `SHA256:` and unpadded base64."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def host_label(host: str, port: int) -> str:
    """How a host and port are written in the files."""
    return host if port == _DEFAULT_PORT else f"[{host}]:{port}"


class KnownHosts:
    """Several files read as one; the first is the one that `add` appends to."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = tuple(files)

    @classmethod
    def of(cls, file: str | Path | None, ssh_config: Mapping[str, str]) -> KnownHosts:
        """The inventory's file alone, or the user's and the system's, which ~/.ssh/config may name."""
        if file is not None:
            return cls([Path(file).expanduser()])
        user = ssh_config.get("userknownhostsfile", _USER)
        system = ssh_config.get("globalknownhostsfile", _SYSTEM)
        return cls([Path(one).expanduser() for names in (user, system) for one in names.split() if one != "none"])

    def lookup(self, host: str, port: int) -> list[KnownKey]:
        """Every line that speaks of `host` at `port`, in order, revoked and authority lines included."""
        label = host_label(host.lower(), port)
        return [key for file in self.files for key in _keys_of(file, label)]

    def add(self, host: str, port: int, kind: str, blob: bytes) -> list[KnownKey]:
        """Appends a line, unless another run has meanwhile noted one: then returns what it noted instead."""
        if not self.files:
            return []  # ~/.ssh/config says that there is none: known for this time only
        file = self.files[0]
        label = host_label(host.lower(), port)
        if not file.parent.is_dir():
            file.parent.mkdir(mode=0o700, parents=True)
        with file.open("a+b") as out:
            fcntl.flock(out, fcntl.LOCK_EX)
            if noted := _keys_of(file, label):
                return list(noted)
            if out.tell() == 0:
                file.chmod(0o600)
            line = f"{label} {kind} {base64.b64encode(blob).decode()}\n"
            out.write((b"" if _ends_line(file) else b"\n") + line.encode())
        return []


def _ends_line(file: Path) -> bool:
    with file.open("rb") as text:
        if text.seek(0, 2) == 0:
            return True
        text.seek(-1, 2)
        return text.read(1) == b"\n"


def _keys_of(file: Path, label: str) -> tuple[KnownKey, ...]:
    try:
        status = file.stat()
    except FileNotFoundError:
        return ()
    return _scan(file, (status.st_mtime_ns, status.st_size), label)


@lru_cache(maxsize=8)
def _lines(file: Path, version: tuple[int, int]) -> list[tuple[int, str]]:  # noqa: ARG001  keys the cache
    """The file's numbered lines without comments, read once for all hosts of a run."""
    text = file.read_text(encoding="utf-8", errors="replace")
    lines = [(n, line.strip()) for n, line in enumerate(text.splitlines(), 1)]
    return [(n, line) for n, line in lines if line and not line.startswith("#")]


@lru_cache(maxsize=1024)
def _scan(file: Path, version: tuple[int, int], label: str) -> tuple[KnownKey, ...]:
    """The lines that speak of a host; a hashed name costs a hash to compare, so not twice for one host."""
    found = []
    for number, line in _lines(file, version):
        fields = line.split()
        marker: Marker = ""
        if fields[0] == "@revoked" or fields[0] == "@cert-authority":
            marker = fields.pop(0)  # type: ignore[assignment]
        if len(fields) < 3 or not _speaks_of(fields[0], label):
            continue
        try:
            blob = base64.b64decode(fields[2], validate=True)
        except (binascii.Error, ValueError):
            continue  # OpenSSH passes a damaged line over as well
        found.append(KnownKey(fields[1], blob, f"{file} line {number}", marker))
    return tuple(found)


def _speaks_of(names: str, label: str) -> bool:
    if names.startswith("|1|"):
        return _is_hash_of(names, label)
    hit = False
    for pattern in names.lower().split(","):
        negated = pattern.startswith("!")
        if _matches(label, pattern.removeprefix("!")):
            if negated:
                return False
            hit = True
    return hit


def _matches(label: str, pattern: str) -> bool:
    if "*" not in pattern and "?" not in pattern:
        return label == pattern
    # Only * and ? are wild in these files; [ opens a port's brackets, not a set.
    return fnmatch.fnmatchcase(label, pattern.replace("[", "[[]"))


def _is_hash_of(field: str, label: str) -> bool:
    try:
        _, _, salt, digest = field.split("|")
        wanted = hmac.new(base64.b64decode(salt), label.encode(), hashlib.sha1).digest()
        return hmac.compare_digest(wanted, base64.b64decode(digest))
    except (ValueError, binascii.Error):
        return False
