"""Which keys are offered to a host, and in which order. Each refused key costs a round trip.

The inventory's identity_file alone when it is given. Otherwise the keys that ~/.ssh/config names for the host, then the
agent's keys (unless IdentitiesOnly is set), then ~/.ssh/id_* when ~/.ssh/config names none. A key is offered with its
certificates first: FILE-cert.pub, and those of CertificateFile. As in OpenSSH, a file may be a public key whose private
half the agent holds.
"""

from __future__ import annotations

import base64
import copy
import io
import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_ssh_private_key,
)
from paramiko.ssh_exception import AuthenticationException, BadAuthenticationType, SSHException

from provision.errors import LoginRefused
from provision.ssh.host_certificates import read_certificate, wire_format
from provision.ssh.paramiko_internals import SocketAgent, last_banner_line
from provision.ssh.ssh_config import HostOptions

_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
_loading = threading.Lock()  # hosts connect in parallel: one thread parses the key, the others wait for it


class _Offer(NamedTuple):
    """A key to offer: its name in messages, and the identity file that names it, if any."""

    name: str
    key: paramiko.PKey
    file: Path | None = None


class Authenticator:
    """Logs a user in by public key; given to paramiko's SSHClient as its `auth_strategy`.

    label     names the host in messages
    options   what ~/.ssh/config holds for the host
    """

    def __init__(self, label: str, identity_file: str | Path | None, options: HostOptions) -> None:
        self.started = False
        self._label = label
        self._user = options.user
        self._explicit = Path(identity_file).expanduser() if identity_file is not None else None
        self._configured = options.identity_files
        self._configured_only = options.identities_only
        self._certificates = options.certificate_files
        self._agent_socket = options.identity_agent
        self._tried: list[str] = []
        self._skipped: list[str] = []

    @property
    def attempts(self) -> int:
        """How many keys were offered: one round trip each."""
        return len(self._tried)

    def authenticate(self, transport: paramiko.Transport) -> list[str]:
        """Offer one key after the other. Raises LoginRefused naming them when none is accepted."""
        agent = _Agent(self._agent_socket)
        try:
            for offer in self._with_certificates(self._keys(agent)):
                self.started = True
                self._tried.append(offer.name)
                try:
                    missing = transport.auth_publickey(self._user, offer.key)
                except BadAuthenticationType as error:
                    allowed = ", ".join(error.allowed_types)
                    raise self._refused(f"public keys are not accepted, only: {allowed}") from error
                except AuthenticationException as error:
                    if not transport.is_active():
                        said = last_banner_line(transport)
                        raise self._refused(
                            f"the host disconnected{f' with the message: {said}' if said else ''}"
                        ) from error
                    continue
                if missing:
                    raise self._refused(f"further authentication is required: {', '.join(missing)}")
                return []
        except (SSHException, EOFError, OSError) as error:
            if not self.started:
                raise
            raise self._refused(str(error) or "the host closed the connection") from error
        finally:
            agent.close()
        raise self._refused("")

    def _refused(self, reason: str) -> LoginRefused:
        tried = f"tried {', '.join(self._tried)}" if self._tried else "no key to try"
        skipped = f"; skipped {', '.join(self._skipped)}" if self._skipped else ""
        return LoginRefused(
            f"{self._label} refused the login of {self._user}{': ' + reason if reason else ''} ({tried}{skipped})",
            hint="check `user` and `identity_file` in [ssh] or ~/.ssh/config; the public key must be in that user's"
            " ~/.ssh/authorized_keys on the host",
        )

    def _keys(self, agent: _Agent) -> Iterator[_Offer]:
        """The keys to offer, without certificates."""
        if self._explicit is not None:
            yield from self._from_files([self._explicit], agent, required=True)
            return
        offered: set[bytes] = set()
        for offer in self._from_files(self._configured or (), agent):
            offered.add(offer.key.asbytes())
            yield offer
        if not self._configured_only:
            for offer in agent.all_keys():
                if offer.key.asbytes() not in offered:
                    offered.add(offer.key.asbytes())
                    yield offer
        if self._configured is None:
            defaults = [Path("~/.ssh").expanduser() / name for name in _DEFAULT_KEYS]
            for offer in self._from_files(defaults, agent):
                if offer.key.asbytes() not in offered:
                    yield offer

    def _from_files(self, files: Sequence[Path], agent: _Agent, *, required: bool = False) -> Iterator[_Offer]:
        for file in files:
            reason = ""
            try:
                yield _Offer(str(file), load_key(file), file)
                continue
            except FileNotFoundError:
                pass
            except TypeError:  # cryptography raises it for a key that needs a passphrase
                reason = f"has a passphrase and is not in the agent: ssh-add {file}"
            except (SSHException, ValueError, OSError, UnsupportedAlgorithm) as error:
                reason = str(error) or type(error).__name__
            public = _public_key(file)
            in_agent = agent.find(public) if public is not None else None
            if in_agent is not None:
                yield _Offer(f"{file} (agent)", in_agent, file)
            elif public is not None and file.suffix == ".pub":
                self._skipped.append(f"{file} (a public key, whose private key is not in the agent)")
            elif reason:
                self._skipped.append(f"{file} ({reason})")
            elif required:
                raise LoginRefused(
                    f"{self._label}: the key file {file} does not exist", hint="check identity_file in [ssh]"
                )

    def _with_certificates(self, offers: Iterator[_Offer]) -> Iterator[_Offer]:
        """Each key, with its certificates before it."""
        for offer in offers:
            beside = [Path(f"{offer.file}-cert.pub")] if offer.file is not None else []
            for file in dict.fromkeys((*beside, *self._certificates)):
                if self._certifies(file, offer.key):
                    yield _Offer(f"{file} for {offer.name}", _with_certificate(offer.key, file))
            yield offer

    def _certifies(self, file: Path, key: paramiko.PKey) -> bool:
        """Whether a file is a certificate of this key. One that cannot be read is added to the skipped ones."""
        try:
            return wire_format(read_certificate(file.read_bytes()).public_key()) == key.asbytes()
        except FileNotFoundError:
            return False
        except (ValueError, OSError, UnsupportedAlgorithm) as error:
            if (note := f"{file} ({error})") not in self._skipped:
                self._skipped.append(note)
            return False


def _with_certificate(key: paramiko.PKey, file: Path) -> paramiko.PKey:
    """A copy of the key that is offered with this certificate."""
    certified: paramiko.PKey
    if isinstance(key, paramiko.AgentKey):
        certified = paramiko.AgentKey(key.agent, key.blob, key.comment)
    else:
        certified = copy.copy(key)
    certified.load_certificate(str(file))
    return certified


class _Agent:
    """The user's ssh-agent, contacted when its first key is needed. `socket`: None for no agent."""

    def __init__(self, socket: str | None) -> None:
        self._socket = socket
        self._agent: SocketAgent | None = None

    def all_keys(self) -> Iterator[_Offer]:
        if self._socket is None:
            return
        if self._agent is None:
            self._agent = SocketAgent(self._socket)
        for key in self._agent.get_keys():
            yield _Offer(f"{key.get_name()} {key.fingerprint} (agent)", key)

    def find(self, blob: bytes) -> paramiko.PKey | None:
        """The agent's key with this public key."""
        return next((offer.key for offer in self.all_keys() if offer.key.asbytes() == blob), None)

    def close(self) -> None:
        if self._agent is not None:
            self._agent.close()


def _public_key(file: Path) -> bytes | None:
    """The public key of an identity: the file itself when it is one, else the one beside it; in SSH's wire format."""
    for one in (file, Path(f"{file}.pub")):
        try:
            fields = one.read_text(encoding="ascii").split()
            return base64.b64decode(fields[1], validate=True)
        except (OSError, ValueError, IndexError):
            continue
    return None


def load_key(file: Path) -> paramiko.PKey:
    """A private key, parsed once for all hosts: it takes up to a second of processor time for an RSA key.

    Raises TypeError for a key with a passphrase, and ValueError, OSError, UnsupportedAlgorithm, SSHException.
    """
    version = file.stat().st_mtime_ns
    with _loading:
        return _parse(file, version)


@lru_cache(maxsize=32)
def _parse(file: Path, version: int) -> paramiko.PKey:  # noqa: ARG001  keys the cache
    """cryptography reads the file: paramiko refuses some ECDSA and RSA keys without a comment (no padding follows)."""
    data = file.read_bytes()
    if b"OPENSSH PRIVATE KEY" in data:
        key: object = load_ssh_private_key(data, password=None)
    else:
        key = load_pem_private_key(data, password=None)
    if isinstance(key, RSAPrivateKey):
        return paramiko.RSAKey(key=key)
    if isinstance(key, EllipticCurvePrivateKey):
        return paramiko.ECDSAKey(vals=(key, key.public_key()))
    if isinstance(key, Ed25519PrivateKey):
        text = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
        return paramiko.Ed25519Key(file_obj=io.StringIO(text))
    raise ValueError(f"keys of this type are not supported ({type(key).__name__})")
