"""Where a session goes: what the inventory says of a host, before ~/.ssh/config is asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from provision.secret import Secret
from provision.values import dataclass

HostKeys = Literal["strict", "accept-new"]


@dataclass(frozen=True)
class Target:
    """One host to reach. What is None is left to ~/.ssh/config, then to ssh's own defaults.

    name              the inventory's name, used in messages
    address           what is looked up in ~/.ssh/config and then connected to
    proxy_jump        `user@host:port`, several separated by commas; "none" switches one of ~/.ssh/config off
    known_hosts       read, and appended to, instead of ~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts
    connect_timeout   seconds for the TCP connection, and again for the handshake
    host_keys         "accept-new" notes the key of a host never seen; a changed key is always refused
    host_key          the only key that will do: "SHA256:…" or "ssh-ed25519 AAAA…"
    become            sudo, unless the user is root
    become_password   called when the password is needed; None: sudo must not ask for one
    """

    name: str
    address: str
    port: int | None = None
    user: str | None = None
    identity_file: str | Path | None = None
    proxy_jump: str | None = None
    known_hosts: str | Path | None = None
    connect_timeout: float = 10.0
    host_keys: HostKeys = "strict"
    host_key: str | None = None
    become: bool = True
    become_password: Callable[[], Secret] | None = None
