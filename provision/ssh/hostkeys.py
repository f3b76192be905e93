"""Whether a host's key is the right one. Strict: what is not known is refused, what has changed always."""

from __future__ import annotations

import base64
import binascii

from provision.errors import HostKeyError, InventoryError
from provision.ssh.known_hosts import KnownHosts, KnownKey, fingerprint, host_label
from provision.ssh.target import HostKeys
from provision.values import dataclass

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
