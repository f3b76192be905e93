"""One authenticated connection to a host, directly or through gateways.

fabric calls paramiko. The lookup in ~/.ssh/config, the socket, the host key check and the login are implemented in
this package: fabric alone accepts every host key, even a changed one, and paramiko reads ssh_config in its own way.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from functools import lru_cache, partial
from pathlib import Path

import fabric  # type: ignore[import-untyped]
import paramiko
from paramiko.ssh_exception import ChannelException, IncompatiblePeer, SSHException

from provision.errors import HostKeyError, LoginRefused, ProvisionError, Unreachable, UsageError
from provision.inventory.tables.host import jump_hosts
from provision.ssh.authentication import Authenticator
from provision.ssh.dial import dial, gateways_to, no_banner
from provision.ssh.host_keys import HostKeyRule, KnownHosts, OtherKeyPinned
from provision.ssh.paramiko_internals import SessionTransport, algorithms_of_host, limit_buffers
from provision.ssh.session import Target
from provision.ssh.ssh_config import HostOptions, host_options
from provision.ssh.wire import Wire, idle_connections, run_proxy_command

_MAX_ATTEMPTS = 3  # when a host drops connections before the login (MaxStartups); never after a login has started
_RETRY_PAUSE = (0.2, 0.8)  # seconds between attempts, times the number of the attempt
_HANDSHAKE_ROUND_TRIPS = 2  # banners and offers, key exchange; the service request is sent with the login
_LOGIN_TIMEOUT = 30.0  # seconds for the host to answer a login
_CHANNEL_TIMEOUT = 30.0  # seconds for the host to open a channel
_SSHD_OPTION = {"key exchange method": "KexAlgorithms", "cipher": "Ciphers", "MAC": "MACs"}
# What OpenSSH from 9.8 on sends in place of its banner (drop_connection in sshd.c). The refusal adds no penalty itself.
_NOT_ALLOWED = b"Not allowed at this time"
_MAX_GATEWAYS = 8  # gateways that ~/.ssh/config names for gateways


class HostConnection:
    """A connection to a host or gateway: `resolve` creates it, `open` connects and logs in.

    label     names the host in messages: "runner-1 (203.0.113.7)"
    name      the inventory's name, which begins the messages about its gateways
    gateway   the way to the host: another connection, which other hosts may share, a ProxyCommand, or None
    dialled   the TCP connection for the first attempt to open it, if it is there already
    """

    def __init__(
        self,
        label: str,
        connection: fabric.Connection,
        rule: HostKeyRule,
        options: HostOptions,
        *,
        name: str,
        identity_file: str | Path | None,
        timeout: float,
        dialled: socket.socket | None = None,
    ) -> None:
        self.label = label
        self.gateway: HostConnection | str | None = None
        self._connection = connection
        self._rule = rule
        self._options = options
        self._name = name
        self._identity_file = identity_file
        self._timeout = timeout
        self._dialled = dialled
        self._wire: Wire | None = None
        # As a gateway:
        self._sharing = threading.Lock()
        self._users = 0
        self._failures: list[Unreachable] = []
        self._refusal: Unreachable | None = None
        # Towards its own gateway:
        self._holding = threading.Lock()
        self._holds_gateway = False

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
        """Connect and log in. Raises Unreachable, HostKeyError, LoginRefused; then nothing is left open."""
        if self.is_open:
            return
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        tried_types: frozenset[str] = frozenset()
        pin_mismatch: OtherKeyPinned | None = None
        attempt = 0
        while True:
            attempt += 1
            login = Authenticator(self.label, self._identity_file, self._options)
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
                refusal = pin_mismatch or self._no_common_algorithm(error)
                self._disconnect()
                raise refusal from error
            except (SSHException, EOFError, OSError) as error:
                self._disconnect()
                if attempt >= _MAX_ATTEMPTS or login.started or isinstance(error, ChannelException):
                    raise self._unreachable(error, attempt) from error
                time.sleep(random.uniform(*_RETRY_PAUSE) * attempt)
            except ProvisionError:
                self._disconnect()
                raise
            except Exception as error:  # paramiko passes on every exception of its parsers
                self._disconnect()
                raise Unreachable(
                    f"{self.label}: no SSH session: the host sent what paramiko cannot read"
                    f" ({type(error).__name__}: {error})",
                    hint="run `ssh -v` to the host, and check that this address is an SSH server",
                ) from error

    def close(self) -> None:
        """Close the connection, and stop using its gateway. May be called from any thread."""
        self._disconnect()
        with self._holding:
            held, self._holds_gateway = self._holds_gateway, False
        if held and isinstance(self.gateway, HostConnection):
            self.gateway.release()

    def acquire(self) -> bool:
        """Use this connection as a gateway: open it unless it is open. Returns whether it was opened.

        Hosts that wait for an attempt which fails share its error, so that a dead gateway costs one time limit. A gateway
        that refused the login, or whose key was refused, is not tried again: sshd would count each attempt against this
        machine (PerSourcePenalties), and another host's attempt has the same result.
        """
        before = len(self._failures)
        with self._sharing:
            if opened := not self.is_open:
                if self._refusal is not None:
                    raise self._refusal
                if len(self._failures) > before:
                    raise self._failures[-1]
                self._disconnect()  # what is left of a connection that was lost
                try:
                    self.open()
                except Unreachable as error:
                    self._failures.append(error)
                    if isinstance(error, HostKeyError | LoginRefused):
                        self._refusal = error
                    raise
                idle_connections.remove(self.transport)
                self.transport.serve()
            self._users += 1
            return opened

    def release(self) -> None:
        """Stop using this connection as a gateway. The last of its users closes it."""
        with self._sharing:
            self._users -= 1
            if self._users == 0:
                self.close()

    def _open_once(self, login: Authenticator, algorithms: tuple[str, ...]) -> None:
        self._wire = self._open_wire()
        self._connection.client.set_missing_host_key_policy(_RulePolicy(self._rule))
        # For banner and key exchange: the TCP connection is open already.
        self._connection.connect_timeout = 2 * self._timeout + 10
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
        self._wire.login_complete()
        idle_connections.add(self.transport, self._wire)
        self._wire.count_round_trips(_HANDSHAKE_ROUND_TRIPS + login.attempts)

    def _open_wire(self) -> Wire:
        if self.gateway is None:
            dialled, self._dialled = self._dialled, None
            wire = Wire(dialled or self._dial())
            wire.count_round_trips()
            return wire
        if isinstance(self.gateway, str):
            return run_proxy_command(self.gateway)
        opened = self._acquire_gateway(self.gateway)
        try:
            channel = self.gateway.transport.open_channel(
                "direct-tcpip", (self.host, self.port), ("", 0), timeout=self._timeout
            )
        except SSHException as error:
            if "Timeout opening channel" not in str(error):
                raise
            raise Unreachable(
                f"{self.label}: the gateway {self.gateway.host} got no answer from {self.host} port {self.port}"
                f" within {self._timeout:g} s",
                hint="check that the host is up and that no firewall drops the gateway's packets;"
                " connect_timeout in [ssh] sets the time limit",
            ) from error
        limit_buffers(channel)
        wire = Wire(channel)
        wire.count_round_trips(1 + (self.gateway.wire.traffic.round_trips if opened else 0))
        return wire

    def _dial(self) -> socket.socket:
        return dial(self.host, self.port, timeout=self._timeout, label=self.label, family=self._options.address_family)

    def _acquire_gateway(self, gateway: HostConnection) -> bool:
        """Open the gateway, or use it together with other hosts. Returns whether it was opened."""
        with self._holding:
            if self._holds_gateway and gateway.is_open:
                return False
            held, self._holds_gateway = self._holds_gateway, False
        if held:  # its connection was lost between two attempts
            gateway.release()
        try:
            opened = gateway.acquire()
        except Unreachable as error:
            raise type(error)(f"{self._name}: {error.text}", hint=error.hint) from error
        with self._holding:
            self._holds_gateway = True
        return opened

    def _presented_key_type(self) -> str | None:
        transport = self._connection.client.get_transport()
        return transport.host_key.get_name() if transport is not None and transport.host_key else None

    def _disconnect(self) -> None:
        if self._connection.transport is not None:
            idle_connections.remove(self._connection.transport)
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
        kind, offered, supported = algorithms_of_host(self._connection.client.get_transport())
        if not offered:
            return Unreachable(
                f"{self.label}: sshd on the host and paramiko have no algorithm in common: {error}",
                hint="compare with `ssh -vv` to the host",
            )
        return Unreachable(
            f"{self.label}: no {kind} in common: sshd on the host accepts only {', '.join(offered)};"
            f" paramiko supports {', '.join(supported)}",
            hint=f"add one of these to {_SSHD_OPTION[kind]} in the host's sshd_config",
        )

    def _unreachable(self, error: Exception, attempts: int) -> Unreachable:
        if isinstance(error, ChannelException) and isinstance(self.gateway, HostConnection):
            return Unreachable(
                f"{self.label}: the gateway {self.gateway.host} cannot reach {self.host} port {self.port} ({error.text})",
                hint="check that the address is valid on the gateway, and AllowTcpForwarding in its sshd_config",
            )
        if isinstance(self.gateway, str):
            return Unreachable(
                f"{self.label}: no SSH session through the ProxyCommand {self.gateway!r}: {str(error) or 'it ended'}",
                hint="run the ProxyCommand of ~/.ssh/config in a terminal to see its error",
            )
        if self._wire is not None and _NOT_ALLOWED in self._wire.beginning:
            return Unreachable(
                f"{self.label}: {self.host} port {self.port} refuses connections from this machine for now"
                f" ({attempts} attempts)",
                hint="sshd does so for up to 10 minutes after connections that ended without a login (PerSourcePenalties"
                " in its sshd_config), and while too many are in progress (MaxStartups). `journalctl -u ssh` on the host"
                " has the reason; wait and run again, add this machine's address to PerSourcePenaltyExemptList, or use"
                " fewer --forks",
            )
        text = str(error) or type(error).__name__
        if "banner" in text or isinstance(error, EOFError | ConnectionError):
            return no_banner(self.label, self.host, self.port, f"{text}; {attempts} attempts")
        return Unreachable(f"{self.label}: no SSH session: {text}", hint="run `ssh -v` to the host to see each step")


class _RulePolicy(paramiko.MissingHostKeyPolicy):
    """Checks every host key by our rule. paramiko is given no known keys, so that it calls this for each key."""

    def __init__(self, rule: HostKeyRule) -> None:
        self._rule = rule

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:  # noqa: ARG002
        certificate = key.public_blob.key_blob if key.public_blob is not None else None
        self._rule.check(key.get_name(), key.asbytes(), certificate)


class _FabricConnection(fabric.Connection):  # type: ignore[misc]
    """A connection that does not change its configuration, so that all connections can share one.

    At each assignment, invoke's own method lists all attributes of the class, and then sets the attribute or changes the
    configuration. That takes half a millisecond for each host.
    """

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


@lru_cache(maxsize=1)
def _config() -> fabric.Config:
    """fabric's configuration, without ssh_config: paramiko does not read these files as OpenSSH does.

    The values that a new connection reads are looked up once, because invoke lists all attributes for each of them.
    """
    config = fabric.Config(lazy=True, ssh_config=paramiko.SSHConfig())
    for name in ("user", "port", "forward_agent", "inline_ssh_env", "connect_kwargs", "authentication"):
        object.__setattr__(config, name, getattr(config, name))
    return config


def resolve(target: Target, dialled: socket.socket | None = None) -> HostConnection:
    """The connection to a host, not yet open. The inventory's settings override ~/.ssh/config.

    dialled  the TCP connection for the first attempt, if it is there already

    Raises UsageError for ssh_config files that cannot be used.
    """
    options = host_options(target.address, user=target.user, port=target.port)
    connection = _connection(target, options, gateway=False, dialled=dialled)
    jump, command = gateways_to(target, options)
    connection.gateway = _gateway(target, jump, depth=0) if jump else command or None
    return connection


def _connection(
    target: Target, options: HostOptions, *, gateway: bool, dialled: socket.socket | None = None
) -> HostConnection:
    """A connection with these options: to the target itself, or to one of its gateways."""
    connection = _FabricConnection(
        options.hostname,
        user=options.user,
        port=options.port,
        config=_config(),
        gateway=False,
        connect_timeout=target.connect_timeout,
    )
    label = f"the gateway {options.place}" if gateway else f"{target.name} ({options.place})"
    files = (*options.user_known_hosts, *options.system_known_hosts)
    rule = HostKeyRule(
        label,
        options.host_key_alias or options.hostname,
        22 if options.host_key_alias else options.port,  # known_hosts contains an alias without a port
        KnownHosts([Path(target.known_hosts).expanduser()] if target.known_hosts is not None else files),
        target.host_keys,
        None if gateway else target.host_key or None,
        "" if gateway else target.name,
        options.revoked_host_keys,
    )
    return HostConnection(
        label,
        connection,
        rule,
        options,
        name=label if gateway else target.name,
        identity_file=None if gateway else target.identity_file,
        timeout=target.connect_timeout,
        dialled=dialled,
    )


_gateways: dict[tuple[object, ...], HostConnection] = {}
_finding_gateway = threading.Lock()


def _gateway(target: Target, jump: str, depth: int) -> HostConnection:
    """The last of the gateways in `jump`, each connected through the one before it.

    The first gateway may have a ProxyJump or ProxyCommand of its own in ~/.ssh/config. Hosts behind the same gateway
    share the connection to it.
    """
    try:
        hops = jump_hosts(jump)
    except ValueError as error:
        raise UsageError(
            f"{target.name}: ProxyJump {jump!r}: {error}", hint="see ProxyJump in ssh_config(5)"
        ) from error
    previous: HostConnection | str | None = None
    for hop in hops:
        options = host_options(hop.address, user=hop.user, port=hop.port)
        inner = options.proxy_jump
        if previous is None and inner and depth < _MAX_GATEWAYS and inner != jump:
            previous = _gateway(target, inner, depth + 1)
        elif previous is None and not inner:
            previous = options.proxy_command
        key = (options, target.known_hosts, target.host_keys, target.connect_timeout, previous)
        with _finding_gateway:
            connection = _gateways.get(key)
            if connection is None:
                connection = _gateways[key] = _connection(target, options, gateway=True)
                connection.gateway = previous
        previous = connection
    assert isinstance(previous, HostConnection)
    return previous
