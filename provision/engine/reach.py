"""How a host of the inventory is reached: its address, its SSH settings, and who we are."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from typing import Protocol

from provision.inventory import Host as InventoryHost
from provision.secret import Secret
from provision.ssh.session import Session
from provision.ssh.target import Target


class Opener(Protocol):
    """Opens a session on a host, by its name. Raises Unreachable, BecomeError, Locked."""

    def __call__(self, name: str, /, *, lock: bool) -> Session: ...


def opener(hosts: Iterable[InventoryHost], password: Secret | None = None) -> Opener:
    """For these hosts; `password` is sudo's, where it was typed. Raises InventoryError for a secret that is missing."""
    targets = {one.name: _target(one, password) for one in hosts}

    def open_to(name: str, /, *, lock: bool) -> Session:
        from provision.ssh import connect

        return connect(targets[name], lock=lock, who=_who())

    return open_to


def _target(host: InventoryHost, password: Secret | None) -> Target:
    ssh = host.settings.ssh
    if password is None and ssh.become and ssh.become_password is not None:
        # Fetched before anything is contacted: a missing secret is bad input, not a failed host.
        password = ssh.become_password.resolve()
    return Target(
        name=host.name,
        address=host.address,
        port=ssh.port,
        user=ssh.user,
        identity_file=ssh.identity_file,
        proxy_jump=ssh.proxy_jump,
        known_hosts=ssh.known_hosts,
        connect_timeout=ssh.connect_timeout,
        host_keys=ssh.host_keys,
        host_key=host.host_key,
        become=ssh.become,
        become_password=(lambda: password) if password is not None else None,
    )


def _who() -> str:
    import getpass

    return f"{getpass.getuser()}@{socket.gethostname()}, process {os.getpid()}"
