"""Where a session goes: what the inventory says of a host, before ~/.ssh/config is asked.

The one way to a host that the engine knows: a session with a root shell on it.

`provision.testing.FakeSession` is the other implementation; the engine cannot tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from provision.secret import Secret
from provision.shell import Command, Result

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


@dataclass
class Traffic:
    """What a session cost so far: turns from sending to receiving, and bytes on the wire."""

    round_trips: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0


class Session(Protocol):
    """An open, privileged, framed shell. Not thread-safe: one worker owns it."""

    traffic: Traffic

    def ask(self, commands: Sequence[Command], *, deadline: float) -> list[Result]:
        """Runs all in one round trip, each in a subshell of its own, in order; all run whatever their codes."""

    def run(self, command: Command, *, deadline: float, on_output: Callable[[bytes], None] | None = None) -> Result:
        """Runs one, feeding its stdin; `on_output` is given pieces of stdout and stderr as they come.

        Raises DeadlineExceeded when it does not end within `deadline` seconds (it is then stopped on the
        host), ConnectionLost when the session breaks.
        """

    def close(self) -> None:
        """Ends the session; the host's lock is free after it."""

    def abort(self) -> None:
        """Breaks the session off at once; callable from any thread."""
