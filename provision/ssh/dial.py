"""The TCP connection to a host. Nothing here needs paramiko, whose import takes 0.1 s: the host is dialled before it."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import time
from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Any

from provision.errors import Unreachable
from provision.ssh.session import Target
from provision.ssh.ssh_config import HostOptions, host_options

SILENCE_LIMIT = 30.0  # seconds without a received byte, after a request for one, until a host counts as lost
_NEXT_ADDRESS = 0.25  # seconds without an answer until the next address is tried too (RFC 8305, section 5)
_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}


def dial_directly(target: Target) -> socket.socket | None:
    """The TCP connection to a host; None for a host behind a gateway.

    Raises Unreachable, and UsageError for ssh_config files that cannot be used.
    """
    options = host_options(target.address, user=target.user, port=target.port)
    if any(gateways_to(target, options)):
        return None
    return dial(
        options.hostname,
        options.port,
        timeout=target.connect_timeout,
        label=f"{target.name} ({options.place})",
        family=options.address_family,
    )


def gateways_to(target: Target, options: HostOptions) -> tuple[str, str]:
    """The ProxyJump and the ProxyCommand that lead to a host; "" for none. The inventory overrides ~/.ssh/config."""
    jump = target.proxy_jump or options.proxy_jump or ""
    if not jump:
        return "", options.proxy_command or ""
    return "" if jump.lower() == "none" else jump, ""


def dial(host: str, port: int, *, timeout: float, label: str, family: str = "any") -> socket.socket:
    """Open a TCP connection to one of the name's addresses within `timeout` seconds.

    label    names the host in messages ("runner-1 (203.0.113.7)")
    family   "inet", "inet6" or "any", as AddressFamily in ssh_config(5)

    The addresses are tried at the same time, each one _NEXT_ADDRESS after the one before it. Raises Unreachable.
    """
    wanted = _FAMILIES.get(family, socket.AF_UNSPEC)
    try:
        addresses = socket.getaddrinfo(host, port, family=wanted, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # UnicodeError: an empty label, or one of more than 63 characters
        reason = error.strerror or str(error) if isinstance(error, OSError) else "it is not a host name"
        raise Unreachable(
            f"{label}: the name {host} does not resolve ({reason})",
            hint=f"check `address` in the inventory or HostName in ~/.ssh/config; `getent hosts {host}` must answer",
        ) from error
    failures: list[OSError] = []
    connection = _connect_to_one(_interleaved(addresses), timeout, failures)
    if connection is None:
        raise _unreachable(label, host, port, timeout, failures) from (failures[-1] if failures else None)
    _set_options(connection)
    return connection


def _interleaved(addresses: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Each address once, the families in turn, beginning with the preferred one (RFC 8305, section 4)."""
    unique = list(dict.fromkeys(addresses))
    first = [one for one in unique if one[0] == unique[0][0]]
    others = [one for one in unique if one[0] != unique[0][0]]
    return [one for one in chain.from_iterable(zip_longest(first, others)) if one is not None]


def _connect_to_one(
    addresses: Sequence[tuple[Any, ...]], timeout: float, failures: list[OSError]
) -> socket.socket | None:
    """The first connection that is accepted; None when there is none. Adds the errors of the others to `failures`.

    The others are closed while they wait for an answer. Their hosts then see no connection at all: sshd would count one
    that ends without a login against this machine (PerSourcePenalties).
    """
    waiting = list(addresses)
    now = time.monotonic()
    deadline, next_start = now + timeout, now
    with selectors.DefaultSelector() as selector:
        try:
            while (now := time.monotonic()) < deadline and (waiting or selector.get_map()):
                if waiting and (now >= next_start or not selector.get_map()):
                    next_start = now + _NEXT_ADDRESS
                    try:
                        selector.register(_begin(waiting.pop(0)), selectors.EVENT_WRITE)
                    except OSError as error:
                        failures.append(error)
                    continue
                for ready, _ in selector.select((min(deadline, next_start) if waiting else deadline) - now):
                    attempt = ready.fileobj
                    assert isinstance(attempt, socket.socket)
                    selector.unregister(attempt)
                    code = attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if code == 0:
                        return attempt
                    attempt.close()
                    failures.append(OSError(code, os.strerror(code)))
                    next_start = now
            return None
        finally:
            for left in list(selector.get_map().values()):
                assert isinstance(left.fileobj, socket.socket)
                left.fileobj.close()


def _begin(address: tuple[Any, ...]) -> socket.socket:
    """A socket that is being connected. Raises OSError."""
    family, kind, protocol, _, where = address
    attempt = socket.socket(family, kind, protocol)
    attempt.setblocking(False)
    code = attempt.connect_ex(where)
    if code not in (0, errno.EINPROGRESS):
        attempt.close()
        raise OSError(code, os.strerror(code))
    return attempt


def _set_options(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    limits = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": int(SILENCE_LIMIT * 1000)}
    for name, value in limits.items():
        if option := getattr(socket, name, None):  # not every system has them all
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _unreachable(label: str, host: str, port: int, timeout: float, failures: list[OSError]) -> Unreachable:
    if any(isinstance(error, ConnectionRefusedError) for error in failures):
        return Unreachable(
            f"{label}: port {port} of {host} refused the connection",
            hint=f"check that sshd runs there and listens on port {port}"
            " (`port` in the inventory, Port in ~/.ssh/config)",
        )
    if not failures or all(isinstance(error, TimeoutError) for error in failures):
        return Unreachable(
            f"{label}: no answer from {host} port {port} within {timeout:g} s",
            hint="check that the host is up and that no firewall drops the packets;"
            " connect_timeout in [ssh] sets the time limit",
        )
    return Unreachable(
        f"{label}: cannot connect to {host} port {port}: {failures[-1].strerror or failures[-1]}",
        hint="check the address and the route from this machine",
    )
