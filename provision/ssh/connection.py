"""One authenticated connection to a host, directly or through gateways.

fabric looks the host up in ~/.ssh/config and calls paramiko. The socket, the host key check and the login are
implemented here, since fabric alone accepts every host key, even a changed one.
"""

from __future__ import annotations

import random
import re
import time
from functools import partial
from pathlib import Path
from typing import Any

import fabric  # type: ignore[import-untyped]
import paramiko
from paramiko.ssh_exception import ChannelException, IncompatiblePeer, SSHException

from provision.errors import HostKeyError, Unreachable
from provision.ssh.authentication import Authenticator
from provision.ssh.host_keys import HostKeyRule, KnownHosts, OtherKeyPinned
from provision.ssh.paramiko_internals import SessionTransport
from provision.ssh.session import Target
from provision.ssh.ssh_config import load_ssh_config, proxy_command
from provision.ssh.wire import Wire, dial, run_proxy_command

_MAX_ATTEMPTS = 3  # when a host drops connections before the login (MaxStartups); never after a login has started
_RETRY_PAUSE = (0.2, 0.8)  # seconds between attempts, times the number of the attempt
_HANDSHAKE_ROUND_TRIPS = 2  # banners and offers, key exchange; the service request is sent with the login
_LOGIN_TIMEOUT = 30.0  # seconds for the host to answer a login
_CHANNEL_TIMEOUT = 30.0  # seconds for the host to open a channel
_MAX_GATEWAYS = 8  # gateways that ~/.ssh/config names for gateways


class HostConnection:
    """A connection to a host or gateway: `resolve` creates it, `open` connects and logs in.

    label     names the host in messages: "runner-1 (203.0.113.7)"
    gateway   the way to the host: another connection, a ProxyCommand, or None
    """

    def __init__(
        self,
        label: str,
        connection: fabric.Connection,
        rule: HostKeyRule,
        *,
        identity_file: str | Path | None,
        timeout: float,
    ) -> None:
        self.label = label
        self.gateway: HostConnection | str | None = None
        self._connection = connection
        self._rule = rule
        self._identity_file = identity_file
        self._timeout = timeout
        self._wire: Wire | None = None

    @property
    def host(self) -> str:
        """The name or address that is connected to."""
        return str(self._connection.host)

    @property
    def port(self) -> int:
        """The port that is connected to."""
        return int(self._connection.port)

    @property
    def user(self) -> str:
        """The login user."""
        return str(self._connection.user)

    @property
    def ssh_config(self) -> dict[str, Any]:
        """What ~/.ssh/config holds for the host."""
        found: dict[str, Any] = self._connection.ssh_config
        return found

    @property
    def wire(self) -> Wire:
        """The socket of an open connection."""
        assert self._wire is not None
        return self._wire

    @property
    def transport(self) -> SessionTransport:
        """The transport of an open connection."""
        transport = self._connection.transport
        assert isinstance(transport, SessionTransport)
        return transport

    @property
    def is_open(self) -> bool:
        """Whether the connection is open, as far as is known."""
        return bool(self._connection.is_connected)

    def open(self) -> None:
        """Connect and log in. Raises Unreachable, HostKeyError, LoginRefused."""
        if self.is_open:
            return
        tried_types: frozenset[str] = frozenset()
        pin_mismatch: OtherKeyPinned | None = None
        attempt = 0
        while True:
            attempt += 1
            login = Authenticator(self.label, self.user, self._identity_file, self.ssh_config)
            try:
                self._open_once(login, self._rule.algorithms(tried_types))
                return
            except OtherKeyPinned as error:
                key_type = self._presented_key_type()
                self._disconnect()
                if key_type is None or key_type in tried_types or not self._rule.pins_unknown_type:
                    raise
                pin_mismatch = pin_mismatch or error
                tried_types |= {key_type}
            except Unreachable:
                self._disconnect()
                raise
            except IncompatiblePeer as error:
                self._disconnect()
                raise pin_mismatch or self._no_common_algorithm(error) from error
            except (SSHException, EOFError, OSError) as error:
                self._disconnect()
                if attempt >= _MAX_ATTEMPTS or login.started or isinstance(error, ChannelException):
                    raise self._unreachable(error, attempt) from error
                time.sleep(random.uniform(*_RETRY_PAUSE) * attempt)

    def close(self) -> None:
        """Close the connection and those of its gateways. May be called from any thread."""
        self._disconnect()
        if isinstance(self.gateway, HostConnection):
            self.gateway.close()

    def _open_once(self, login: Authenticator, algorithms: tuple[str, ...]) -> None:
        self._wire = self._open_wire()
        self._connection.client.set_missing_host_key_policy(_RulePolicy(self._rule))
        self._connection.connect_timeout = None  # of the TCP connection, which is open already
        self._connection.connect_kwargs = {
            "sock": self._wire,
            "transport_factory": partial(
                SessionTransport, host_key_algorithms=algorithms, handshake_timeout=self._timeout + 5
            ),
            "auth_strategy": login,
            "banner_timeout": self._timeout,
            "auth_timeout": _LOGIN_TIMEOUT,
            "channel_timeout": _CHANNEL_TIMEOUT,
        }
        self._connection.open()
        self._wire.count_round_trips(_HANDSHAKE_ROUND_TRIPS + login.attempts)
        if isinstance(self.gateway, HostConnection):
            self._wire.count_round_trips(self.gateway.wire.traffic.round_trips + 1)  # + 1 for the channel

    def _open_wire(self) -> Wire:
        if self.gateway is None:
            return dial(self.host, self.port, timeout=self._timeout, label=self.label)
        if isinstance(self.gateway, str):
            return run_proxy_command(self.gateway)
        self.gateway.open()
        return Wire(self.gateway.transport.open_channel("direct-tcpip", (self.host, self.port), ("", 0)))

    def _presented_key_type(self) -> str | None:
        transport = self._connection.client.get_transport()
        return transport.host_key.get_name() if transport is not None and transport.host_key else None

    def _disconnect(self) -> None:
        if self._wire is not None:
            self._wire.close()
        self._connection.client.close()
        self._connection.transport = None

    def _no_common_algorithm(self, error: IncompatiblePeer) -> Unreachable:
        if "host key" in str(error):
            return HostKeyError(
                f"{self.label}: the host has no key of a type that is accepted from it"
                f" ({', '.join(self._rule.algorithms())})",
                hint="list the keys that it has with `ssh-keyscan`, then record or pin one of them",
            )
        return Unreachable(
            f"{self.label}: sshd on the host and paramiko have no algorithm in common: {error}",
            hint="update sshd on the host",
        )

    def _unreachable(self, error: Exception, attempts: int) -> Unreachable:
        if isinstance(error, ChannelException) and isinstance(self.gateway, HostConnection):
            return Unreachable(
                f"{self.label}: the gateway {self.gateway.host} cannot reach {self.host} port {self.port} ({error.text})",
                hint="check that the address is valid on the gateway, and AllowTcpForwarding in its sshd_config",
            )
        if isinstance(self.gateway, str):
            return Unreachable(
                f"{self.label}: no SSH session through the ProxyCommand {self.gateway!r}: {error or 'it ended'}",
                hint="run the ProxyCommand of ~/.ssh/config in a terminal to see its error",
            )
        text = str(error) or type(error).__name__
        if "banner" in text or isinstance(error, EOFError | ConnectionError):
            return Unreachable(
                f"{self.label}: {self.host} port {self.port} accepts TCP connections but sends no SSH banner"
                f" ({text}; {attempts} attempts)",
                hint="check that sshd listens on this port; a busy sshd drops connections too:"
                " raise MaxStartups in its sshd_config, or use fewer --forks",
            )
        return Unreachable(f"{self.label}: no SSH session: {text}", hint="run `ssh -v` to the host to see each step")


class _RulePolicy(paramiko.MissingHostKeyPolicy):
    """Checks every host key by our rule. paramiko is given no known keys, so that it calls this for each key."""

    def __init__(self, rule: HostKeyRule) -> None:
        self._rule = rule

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:  # noqa: ARG002
        self._rule.check(key.get_name(), key.asbytes())


def resolve(target: Target) -> HostConnection:
    """The connection to a host, not yet open. The inventory's settings override ~/.ssh/config."""
    connection = _lookup(target, target.address, target.user, target.port, gateway=False)
    jump = target.proxy_jump or connection.ssh_config.get("proxyjump")
    if jump and jump.lower() != "none":
        connection.gateway = _gateway(target, jump, depth=0)
    elif not jump and "proxycommand" in connection.ssh_config:
        connection.gateway = proxy_command(target.address, port=connection.port, user=connection.user)
    return connection


def _lookup(target: Target, address: str, user: str | None, port: int | None, *, gateway: bool) -> HostConnection:
    """The connection to `address` by ~/.ssh/config: to the target itself, or to one of its gateways."""
    # A configuration for each connection: fabric writes into it, and hosts connect in parallel.
    config = fabric.Config(lazy=True, ssh_config=load_ssh_config())
    found = fabric.Connection(address, user=user, port=port, config=config, gateway=False)
    where = found.host if found.port == 22 else f"{found.host} port {found.port}"
    label = f"{target.name}: the gateway {where}" if gateway else f"{target.name} ({where})"
    alias = found.ssh_config.get("hostkeyalias")
    rule = HostKeyRule(
        label,
        alias or found.host,
        22 if alias else found.port,  # known_hosts contains an alias without a port
        KnownHosts.of(target.known_hosts, found.ssh_config),
        target.host_keys,
        None if gateway else target.host_key or None,
        "" if gateway else target.name,
    )
    return HostConnection(
        label,
        found,
        rule,
        identity_file=None if gateway else target.identity_file,
        timeout=target.connect_timeout,
    )


def _gateway(target: Target, jump: str, depth: int) -> HostConnection:
    """The last of the gateways in `jump`, each connected through the one before it.

    The first gateway may have a ProxyJump of its own in ~/.ssh/config.
    """
    previous: HostConnection | None = None
    for address in jump.split(","):
        connection = _lookup(target, *_jump_parts(address), gateway=True)
        inner = connection.ssh_config.get("proxyjump")
        if previous is not None:
            connection.gateway = previous
        elif inner and inner.lower() != "none" and depth < _MAX_GATEWAYS and inner != jump:
            connection.gateway = _gateway(target, inner, depth + 1)
        previous = connection
    assert previous is not None
    return previous


def _jump_parts(text: str) -> tuple[str, str | None, int | None]:
    """Address, user and port of one gateway: `[user@]host[:port]`, also as an ssh:// URL; IPv6 addresses in brackets.

    fabric takes no brackets. What is no such text is passed on as it is. Source: ssh_config(5), ProxyJump.
    """
    text = text.strip().removeprefix("ssh://")
    found = re.fullmatch(r"(?:(?P<user>.+)@)?\[(?P<address>[^]]+)\](?::(?P<port>\d+))?", text)
    if found is None:
        return text, None, None
    return found["address"], found["user"], int(found["port"]) if found["port"] else None
