"""The interface of a session, and the description of the host to connect to.

The engine works with `Session` only. Implementations: `provision.ssh.shell_session.ShellSession` on real hosts, and
`FakeSession` and `LocalSession` of `provision.testing`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from provision.secret import Secret
from provision.shell import Command, Result

HostKeys = Literal["strict", "accept-new"]


class Target(NamedTuple):
    """One host to connect to. None: the value of ~/.ssh/config, or ssh's own default.

    name              the inventory's name, used in messages
    address           looked up in ~/.ssh/config, then connected to
    proxy_jump        `user@host:port`, several separated by commas; "none" ignores the one of ~/.ssh/config
    known_hosts       read and appended to, instead of ~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts
    connect_timeout   seconds for the TCP connection, and again for the handshake
    host_keys         "accept-new" records the key of a host seen for the first time; a changed key is always refused
    host_key          the only accepted key: "SHA256:…" or "ssh-ed25519 AAAA…"
    become            use sudo, unless the user is root
    become_password   called when the password is needed; None: sudo must not require one
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
    """The round trips and the bytes that a session has used so far."""

    round_trips: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0


class Step(NamedTuple):
    """A command that changes something, and the seconds that it may take."""

    command: Command
    deadline: float


class Report(Protocol):
    """Receives the output and then the result of each step of `Session.run_steps`, while the steps run."""

    def output(self, piece: bytes) -> None:
        """Called with lines of stdout and stderr of the running step as they arrive, as `Session.run` passes them on."""

    def result(self, result: Result) -> None:
        """Called when a step has ended, in order; the result contains only the last MiB of each output."""


class Session(Protocol):
    """An open root shell on one host. Not thread-safe: one thread uses it, except for `abort`."""

    traffic: Traffic

    def ask(self, commands: Sequence[Command], *, deadline: float) -> list[Result]:
        """Run all commands in one round trip, in order, each in its own subshell, regardless of their exit codes.

        `deadline`: seconds for all of them. Raises DeadlineExceeded naming the command that did not end, ConnectionLost,
        and ProbeFailed when they print more than 64 MiB.
        """

    def run(self, command: Command, *, deadline: float, on_output: Callable[[bytes], None] | None = None) -> Result:
        """Run one command with its standard input; `on_output` receives lines of stdout and stderr as they arrive.

        A line of more than 64 KiB is passed on in parts, and one that is redrawn (`\\r`) in its versions.
        With `on_output` the result contains only the last MiB of each output.
        Raises DeadlineExceeded when it does not end within `deadline` seconds (it is then stopped on the host), and
        ConnectionLost when the connection breaks.
        """

    def run_steps(
        self,
        steps: Sequence[Step],
        then: Sequence[Command],
        *,
        deadline: float,
        report: Report,
        stopping: Callable[[], bool] = lambda: False,
    ) -> tuple[list[Result], list[Result]]:
        """Run steps in order in one round trip, until one fails. If all succeed, ask the commands of `then`, as `ask` does.

        Returns the results of the steps that ran, and the answers to `then`.
        deadline  seconds for `then`; each step has its own
        stopping  is called about once per second. When it returns True, the running step ends and no other starts. This
                  also happens when the connection breaks
        Raises the errors of `run` for the first step without a result, and those of `ask`.
        """

    def close(self) -> None:
        """End the session and release the host's lock."""

    def abort(self) -> None:
        """Close the connection at once. May be called from any thread."""
