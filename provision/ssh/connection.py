"""One authenticated connection: fabric's Connection, with strict keys, our own socket and plain words for errors."""

from __future__ import annotations

import random
import time
from typing import Any

import fabric  # type: ignore[import-untyped]
import paramiko
from fabric.util import get_local_user  # type: ignore[import-untyped]
from paramiko.ssh_exception import (
    ChannelException,
    IncompatiblePeer,
    SSHException,
)

from provision.errors import HostKeyError, Unreachable
from provision.ssh.ahead import Ahead
from provision.ssh.hostkeys import HostKeyRule, OtherKeyPinned
from provision.ssh.known_hosts import KnownHosts
from provision.ssh.login import Login
from provision.ssh.ssh_config import proxy_command, shared_config
from provision.ssh.target import Target
from provision.ssh.transport import QuickTransport
from provision.ssh.wire import Wire, dial, through
from provision.values import dataclass

_TRIES = 3  # for a host that drops connections before it says a word (MaxStartups); never after a login began
_PAUSE = (0.2, 0.8)  # seconds, between these, more with each try
_HANDSHAKE_TURNS = 2  # banners and offers; the key exchange. The service is asked for along with the login
_MOST_HOPS = 8


class _AskRule(paramiko.MissingHostKeyPolicy):
    """No key is loaded into paramiko, so each one is 'missing' and comes here to be judged."""

    def __init__(self, rule: HostKeyRule) -> None:
        self._rule = rule

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:  # noqa: ARG002
        self._rule.check(key.get_name(), key.asbytes())


@dataclass(frozen=True)
class Hop:
    """How to enter one host on the way, the last one included."""

    what: str
    rule: HostKeyRule
    target: Target
    last: bool


class HostConnection(fabric.Connection):  # type: ignore[misc]
    """A fabric Connection that opens strictly. Gateways of it are HostConnections too."""

    # What the class does not name is written into fabric's configuration, which all hosts and threads share.
    hop: Any = None
    wire: Any = None
    inline_ssh_env: Any = None
    ahead: Any = None

    def open(self, ahead: Ahead | None = None) -> None:
        """Connects and logs in. `ahead`: where the way is direct it may have been dialled. Raises Unreachable, HostKeyError, LoginRefused."""
        if self.is_connected:
            return
        self.ahead = ahead
        hop: Hop = self.hop
        tried: frozenset[str] = frozenset()
        pinned_otherwise: OtherKeyPinned | None = None
        attempt = 0
        while True:
            attempt += 1
            login = Login(hop.what, self.user, hop.target.identity_file if hop.last else None, self.ssh_config)
            try:
                self._open_once(hop, login, tried)
                return
            except OtherKeyPinned as error:
                kind = self._key_type_seen()
                self._drop()
                if kind is None or kind in tried or hop.rule.pin is None or not hop.rule.pin.startswith("SHA256:"):
                    raise
                pinned_otherwise = pinned_otherwise or error
                tried |= {kind}
            except (Unreachable, HostKeyError):
                self._drop()
                raise
            except IncompatiblePeer as error:
                self._drop()
                raise pinned_otherwise or self._no_common(hop, error) from error
            except (SSHException, EOFError, OSError) as error:
                self._drop()
                if attempt >= _TRIES or login.started or isinstance(error, ChannelException):
                    raise self._in_words(hop, error, attempt) from error
                time.sleep(random.uniform(*_PAUSE) * attempt)  # what is full there empties by itself

    def open_gateway(self) -> Wire:
        """The way through the gateway, as a counted stream."""
        if isinstance(self.gateway, str):
            wire = through(self.gateway)  # ~/.ssh/config's own command, its tokens filled in by the lookup
        else:
            self.gateway.open()
            wire = Wire(super().open_gateway())
        self.wire = wire
        return wire

    def _open_once(self, hop: Hop, login: Login, tried: frozenset[str]) -> None:
        timeout = hop.target.connect_timeout
        algorithms = hop.rule.algorithms(tried)
        if not self.gateway:
            dialled = self.ahead.take(self.host, self.port) if self.ahead else None
            self.wire = dialled or dial(self.host, self.port, timeout=timeout, what=hop.what)

        def transport(sock: Any, **options: Any) -> QuickTransport:
            made = QuickTransport(sock, algorithms, **options)
            made.handshake_timeout = timeout + 5
            return made

        self.client.set_missing_host_key_policy(_AskRule(hop.rule))
        self.connect_timeout = None  # the socket has had its time; the rest is timed by these
        self.connect_kwargs = {
            "transport_factory": transport,
            "auth_strategy": login,
            "banner_timeout": timeout,
            "auth_timeout": 30,
            "channel_timeout": 30,
        }
        if not self.gateway:
            self.connect_kwargs["sock"] = self.wire
        super().open()
        self.wire.turn(_HANDSHAKE_TURNS + login.attempts)
        if isinstance(self.gateway, HostConnection):
            self.wire.turn(self.gateway.wire.traffic.round_trips + 1)  # the way there, and the channel through it

    def _key_type_seen(self) -> str | None:
        transport = self.client.get_transport()
        return transport.host_key.get_name() if transport is not None and transport.host_key else None

    def _drop(self) -> None:
        self.client.close()
        self.transport = None
        if self.wire is not None:
            self.wire.close()

    def _no_common(self, hop: Hop, error: IncompatiblePeer) -> Unreachable:
        if "host key" in str(error):
            return HostKeyError(
                f"{hop.what} offers no key of a type it could be known by ({', '.join(hop.rule.algorithms())})",
                hint="note one of the keys that it has: `ssh-keyscan` lists them",
            )
        return Unreachable(
            f"{hop.what} and paramiko have no algorithm in common: {error}", hint="the host's sshd is old; update it"
        )

    def _in_words(self, hop: Hop, error: Exception, attempts: int) -> Unreachable:
        if isinstance(error, ChannelException):
            return Unreachable(
                f"{hop.what}: the gateway {self.gateway.host} cannot reach {self.host} port {self.port} ({error.text})",
                hint="check the address as the gateway sees it, and AllowTcpForwarding in its sshd_config",
            )
        if isinstance(self.gateway, str):
            return Unreachable(
                f"{hop.what}: no SSH session through the ProxyCommand {self.gateway!r}: {error or 'it ended'}",
                hint="run it by hand: ProxyCommand in ~/.ssh/config",
            )
        text = str(error) or type(error).__name__
        if "banner" in text or isinstance(error, EOFError | ConnectionError):
            return Unreachable(
                f"{hop.what}: {self.host} port {self.port} takes the connection and does not speak SSH"
                f" ({text}; tried {attempts} times)",
                hint="is it sshd that listens there? A busy sshd drops connections too: MaxStartups in sshd_config,"
                " or fewer --forks",
            )
        return Unreachable(f"{hop.what}: no SSH session: {text}", hint="try `ssh -v` to the host by hand")


def resolve(target: Target) -> HostConnection:
    """The connection to a host, not yet open: the inventory first, then ~/.ssh/config."""
    connection = _make(target, target.address, target.user, target.port, last=True)
    jump = target.proxy_jump or connection.ssh_config.get("proxyjump")
    if jump and jump.lower() != "none":
        connection.gateway = _gateway(target, jump, depth=0)
    elif not jump and "proxycommand" in connection.ssh_config:
        connection.gateway = proxy_command(target.address, port=connection.port, user=connection.user)
    return connection


def _make(target: Target, host: str, user: str | None, port: int | None, *, last: bool) -> HostConnection:
    made = HostConnection(host, user=user, port=port, config=shared_config(), gateway=False)
    if made.user is None:
        made.user = get_local_user()
    alias = made.ssh_config.get("hostkeyalias")
    where = made.host if made.port == 22 else f"{made.host} port {made.port}"
    what = f"{target.name} ({where})" if last else f"{target.name}: the gateway {where}"
    made.hop = Hop(
        what,
        HostKeyRule(
            what,
            alias or made.host,
            22 if alias else made.port,  # an alias stands in the file as it is
            KnownHosts.of(target.known_hosts, made.ssh_config),
            target.host_keys,
            (target.host_key or None) if last else None,
            target.name if last else "",
        ),
        target,
        last,
    )
    return made


def _gateway(target: Target, jump: str, depth: int) -> HostConnection:
    """Hops are entered in the order written; the first may have a ProxyJump of its own."""
    previous: HostConnection | None = None
    for hop in jump.split(","):
        made = _make(target, hop.strip().removeprefix("ssh://"), None, None, last=False)
        inner = made.ssh_config.get("proxyjump")
        if previous is not None:
            made.gateway = previous
        elif inner and inner.lower() != "none" and depth < _MOST_HOPS and inner != jump:
            made.gateway = _gateway(target, inner, depth + 1)
        previous = made
    assert previous is not None
    return previous
