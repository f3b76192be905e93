"""Which keys are shown to a host, and in which order. Each refused key costs a round trip.

The inventory's identity_file alone when it is given; else those that ~/.ssh/config names for the host,
then the agent's (unless IdentitiesOnly), then, when none was named, ~/.ssh/id_*.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import paramiko
from paramiko.pkey import UnknownKeyType
from paramiko.ssh_exception import AuthenticationException, BadAuthenticationType, SSHException

from provision.errors import LoginRefused

_DEFAULTS = ("id_ed25519", "id_ecdsa", "id_rsa")
_loaded: dict[tuple[Path, int], paramiko.PKey] = {}
_loading = threading.Lock()


class Login:
    """Authenticates a transport; handed to paramiko's SSHClient as its `auth_strategy`."""

    def __init__(self, what: str, user: str, identity_file: str | Path | None, ssh_config: Mapping[str, Any]) -> None:
        self.started = False
        self._what = what
        self._user = user
        self._explicit = Path(identity_file).expanduser() if identity_file is not None else None
        self._named: list[Path] = [Path(name).expanduser() for name in ssh_config.get("identityfile", ())]
        self._only = str(ssh_config.get("identitiesonly", "no")).lower() == "yes"
        self._tried: list[str] = []
        self._passed_over: list[str] = []

    @property
    def attempts(self) -> int:
        """How many keys were shown: a round trip each."""
        return len(self._tried)

    def authenticate(self, transport: paramiko.Transport) -> list[str]:
        """Tries key after key. Raises LoginRefused naming them when none is taken."""
        agent = _Agent()
        try:
            for name, key in self._keys(agent):
                self.started = True
                self._tried.append(name)
                try:
                    more = transport.auth_publickey(self._user, key)
                except BadAuthenticationType as error:
                    allowed = ", ".join(error.allowed_types)
                    raise self._refused(f"it takes no keys from {self._user}, only: {allowed}") from error
                except AuthenticationException as error:
                    if not transport.is_active():
                        raise self._refused("it has heard enough") from error
                    continue
                if more:
                    raise self._refused(f"after the key it wants more: {', '.join(more)}")
                return []
        except (SSHException, EOFError, OSError) as error:
            if not self.started:
                raise
            raise self._refused(str(error) or "it closed the connection") from error
        finally:
            agent.close()
        raise self._refused("")

    def _refused(self, why: str) -> LoginRefused:
        tried = ", ".join(self._tried) or "no key at all"
        over = f"; passed over: {', '.join(self._passed_over)}" if self._passed_over else ""
        return LoginRefused(
            f"{self._what} does not let {self._user} in{': ' + why if why else ''} (tried {tried}{over})",
            hint="check `user` and `identity_file` in [ssh] or ~/.ssh/config; the public key belongs into that user's"
            " ~/.ssh/authorized_keys on the host",
        )

    def _keys(self, agent: _Agent) -> Iterator[tuple[str, paramiko.PKey]]:
        if self._explicit is not None:
            yield from self._from_files([self._explicit], agent, asked_for=True)
            return
        shown: set[bytes] = set()
        for name, key in self._from_files(self._named, agent, asked_for=False):
            shown.add(key.asbytes())
            yield name, key
        if not self._only:
            for name, key in agent.held():
                if key.asbytes() not in shown:
                    shown.add(key.asbytes())
                    yield name, key
        if not self._named:
            defaults = [Path("~/.ssh").expanduser() / name for name in _DEFAULTS]
            for name, key in self._from_files(defaults, agent, asked_for=False):
                if key.asbytes() not in shown:
                    yield name, key

    def _from_files(
        self, files: Sequence[Path], agent: _Agent, *, asked_for: bool
    ) -> Iterator[tuple[str, paramiko.PKey]]:
        for file in files:
            try:
                yield str(file), _load(file)
            except FileNotFoundError:
                if asked_for:
                    raise LoginRefused(
                        f"{self._what}: the key file {file} is not there", hint="check identity_file in [ssh]"
                    ) from None
            except (TypeError, paramiko.PasswordRequiredException):  # cryptography says TypeError
                held = agent.holding(file)
                if held is not None:
                    yield f"{file} (agent)", held
                else:
                    self._passed_over.append(f"{file} (has a passphrase and is not in the agent: ssh-add {file})")
            except (SSHException, ValueError, OSError, UnknownKeyType) as error:
                self._passed_over.append(f"{file} ({error or type(error).__name__})")


class _Agent:
    """The user's ssh-agent, asked when the first key of it is needed."""

    def __init__(self) -> None:
        self._agent: paramiko.Agent | None = None

    def held(self) -> Iterator[tuple[str, paramiko.PKey]]:
        if self._agent is None:
            self._agent = paramiko.Agent()
        for key in self._agent.get_keys():
            yield f"{key.get_name()} {key.fingerprint} (agent)", key

    def holding(self, file: Path) -> paramiko.PKey | None:
        """The agent's copy of a key file, known by the public half beside it."""
        try:
            blob = paramiko.PublicBlob.from_file(f"{file}.pub").key_blob  # type: ignore[attr-defined]
        except (OSError, ValueError):
            return None
        return next((key for _, key in self.held() if key.asbytes() == blob), None)

    def close(self) -> None:
        if self._agent is not None:
            self._agent.close()


def _load(file: Path) -> paramiko.PKey:
    """A private key, read and parsed once for all hosts."""
    version = (file, file.stat().st_mtime_ns)
    with _loading:
        if version not in _loaded:
            _loaded[version] = paramiko.PKey.from_path(file)
        return _loaded[version]
