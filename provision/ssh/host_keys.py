"""known_hosts files: who is known by which keys. Format: sshd(8), SSH_KNOWN_HOSTS FILE FORMAT.

paramiko reads these too, but passes `@revoked` over and knows no wildcards, and writing rewrites the whole
file without its comments. Here a file is read as OpenSSH reads it, and only ever appended to.

Whether a host's key is the right one. Strict: what is not known is refused, what has changed always.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import fnmatch
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from provision.errors import HostKeyError, InventoryError
from provision.ssh.session import HostKeys

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


# In the order of preference where nothing is known: as OpenSSH has it.
_ALGORITHMS = {
    "ssh-ed25519": ("ssh-ed25519",),
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256"),
}


class OtherKeyPinned(HostKeyError):
    """The key seen is not the pinned one; a key of another type might still be."""


@dataclass(frozen=True)
class HostKeyRule:
    """What is demanded of one host's key, a gateway's included.

    `inventory_name` is empty for a gateway, which has no entry to pin a key in.
    """

    what: str
    host: str
    port: int
    known: KnownHosts
    policy: HostKeys = "strict"
    pin: str | None = None
    inventory_name: str = ""

    def algorithms(self, without: frozenset[str] = frozenset()) -> tuple[str, ...]:
        """Host key algorithms to offer, best first; key types in `without` were tried already.

        Types that the host is known by come first: else a host known by one type looks unknown by another.
        """
        if pinned := self._pinned_type():
            return _ALGORITHMS.get(pinned, (pinned,))
        known = {key.kind for key in self._keys() if not key.marker}
        kinds = sorted((kind for kind in _ALGORITHMS if kind not in without), key=lambda kind: kind not in known)
        return tuple(algorithm for kind in kinds for algorithm in _ALGORITHMS[kind])

    def check(self, kind: str, blob: bytes) -> None:
        """Raises HostKeyError unless this key may be trusted; notes it where accept-new says so."""
        keys = self._keys()
        seen = f"{kind} {fingerprint(blob)}"
        for key in keys:
            if key.marker == "@revoked" and key.blob == blob:
                raise HostKeyError(
                    f"{self.what}: its key {seen} is revoked by {key.place}",
                    hint="do not connect: give the host a new key, then note that one",
                )
        if self.pin is not None:
            self._check_pin(blob, seen)
            return
        plain = [key for key in keys if not key.marker]
        if any(key.blob == blob for key in plain):
            return
        if not plain and self.policy == "accept-new":
            plain = self.known.add(self.host, self.port, kind, blob)
            if not plain or any(key.blob == blob for key in plain):
                return
        if plain:
            raise self._changed(kind, seen, plain)
        raise self._unknown(kind, blob, seen, keys)

    def _keys(self) -> list[KnownKey]:
        return self.known.lookup(self.host, self.port)

    def _pinned_type(self) -> str | None:
        """The type of the pinned key, where the pin or a known_hosts line tells it."""
        if self.pin is None:
            return None
        if not self.pin.startswith("SHA256:"):
            return self.pin.split()[0]
        same = (key.kind for key in self._keys() if fingerprint(key.blob) == self.pin.strip().rstrip("="))
        return next(same, None)

    def _check_pin(self, blob: bytes, seen: str) -> None:
        assert self.pin is not None
        wanted = self.pin.strip().rstrip("=") if self.pin.startswith("SHA256:") else fingerprint(_key_of(self.pin))
        if wanted == fingerprint(blob):
            return
        raise OtherKeyPinned(
            f"{self.what}: its key is {seen}, and the inventory pins {wanted}",
            hint=f"if the host was set up anew, check the fingerprint on its console, then change host_key in"
            f" [hosts.{self.inventory_name}]; if not, somebody may stand in between",
        )

    def _changed(self, kind: str, seen: str, known: list[KnownKey]) -> HostKeyError:
        same = [key for key in known if key.kind == kind] or known
        old = " and ".join(f"{key.kind} {fingerprint(key.blob)} ({key.place})" for key in same)
        return HostKeyError(
            f"{self.what}: its key has changed: it shows {seen}, and is known by {old}",
            hint=f"if the host was set up anew, check the fingerprint on its console, then take the old key out with"
            f" `ssh-keygen -R '{host_label(self.host, self.port)}' -f {self._file(same[0])}`; if not, somebody may"
            " stand in between",
        )

    def _unknown(self, kind: str, blob: bytes, seen: str, keys: list[KnownKey]) -> HostKeyError:
        files = " or ".join(str(file) for file in self.known.files) or "any file (~/.ssh/config names none)"
        authority = next((key.place for key in keys if key.marker == "@cert-authority"), "")
        by = f" ({authority} trusts an authority for it: host certificates are not supported)" if authority else ""
        scan = f"ssh-keyscan -t {kind.removeprefix('ssh-').partition('-')[0]} -p {self.port} {self.host}"
        ways = ['set host_keys = "accept-new" in [ssh]']
        if self.known.files:
            ways.insert(0, f"note it (`{scan} >> {self.known.files[0]}`)")
        if self.inventory_name:
            ways.insert(0, f'pin it (host_key = "{fingerprint(blob)}" in [hosts.{self.inventory_name}])')
        return HostKeyError(
            f"{self.what}: its key {seen} is not known in {files}{by}",
            hint=f"compare the fingerprint with the host's own (`ssh-keygen -lf` there), then {', or '.join(ways)}",
        )

    def _file(self, key: KnownKey) -> str:
        return key.place.rpartition(" line ")[0]


def check_pin_syntax(pin: str) -> None:
    """Raises InventoryError for a `host_key` that is neither a fingerprint nor a public key."""
    if pin.startswith("SHA256:") and len(pin.strip().rstrip("=")) == len("SHA256:") + 43:
        return
    _key_of(pin)


def _key_of(pin: str) -> bytes:
    fields = pin.split()
    try:
        if len(fields) >= 2 and (blob := base64.b64decode(fields[1], validate=True)):
            return blob
    except (binascii.Error, ValueError):
        pass
    raise InventoryError(
        f"host_key {pin!r} is no key", hint='expected "SHA256:…" or "ssh-ed25519 AAAA…", as ssh-keyscan prints it'
    )
