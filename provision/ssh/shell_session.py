"""From an address to a session: connect, start the shell, hand sudo its password.

The session that the engine works through: one root shell over one connection.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn, Protocol

from paramiko.ssh_exception import SSHException

from provision.errors import BecomeError, ConnectionLost, DeadlineExceeded, ProbeFailed
from provision.secret import mask
from provision.shell import Command, Result
from provision.ssh import connection as opening
from provision.ssh import frame
from provision.ssh.bootstrap import command_line, opening_line
from provision.ssh.connection import HostConnection, Opening, resolve
from provision.ssh.frame import Answers, Mark, Splitter
from provision.ssh.session import Target, Traffic
from provision.ssh.streams import Bell, ChannelEnded, OutOfTime, Pump
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


def open_session(target: Target, *, lock: bool, who: str) -> ShellSession:
    """See `provision.ssh.connect`."""
    connection = resolve(target)
    connection.open()
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


_KILL_GRACE = 5.0  # seconds that `timeout -k` waits between TERM and KILL
_ANSWER_GRACE = 10.0  # seconds more for the answer to arrive
_TIMED_OUT, _KILLED = 124, 137  # how `timeout` says so
_FEW = 4  # commands whose outputs are not worth two processes to gather them
_CLOSE_GRACE = 2.0  # seconds for the remote shell to end, so that its lock is free


class Line(Protocol):
    """The connection under a session."""

    host: str
    traffic: Traffic
    exit_code: int | None

    @property
    def refusal(self) -> ConnectionLost | None:
        """That the host started no program at all, once that is known."""

    def hang_up(self, *, wait: float) -> None:
        """Ends the shell's input, waits up to `wait` seconds for it to end, and closes everything."""

    def cut(self) -> None:
        """Closes at once, from any thread."""


class ShellSession:
    """Implements `provision.ssh.session.Session`. One worker owns it; only `abort` may come from elsewhere."""

    def __init__(self, line: Line, pump: Pump, start: opening.Opening) -> None:
        self.traffic = line.traffic
        self._line = line
        self._pump = pump
        self._opening = start
        self._batch = 0
        self._aborted = False
        self._took = 0.0
        self._answers: Answers | None = None
        self._on_output: Callable[[bytes], None] | None = None
        nonce = start.nonce.encode()
        self._splitters = tuple(
            Splitter(nonce, partial(self._heard, stream), partial(self._marked, stream)) for stream in (0, 1)
        )

    # -- the Session protocol --------------------------------------------------------------------

    def ready(self, *, deadline: float = 30.0) -> None:
        """Waits until the root shell is there and, when asked for, the host's lock is held.

        Optional: the first `ask` or `run` does the same without costing a round trip of its own.
        Raises BecomeError, Locked, HostFailed.
        """
        self.listen()
        try:
            self._pump.run(b"", lambda: self._opening.settled, seconds=deadline)
        except OutOfTime:
            self._line.cut()
            raise self._opening.no_answer(deadline) from None
        except ConnectionLost as error:
            self.explain_end(error)
        self._opening.check()

    def ask(self, commands: Sequence[Command], *, deadline: float) -> list[Result]:
        """Runs all in one round trip, each in a subshell of its own, in order; all run whatever their codes.

        `deadline` is for all of them together, in seconds. Raises DeadlineExceeded naming the one that hung.
        """
        if not commands:
            return []
        answers = self._converse(commands, deadline, None)
        if len(answers.results) < len(commands):
            raise self._unfinished(commands, answers, deadline)
        return answers.results

    def run(self, command: Command, *, deadline: float, on_output: Callable[[bytes], None] | None = None) -> Result:
        """Runs one; `on_output` is given pieces of stdout and stderr as they come."""
        answers = self._converse([command], deadline, on_output)
        if not answers.results:
            raise self._unfinished([command], answers, deadline)
        return answers.results[0]

    def close(self) -> None:
        """Ends the session; waits briefly for the remote shell to end, so that the lock is free."""
        self._line.hang_up(wait=0.0 if self._aborted else _CLOSE_GRACE)

    def abort(self) -> None:
        """Closes at once, from any thread: whoever waits in `ask` or `run` gets ConnectionLost.

        What runs on the host goes on to its end or its deadline, and keeps the lock until then.
        """
        self._aborted = True
        self._line.cut()

    # -- inside ----------------------------------------------------------------------------------

    def _converse(
        self, commands: Sequence[Command], deadline: float, on_output: Callable[[bytes], None] | None
    ) -> Answers:
        self._batch += 1
        answers = self._answers = Answers(self._batch, len(commands))
        self._on_output = on_output
        data = frame.encode(self._batch, commands, self._opening.nonce, deadline=deadline, gather=len(commands) > _FEW)
        self.listen()
        started = time.monotonic()
        try:
            self._pump.run(
                data,
                lambda: answers.done or self._opening.refused,
                seconds=deadline + _KILL_GRACE + _ANSWER_GRACE,
            )
        except OutOfTime:
            self._line.cut()
            raise DeadlineExceeded(
                f"{self._line.host}: no answer within {deadline:g} s, nor after it was to be stopped; connection closed",
                hint=f"look on the host at what hangs: {frame.shown(commands[len(answers.results)])}",
            ) from None
        except ConnectionLost as error:
            self.explain_end(error)
        finally:
            self._took = time.monotonic() - started
            self._answers = self._on_output = None
        self._opening.check()
        return answers

    def listen(self) -> None:
        """Takes what the channel brings from now on."""
        self._pump.listeners = (self._splitters[0].feed, self._splitters[1].feed)

    def _heard(self, stream: int, piece: bytes) -> None:
        if not self._opening.settled_on(stream):
            self._opening.noise(stream, piece)
        elif self._answers is not None:
            self._answers.bytes_of(stream, piece)
            if self._on_output is not None:
                self._on_output(piece)

    def _marked(self, stream: int, mark: Mark) -> None:
        if mark.key == "hello":
            self._opening.hello(stream, mark.rest)
        elif self._answers is not None:
            self._answers.mark_of(stream, mark)

    def explain_end(self, error: ConnectionLost) -> NoReturn:
        """A channel that ended before the shell said hello was refused; raises what fits best."""
        if self._aborted:
            raise ConnectionLost(f"{self._line.host}: stopped from here") from error
        if self._opening.settled or not isinstance(error, ChannelEnded):
            self._opening.check()
            self._line.cut()
            raise error
        refusal = self._line.refusal
        self._line.hang_up(wait=_CLOSE_GRACE)
        raise refusal or self._opening.ended(self._line.exit_code) from error

    def _unfinished(self, commands: Sequence[Command], answers: Answers, deadline: float) -> Exception:
        """Why the first command without a result has none."""
        command = frame.shown(commands[len(answers.results)])
        words = [line.strip() for line in f"{answers.partial.errors}\n{answers.partial.text}".splitlines()]
        words = [line for line in words if line and line not in ("Terminated", "Killed")]
        said = f"; its last words: {mask(words[-1])[-300:]}" if words else ""
        if answers.end_code == _KILLED and len(commands) > _FEW:
            command, said = f"one of {len(commands)} commands, which would not be stopped", ""
        if answers.end_code in (_TIMED_OUT, _KILLED) and self._took >= deadline:
            return DeadlineExceeded(
                f"{self._line.host}: stopped after {deadline:g} s: {command}{said}",
                hint="it did not end in its time; look at what it waits for on the host",
            )
        return ProbeFailed(
            f"{self._line.host}: the shell ended with code {answers.end_code} in {command}{said}",
            hint="was it killed (out of memory), and are sh, timeout and dd there on the host?",
        )
