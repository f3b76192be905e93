"""Checking host keys, and the known_hosts files. Format: sshd(8), SSH_KNOWN_HOSTS FILE FORMAT.

A host with an unknown key is refused unless host_keys = "accept-new"; a host with a changed key is always refused.

paramiko reads known_hosts files too, but it ignores `@revoked`, supports no wildcards, and rewrites the whole file
without its comments. Here a file is read as OpenSSH reads it, and only appended to.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import hashlib
import hmac
import os
import stat
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

from provision.errors import HostKeyError, InventoryError
from provision.ssh.host_certificates import CERTIFICATE_SUFFIX, HostCertificate, is_revoked
from provision.ssh.session import HostKeys
from provision.ssh.ssh_config_files import matches_patterns

KeyMarker = Literal["", "@revoked", "@cert-authority"]
_DEFAULT_PORT = 22


class KnownKey(NamedTuple):
    """One line of a known_hosts file that matches a host.

    kind       the key type, such as ssh-ed25519
    blob       the public key, in SSH's wire format
    location   file and line, for messages
    """

    kind: str
    blob: bytes
    location: str
    marker: KeyMarker = ""


def fingerprint(blob: bytes) -> str:
    """A key's fingerprint as OpenSSH prints it: `SHA256:` and unpadded base64."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def known_hosts_name(host: str, port: int) -> str:
    """A host and port as they are written in known_hosts files."""
    return host if port == _DEFAULT_PORT else f"[{host}]:{port}"


class KnownHosts:
    """Several known_hosts files, read in order. `add` appends to the first."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = tuple(files)

    def lookup(self, host: str, port: int) -> list[KnownKey]:
        """Every line that matches `host` at `port`, in order, @revoked and @cert-authority lines included."""
        name = known_hosts_name(host.lower(), port)
        return [key for file in self.files for key in _keys_of(file, name)]

    def add(self, host: str, port: int, kind: str, blob: bytes) -> list[KnownKey]:
        """Append a line for the host. If another run has recorded keys for it meanwhile, return those instead."""
        if not self.files:
            return []  # ~/.ssh/config names no file: the key is accepted for this connection only
        file = self.files[0]
        if file.exists() and not file.is_file():
            return []  # /dev/null, as users set it: nothing is recorded, and its mode stays
        name = known_hosts_name(host.lower(), port)
        if not file.parent.is_dir():
            file.parent.mkdir(mode=0o700, parents=True)
        with os.fdopen(os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600), "ab") as out:
            fcntl.flock(out, fcntl.LOCK_EX)
            if recorded := [key for key in _keys_of(file, name) if not key.marker]:
                return recorded
            line = f"{name} {kind} {base64.b64encode(blob).decode()}\n"
            out.write((b"" if _ends_line(file) else b"\n") + line.encode())
        return []


def _ends_line(file: Path) -> bool:
    with file.open("rb") as text:
        if text.seek(0, 2) == 0:
            return True
        text.seek(-1, 2)
        return text.read(1) == b"\n"


def _keys_of(file: Path, name: str) -> tuple[KnownKey, ...]:
    try:
        status = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return ()
    if not stat.S_ISREG(status.st_mode):
        return ()
    return _scan(file, (status.st_mtime_ns, status.st_size), name)


class _Line(NamedTuple):
    """One line of a known_hosts file: its number, its names, and the fields after them."""

    number: int
    names: str
    marker: KeyMarker
    kind: str
    blob: str


class _Index(NamedTuple):
    """The lines of a file, arranged so that looking up thousands of hosts in thousands of lines is fast.

    named     by host name
    patterns  lines whose names have wildcards
    hashed    lines with a hashed name: its salt, its hash, and the line
    """

    named: dict[str, list[_Line]]
    patterns: list[_Line]
    hashed: list[tuple[bytes, bytes, _Line]]

    def of(self, name: str) -> list[_Line]:
        """Every line that matches the name, in the order of the file."""
        found = list(self.named.get(name, ()))
        found += [line for line in self.patterns if matches_patterns(name, line.names.lower().split(","))]
        wanted = name.encode()
        found += [
            line for salt, digest, line in self.hashed if hmac.compare_digest(hmac.digest(salt, wanted, "sha1"), digest)
        ]
        return sorted(found)


@lru_cache(maxsize=8)
def _index(file: Path, version: tuple[int, int]) -> _Index:  # noqa: ARG001  keys the cache
    """The file's lines without comments, read once for all hosts."""
    index = _Index({}, [], [])
    for number, text in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        fields = text.split()
        if not fields or fields[0].startswith("#"):
            continue
        marker: KeyMarker = ""
        if fields[0] == "@revoked" or fields[0] == "@cert-authority":
            marker = fields.pop(0)  # type: ignore[assignment]
        if len(fields) < 3:
            continue
        line = _Line(number, fields[0], marker, fields[1], fields[2])
        if line.names.startswith("|1|"):
            if (hashed := _read_hash(line.names)) is not None:
                index.hashed.append((*hashed, line))
        elif any(one in line.names for one in "*?!"):
            index.patterns.append(line)
        else:
            for name in set(line.names.lower().split(",")):
                index.named.setdefault(name, []).append(line)
    return index


@lru_cache(maxsize=1024)
def _scan(file: Path, version: tuple[int, int], name: str) -> tuple[KnownKey, ...]:
    """The lines that match a host. Cached, since each hashed name in the file costs a hash."""
    found = []
    for line in _index(file, version).of(name):
        try:
            blob = base64.b64decode(line.blob, validate=True)
        except (binascii.Error, ValueError):
            continue  # OpenSSH skips a damaged line too
        found.append(KnownKey(line.kind, blob, f"{file} line {line.number}", line.marker))
    return tuple(found)


def _read_hash(field: str) -> tuple[bytes, bytes] | None:
    """Salt and hash of a hashed name; None for one that is damaged, which matches no host."""
    try:
        _, _, salt, digest = field.split("|")
        return base64.b64decode(salt), base64.b64decode(digest)
    except (ValueError, binascii.Error):
        return None


# Key types and their signature algorithms, in OpenSSH's order of preference.
_ALGORITHMS = {
    "ssh-ed25519": ("ssh-ed25519",),
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256"),
}


class OtherKeyPinned(HostKeyError):
    """The host presented another key than the pinned one. Its key of another type may still be the pinned one."""


class HostKeyRule(NamedTuple):
    """Which keys are accepted from one host or gateway.

    label            names the host in messages
    host, port       as known_hosts files name it
    pin              the only accepted key, from the inventory
    inventory_name   empty for a gateway, which has no entry to pin a key in
    revoked          RevokedHostKeys: keys that are refused, whatever else is recorded
    """

    label: str
    host: str
    port: int
    known: KnownHosts
    policy: HostKeys = "strict"
    pin: str | None = None
    inventory_name: str = ""
    revoked: Path | None = None

    def algorithms(self, without: frozenset[str] = frozenset()) -> tuple[str, ...]:
        """Host key algorithms to offer, best first, without the key types that were tried already.

        The types recorded for the host come first: otherwise the host may present a key of a type that is not recorded.
        """
        if pinned := self._pinned_type():
            return _ALGORITHMS.get(pinned, (pinned,))
        known, by_name = (
            {key.kind for key in keys if not key.marker} for keys in (self._keys(), self._keys_without_port())
        )
        kinds = sorted(
            (kind for kind in _ALGORITHMS if kind not in without),
            key=lambda kind: (kind not in known, kind not in by_name),
        )
        plain = tuple(algorithm for kind in kinds for algorithm in _ALGORITHMS[kind])
        if self._authorities() or self.revoked is not None:
            return (*(f"{algorithm}{CERTIFICATE_SUFFIX}" for algorithm in plain), *plain)
        return plain

    @property
    def pins_unknown_type(self) -> bool:
        """Whether the pin is a fingerprint, so that the pinned key may be of another type than the presented one."""
        return self.pin is not None and self.pin.startswith("SHA256:")

    def check(self, kind: str, blob: bytes, certificate: bytes | None = None) -> None:
        """Raise HostKeyError unless this key is accepted. Record a new key when the policy is accept-new.

        `certificate` contains the key, signed by an authority, if the host presented one.
        """
        keys = self._keys()
        presented = f"{kind} {fingerprint(blob)}"
        signed, refusal = _read_certificate(certificate)
        self._check_revoked(presented, tuple(one for one in (blob, certificate, signed and signed.authority) if one))
        if self.pin is not None:
            self._check_pin(blob, presented)
            return
        if signed is not None and signed.authority in self._authorities():
            refusal = signed.refusal(self.host.lower())
            if not refusal:
                return
        # As in OpenSSH, a certificate that does not count leaves the plain key in it.
        plain = [key for key in keys if not key.marker]
        if any(key.blob == blob for key in plain):
            return
        # OpenSSH asks for [host]:port and then for the bare name, which can accept a key but not refuse one.
        if not plain and any(key.blob == blob and not key.marker for key in self._keys_without_port()):
            return
        if not plain and self.policy == "accept-new":
            plain = self._record(kind, blob)
            if not plain or any(key.blob == blob for key in plain):
                return
        if plain:
            raise self._changed(kind, presented, plain)
        raise self._unknown(kind, blob, presented, refusal)

    def _record(self, kind: str, blob: bytes) -> list[KnownKey]:
        try:
            return self.known.add(self.host, self.port, kind, blob)
        except OSError as error:
            raise HostKeyError(
                f"{self.label}: the new host key cannot be recorded in {self.known.files[0]}: {error.strerror or error}",
                hint="make the file writable, or set known_hosts in [ssh] to a file that is",
            ) from error

    def _check_revoked(self, presented: str, blobs: tuple[bytes, ...]) -> None:
        """`blobs`: the key, its certificate, and the authority of that."""
        location = next(
            (
                key.location
                for key in (*self._keys(), *self._keys_without_port())
                if key.marker == "@revoked" and key.blob in blobs
            ),
            "",
        )
        if not location and self.revoked is not None and is_revoked(self.revoked, blobs, self.label):
            location = str(self.revoked)
        if location:
            raise HostKeyError(
                f"{self.label}: the host key {presented} is revoked by {location}",
                hint="do not connect: generate a new key on the host, then record that one in known_hosts",
            )

    def _authorities(self) -> dict[bytes, str]:
        """The authorities that are trusted for the host, with their locations."""
        keys = (*self._keys(), *self._keys_without_port())
        return {key.blob: key.location for key in keys if key.marker == "@cert-authority"}

    def _keys_without_port(self) -> list[KnownKey]:
        return self.known.lookup(self.host, _DEFAULT_PORT) if self.port != _DEFAULT_PORT else []

    def _keys(self) -> list[KnownKey]:
        return self.known.lookup(self.host, self.port)

    def _pinned_type(self) -> str | None:
        """The type of the pinned key, if the pin or a known_hosts line contains it."""
        if self.pin is None:
            return None
        if not self.pin.startswith("SHA256:"):
            return self.pin.split()[0]
        same = (key.kind for key in self._keys() if fingerprint(key.blob) == self.pin.strip().rstrip("="))
        return next(same, None)

    def _check_pin(self, blob: bytes, presented: str) -> None:
        assert self.pin is not None
        pinned = self.pin.strip().rstrip("=") if self.pin.startswith("SHA256:") else fingerprint(_blob_of(self.pin))
        if pinned == fingerprint(blob):
            return
        raise OtherKeyPinned(
            f"{self.label}: the host key is {presented}, but the inventory pins {pinned}",
            hint=f"if the host was reinstalled, compare the fingerprint on its console, then change host_key in"
            f" [hosts.{self.inventory_name}]; otherwise the connection may be intercepted",
        )

    def _changed(self, kind: str, presented: str, known: list[KnownKey]) -> HostKeyError:
        same = [key for key in known if key.kind == kind] or known
        old = " and ".join(f"{key.kind} {fingerprint(key.blob)} ({key.location})" for key in same)
        return HostKeyError(
            f"{self.label}: the host key has changed: the host presents {presented}, recorded is {old}",
            hint=f"if the host was reinstalled, compare the fingerprint on its console, then remove the old key with"
            f" `ssh-keygen -R '{known_hosts_name(self.host, self.port)}' -f {_file_of(same[0])}`; otherwise the connection"
            " may be intercepted",
        )

    def _unknown(self, kind: str, blob: bytes, presented: str, refusal: str) -> HostKeyError:
        searched = [file for number, file in enumerate(self.known.files) if number == 0 or file.exists()]
        files = " or ".join(str(file) for file in searched) or "any file (~/.ssh/config names none)"
        authority = next(iter(self._authorities().values()), "")
        note = f" ({authority} trusts an authority, but the host presented no certificate of it)" if authority else ""
        note = f"; its certificate does not count: {refusal}" if refusal else note
        scan = f"ssh-keyscan -t {kind.removeprefix('ssh-').partition('-')[0]} -p {self.port} {self.host}"
        ways = ['set host_keys = "accept-new" in [ssh]']
        if self.known.files:
            ways.insert(0, f"record it (`{scan} >> {self.known.files[0]}`)")
        if self.inventory_name:
            ways.insert(0, f'pin it (host_key = "{fingerprint(blob)}" in [hosts.{self.inventory_name}])')
        return HostKeyError(
            f"{self.label}: the host key {presented} is not known in {files}{note}",
            hint="compare the fingerprint with the host's own (run `ssh-keygen -lf /etc/ssh/ssh_host_…_key.pub` there),"
            f" then {', or '.join(ways)}",
        )


def _read_certificate(blob: bytes | None) -> tuple[HostCertificate | None, str]:
    """The certificate, and why it cannot be read."""
    try:
        return (HostCertificate(blob) if blob is not None else None), ""
    except ValueError as error:
        return None, f"it cannot be read ({error})"


def _file_of(key: KnownKey) -> str:
    return key.location.rpartition(" line ")[0]


def _blob_of(pin: str) -> bytes:
    """The key of a pin "TYPE BASE64". Raises InventoryError."""
    fields = pin.split()
    try:
        if len(fields) >= 2 and (blob := base64.b64decode(fields[1], validate=True)):
            return blob
    except (binascii.Error, ValueError):
        pass
    raise InventoryError(
        f"host_key {pin!r} is not a public key",
        hint='expected "SHA256:…" or "ssh-ed25519 AAAA…", as ssh-keyscan prints it',
    )
