"""What the bootstrap answers before the first batch, and what is wrong when it does not.

One authenticated connection: fabric's Connection, with strict keys, our own socket and plain words for errors.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import Any

import fabric  # type: ignore[import-untyped]
import paramiko
from fabric.util import get_local_user  # type: ignore[import-untyped]
from paramiko.ssh_exception import (
    ChannelException,
    IncompatiblePeer,
    SSHException,
)

from provision.errors import BecomeError, HostFailed, HostKeyError, Locked, ProvisionError, Unreachable
from provision.secret import mask
from provision.ssh.authentication import Login
from provision.ssh.bootstrap import READY, STATE_DIR
from provision.ssh.host_keys import HostKeyRule, KnownHosts, OtherKeyPinned
from provision.ssh.session import Target
from provision.ssh.ssh_config import proxy_command, shared_config
from provision.ssh.transport import QuickTransport
from provision.ssh.wire import Wire, dial, through

_NOISE_KEPT = 4000  # bytes of what was printed before the hello: login banners, sudo's refusal


@dataclass
class Opening:
    """The hello of both streams. Checked when the first answer arrives, so that it costs no round trip.

    `sudo` says whether sudo was asked, `password` whether it was given one.
    """

    host: str
    user: str
    nonce: str
    sudo: bool
    password: bool
    state: str = ""
    uid: str = ""
    holder: str = ""
    _hello: set[int] = field(default_factory=set)
    _noise: tuple[bytearray, bytearray] = field(default_factory=lambda: (bytearray(), bytearray()))

    def noise(self, stream: int, piece: bytes) -> None:
        """Bytes before the hello: kept for a message, never read as a result."""
        self._noise[stream].extend(piece)
        del self._noise[stream][:-_NOISE_KEPT]

    def hello(self, stream: int, rest: str) -> None:
        """The shell greets on one of its streams."""
        self._hello.add(stream)
        if stream == 0:
            self.uid, _, rest = rest.partition(" ")
            self.state, _, self.holder = rest.partition(" ")

    def settled_on(self, stream: int) -> bool:
        """Whether what comes on this stream now is output of commands."""
        return stream in self._hello

    @property
    def ready(self) -> bool:
        """Whether the root shell has started to read: sudo is past its password."""
        return READY in self._noise[0]

    @property
    def words_of_stderr(self) -> bytes:
        """What sudo has said so far."""
        return bytes(self._noise[1])

    @property
    def settled(self) -> bool:
        """Whether both streams have greeted."""
        return len(self._hello) == 2

    @property
    def refused(self) -> bool:
        """Whether the shell has said that it ends here."""
        return self.settled and self.state not in ("none", "held")

    def check(self) -> None:
        """Raises what the hello says is wrong; nothing when it is well."""
        if not self.refused:
            return
        if self.state == "busy":
            holder = self.holder.strip() or "another run, which left no name"
            raise Locked(
                f"{self.host}: another run holds the host: {holder}",
                hint="wait for it to end; if its controller is gone, end the host-pid it names on the host",
            )
        if self.state == "unprivileged":
            raise BecomeError(
                f"{self.host}: {self.user} has user id {self.uid} there, and root is needed",
                hint="set become = true in [ssh] for sudo, or log in as root",
            )
        raise HostFailed(
            f"{self.host}: the host's lock in {STATE_DIR} cannot be taken: {self._words() or 'no reason given'}",
            hint="is the disk full or read-only? /var/lib must be writable, and flock (util-linux) installed",
        )

    def ended(self, code: int | None) -> ProvisionError:
        """The shell ended without a hello: sudo refused, or there is no shell to log in to."""
        words = f": {self._words()}" if self._words() else ""
        if self.sudo and self.password:
            return self.wrong_password()
        if self.sudo and code == 127:
            return BecomeError(f"{self.host}: there is no sudo{words}", hint="install sudo, or log in as root")
        if self.sudo:
            return BecomeError(
                f"{self.host}: sudo gives {self.user} no root shell without a password{words}",
                hint="give the password with -K or become_password, or allow NOPASSWD in sudoers",
            )
        return BecomeError(
            f"{self.host}: the login shell of {self.user} ended at once (code {code}){words}",
            hint="can that user run a command over ssh? Try it by hand",
        )

    def wrong_password(self) -> BecomeError:
        """sudo took the password and did not give a shell for it."""
        words = f" (it said: {self._words()})" if self._words() else ""
        return BecomeError(
            f"{self.host}: sudo refused the password for {self.user}{words}",
            hint="give the right one with -K or become_password, or allow NOPASSWD in sudoers",
        )

    def no_answer(self, seconds: float) -> ProvisionError:
        """Nothing came in time."""
        return BecomeError(
            f"{self.host}: no root shell within {seconds:g} s", hint="does sudo wait there for something else?"
        )

    def _words(self) -> str:
        """The end of what was printed instead of a hello; stderr first."""
        for noise in (self._noise[1], self._noise[0]):
            lines = [line.strip() for line in noise.decode("utf-8", "replace").splitlines() if line.strip()]
            lines = [line for line in lines if not line.startswith("provision-ready")]
            if lines:
                return mask(" / ".join(lines[-3:]))
        return ""


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

    def open(self) -> None:
        """Connect and log in. Raises Unreachable, HostKeyError, LoginRefused."""
        if self.is_connected:
            return
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
            self.wire = dial(self.host, self.port, timeout=timeout, what=hop.what)

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
