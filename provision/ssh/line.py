"""From an address to a session: connect, start the shell, hand sudo its password."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

from paramiko.ssh_exception import SSHException

from provision.errors import BecomeError, ConnectionLost
from provision.ssh import frame
from provision.ssh.ahead import Ahead
from provision.ssh.bootstrap import command_line, opening_line
from provision.ssh.connection import HostConnection, resolve
from provision.ssh.opening import Opening
from provision.ssh.pump import Bell, ChannelEnded, OutOfTime, Pump
from provision.ssh.session import Traffic
from provision.ssh.shell_session import ShellSession
from provision.ssh.target import Target
from provision.ssh.transport import QuickTransport

_EXEC_TIMEOUT = 30.0  # seconds for sshd to start a program
_REFUSAL_SILENCE = 4.0  # seconds of silence after sudo said something: it waits for another password
_SUDO_PATIENCE = 15.0  # seconds for sudo to take a password without a word

# paramiko reports failures to its log as well as by raising; without a handler Python prints them.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class SshLine:
    """A channel with a root shell behind it, and the connection under it."""

    def __init__(self, host: str, connection: HostConnection, channel: Any) -> None:
        self.host = host
        self.traffic: Traffic = connection.wire.traffic
        self.exit_code: int | None = None
        self._connection = connection
        self._channel = channel

    def hang_up(self, *, wait: float) -> None:
        """Ends the shell's input, waits up to `wait` seconds for it to end, and closes everything."""
        if wait and self._connection.transport is not None and self._connection.transport.is_active():
            self._channel.shutdown_write()
            self._connection.wire.mute()
            self._channel.status_event.wait(wait)
            self._connection.wire.turn()
            if self._channel.exit_status >= 0:
                self.exit_code = self._channel.exit_status
        self._close_all()

    @property
    def refusal(self) -> ConnectionLost | None:
        """That the host started no program at all, once that is known."""
        if self._channel.event_ready or not self._channel.closed:
            return None
        return no_shell(self._connection.hop.what, "it starts no program for us")

    def cut(self) -> None:
        """Closes at once, from any thread."""
        self._close_all()

    def _close_all(self) -> None:
        connection = self._connection
        connection.wire.close()
        connection.client.close()
        while isinstance(connection.gateway, HostConnection):
            connection = connection.gateway
            connection.wire.close()
            connection.client.close()


def open_session(target: Target, ahead: Ahead | None, *, lock: bool, who: str) -> ShellSession:
    """See `provision.ssh.connect`; `ahead`: the host may have been dialled already."""
    connection = resolve(target)
    connection.open(ahead)
    sudo = target.become and connection.user != "root"
    password = target.become_password if sudo else None
    transport: QuickTransport = connection.client.get_transport()
    try:
        channel = transport.open_session(timeout=_EXEC_TIMEOUT)
        bell = Bell()
        channel.in_buffer.set_event(bell)
        channel.in_stderr_buffer.set_event(bell)
        connection.wire.turn()
        transport.execute(channel, command_line(sudo=sudo, password=password is not None))
    except (SSHException, EOFError, OSError) as error:
        connection.wire.close()
        connection.client.close()
        raise no_shell(connection.hop.what, str(error) or type(error).__name__) from error
    line = SshLine(target.name, connection, channel)
    pump = Pump(channel, bell, connection.wire, transport.ping, connection.hop.what)
    opening = Opening(target.name, connection.user, frame.new_nonce(), sudo, password is not None)
    session = ShellSession(line, pump, opening)
    try:
        if password is not None:
            _give_password(session, pump, opening, password().reveal())
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        hello = opening_line(opening.nonce, lock=lock, holder=f"since {since} by {who}")
        session.listen()
        pump.run(hello, None, seconds=_EXEC_TIMEOUT)
    except ChannelEnded as error:
        session.explain_end(error)
    except BaseException:
        line.cut()
        raise
    return session


def no_shell(what: str, why: str) -> ConnectionLost:
    """A host that lets in and starts nothing."""
    return ConnectionLost(
        f"{what}: no shell: {why}",
        hint="is MaxSessions in its sshd_config 0, or the account limited to another command?",
    )


def _give_password(session: ShellSession, pump: Pump, opening: Opening, password: str) -> None:
    """Sends the password, and nothing else until the shell says that it is the shell that reads.

    A refusal is told by silence and the exit code, never by the words of a prompt: sudo-rs has others.
    """
    if "\n" in password or "\0" in password:
        raise BecomeError(f"{opening.host}: the sudo password holds a line break", hint="check become_password")
    session.listen()
    refused = _Silence(lambda: len(opening.words_of_stderr))
    with contextlib.suppress(OutOfTime, ConnectionLost):  # either way there was no READY
        pump.run(f"{password}\n".encode(), lambda: opening.ready or refused(), seconds=_SUDO_PATIENCE)
    if not opening.ready:
        session.close()
        raise opening.wrong_password()


class _Silence:
    """True once something was said and then nothing for a while."""

    def __init__(self, size: Callable[[], int]) -> None:
        self._size = size
        self._last = 0
        self._since = time.monotonic()

    def __call__(self) -> bool:
        if (now := self._size()) != self._last:
            self._last, self._since = now, time.monotonic()
        return self._last > 0 and time.monotonic() - self._since > _REFUSAL_SILENCE
