"""Which keys are offered to a host, and in which order. Each refused key costs a round trip.

The inventory's identity_file alone when it is given. Otherwise the keys that ~/.ssh/config names for the host, then the
agent's keys (unless IdentitiesOnly is set), then ~/.ssh/id_* when ~/.ssh/config names none. A key is offered with its
certificates first: FILE-cert.pub, and those of CertificateFile. As in OpenSSH, a file may be a public key whose private
half the agent holds.
"""

from __future__ import annotations

import base64
import binascii
import copy
import io
import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    SSHCertificate,
    load_pem_private_key,
    load_ssh_private_key,
    load_ssh_public_identity,
)
from paramiko.ssh_exception import AuthenticationException, BadAuthenticationType, SSHException

from provision.errors import LoginRefused
from provision.ssh.paramiko_internals import SocketAgent
from provision.ssh.ssh_config import HostOptions

_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
_loading = threading.Lock()  # hosts connect in parallel: one thread parses the key, the others wait for it


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
            for name, key in self._with_certificates(self._keys(agent)):
                self.started = True
                self._tried.append(name)
                try:
                    missing = transport.auth_publickey(self._user, key)
                except BadAuthenticationType as error:
                    allowed = ", ".join(error.allowed_types)
                    raise self._refused(f"public keys are not accepted, only: {allowed}") from error
                except AuthenticationException as error:
                    if not transport.is_active():
                        raise self._refused("the host disconnected after this number of attempts") from error
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

    def _keys(self, agent: _Agent) -> Iterator[tuple[str, paramiko.PKey]]:
        """The keys to offer, each with its name for messages."""
        if self._explicit is not None:
            yield from self._from_files([self._explicit], agent, required=True)
            return
        offered: set[bytes] = set()
        for name, key in self._from_files(self._configured or (), agent):
            offered.add(key.asbytes())
            yield name, key
        if not self._configured_only:
            for name, key in agent.all_keys():
                if key.asbytes() not in offered:
                    offered.add(key.asbytes())
                    yield name, key
        if self._configured is None:
            defaults = [Path("~/.ssh").expanduser() / name for name in _DEFAULT_KEYS]
            for name, key in self._from_files(defaults, agent):
                if key.asbytes() not in offered:
                    yield name, key

    def _from_files(
        self, files: Sequence[Path], agent: _Agent, *, required: bool = False
    ) -> Iterator[tuple[str, paramiko.PKey]]:
        for file in files:
            reason = ""
            try:
                yield str(file), load_key(file)
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
                yield f"{file} (agent)", in_agent
            elif public is not None and file.suffix == ".pub":
                self._skipped.append(f"{file} (a public key, whose private key is not in the agent)")
            elif reason:
                self._skipped.append(f"{file} ({reason})")
            elif required:
                raise LoginRefused(
                    f"{self._label}: the key file {file} does not exist", hint="check identity_file in [ssh]"
                )

    def _with_certificates(self, keys: Iterator[tuple[str, paramiko.PKey]]) -> Iterator[tuple[str, paramiko.PKey]]:
        """Each key, with its certificates before it."""
        for name, key in keys:
            beside = Path(f"{name.removesuffix(' (agent)')}-cert.pub")
            for file in dict.fromkeys((beside, *self._certificates)):
                try:
                    certified = _certified_key(file)
                except FileNotFoundError:
                    continue
                except (ValueError, OSError, UnsupportedAlgorithm) as error:
                    if (note := f"{file} ({error})") not in self._skipped:
                        self._skipped.append(note)
                    continue
                if certified == key.asbytes():
                    with_certificate = (
                        paramiko.AgentKey(key.agent, key.blob, key.comment)
                        if isinstance(key, paramiko.AgentKey)
                        else copy.copy(key)
                    )
                    with_certificate.load_certificate(str(file))
                    yield f"{file} for {name}", with_certificate
            yield name, key


class _Agent:
    """The user's ssh-agent, contacted when its first key is needed. `socket`: None for no agent."""

    def __init__(self, socket: str | None) -> None:
        self._socket = socket
        self._agent: SocketAgent | None = None

    def all_keys(self) -> Iterator[tuple[str, paramiko.PKey]]:
        if self._socket is None:
            return
        if self._agent is None:
            self._agent = SocketAgent(self._socket)
        for key in self._agent.get_keys():
            yield f"{key.get_name()} {key.fingerprint} (agent)", key

    def find(self, blob: bytes) -> paramiko.PKey | None:
        """The agent's key with this public key."""
        return next((key for _, key in self.all_keys() if key.asbytes() == blob), None)

    def close(self) -> None:
        if self._agent is not None:
            self._agent.close()


def _public_key(file: Path) -> bytes | None:
    """The public key of an identity: the file itself when it is one, else the one beside it; in SSH's wire format."""
    for one in (file, Path(f"{file}.pub")):
        try:
            fields = one.read_text(encoding="ascii").split()
            return base64.b64decode(fields[1], validate=True)
        except (OSError, ValueError, IndexError, binascii.Error):
            continue
    return None


def _certified_key(file: Path) -> bytes:
    """The public key that a certificate file contains, in SSH's wire format. Raises ValueError, OSError."""
    found = load_ssh_public_identity(file.read_bytes())
    if not isinstance(found, SSHCertificate):
        raise ValueError("it is not a certificate")
    line = found.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return base64.b64decode(line.split()[1])


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
