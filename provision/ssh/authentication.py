"""Which keys are offered to a host, and in which order. Each refused key costs a round trip.

The inventory's identity_file alone when it is given. Otherwise the keys that ~/.ssh/config names for the host, then the
agent's keys (unless IdentitiesOnly is set), then ~/.ssh/id_* when ~/.ssh/config names none.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import paramiko
from paramiko.pkey import UnknownKeyType
from paramiko.ssh_exception import AuthenticationException, BadAuthenticationType, SSHException

from provision.errors import LoginRefused

_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
_loading = threading.Lock()  # hosts connect in parallel: one thread parses the key, the others wait for it


class Authenticator:
    """Logs a user in by public key; given to paramiko's SSHClient as its `auth_strategy`.

    label        names the host in messages
    ssh_config   what ~/.ssh/config holds for the host
    """

    def __init__(self, label: str, user: str, identity_file: str | Path | None, ssh_config: Mapping[str, Any]) -> None:
        self.started = False
        self._label = label
        self._user = user
        self._explicit = Path(identity_file).expanduser() if identity_file is not None else None
        self._configured = [Path(name).expanduser() for name in ssh_config.get("identityfile", ())]
        self._configured_only = str(ssh_config.get("identitiesonly", "no")).lower() == "yes"
        self._tried: list[str] = []
        self._skipped: list[str] = []

    @property
    def attempts(self) -> int:
        """How many keys were offered: one round trip each."""
        return len(self._tried)

    def authenticate(self, transport: paramiko.Transport) -> list[str]:
        """Offer one key after the other. Raises LoginRefused naming them when none is accepted."""
        agent = _Agent()
        try:
            for name, key in self._keys(agent):
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
        for name, key in self._from_files(self._configured, agent):
            offered.add(key.asbytes())
            yield name, key
        if not self._configured_only:
            for name, key in agent.all_keys():
                if key.asbytes() not in offered:
                    offered.add(key.asbytes())
                    yield name, key
        if not self._configured:
            defaults = [Path("~/.ssh").expanduser() / name for name in _DEFAULT_KEYS]
            for name, key in self._from_files(defaults, agent):
                if key.asbytes() not in offered:
                    yield name, key

    def _from_files(
        self, files: Sequence[Path], agent: _Agent, *, required: bool = False
    ) -> Iterator[tuple[str, paramiko.PKey]]:
        for file in files:
            try:
                yield str(file), load_key(file)
            except FileNotFoundError:
                if required:
                    raise LoginRefused(
                        f"{self._label}: the key file {file} does not exist", hint="check identity_file in [ssh]"
                    ) from None
            except (TypeError, paramiko.PasswordRequiredException):  # cryptography raises TypeError
                in_agent = agent.key_of(file)
                if in_agent is not None:
                    yield f"{file} (agent)", in_agent
                else:
                    self._skipped.append(f"{file} (has a passphrase and is not in the agent: ssh-add {file})")
            except (SSHException, ValueError, OSError, UnknownKeyType) as error:
                self._skipped.append(f"{file} ({error or type(error).__name__})")


class _Agent:
    """The user's ssh-agent, contacted when its first key is needed."""

    def __init__(self) -> None:
        self._agent: paramiko.Agent | None = None

    def all_keys(self) -> Iterator[tuple[str, paramiko.PKey]]:
        if self._agent is None:
            self._agent = paramiko.Agent()
        for key in self._agent.get_keys():
            yield f"{key.get_name()} {key.fingerprint} (agent)", key

    def key_of(self, file: Path) -> paramiko.PKey | None:
        """The agent's copy of a key file, identified by the public key beside it."""
        try:
            blob = base64.b64decode(Path(f"{file}.pub").read_text(encoding="ascii").split()[1])
        except (OSError, ValueError, IndexError):
            return None
        return next((key for _, key in self.all_keys() if key.asbytes() == blob), None)

    def close(self) -> None:
        if self._agent is not None:
            self._agent.close()


def load_key(file: Path) -> paramiko.PKey:
    """A private key, parsed once for all hosts: paramiko takes up to a second of processor time for an RSA key."""
    version = file.stat().st_mtime_ns
    with _loading:
        return _parse(file, version)


@lru_cache(maxsize=32)
def _parse(file: Path, version: int) -> paramiko.PKey:  # noqa: ARG001  keys the cache
    return paramiko.PKey.from_path(file)
