"""The session that the engine works through: one root shell over one connection.

`open_session` connects, starts the shell through sudo and gives sudo its password; `ShellSession` runs commands.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

import paramiko
from paramiko.ssh_exception import SSHException

from provision.errors import BecomeError, ConnectionLost, DeadlineExceeded, ProbeFailed
from provision.masking import LineJoiner, mask
from provision.shell import Command, Result
from provision.ssh import frame
from provision.ssh.bootstrap import GREETING, Handshake, command_line, first_line
from provision.ssh.connection import HostConnection, resolve
from provision.ssh.frame import KILL_AFTER, Answers, BrokenAnswer, Marker, Part, Splitter
from provision.ssh.paramiko_internals import request_refused, wait_for_exit
from provision.ssh.session import Report, Step, Target
from provision.ssh.wire import ChannelEnded, Pump, TransferTimeout

_EXEC_TIMEOUT = 30.0  # seconds for sshd to start a program
_PASSWORD_TIMEOUT = 15.0  # seconds for sudo to read the password and start the shell
_REFUSAL_SILENCE = 4.0  # seconds of silence after sudo has printed something: it waits for another password
_KILL_AFTER = float(KILL_AFTER)
_ANSWER_TIMEOUT = 10.0  # seconds for the results to arrive after that
_CLOSE_TIMEOUT = 2.0  # seconds for the remote shell to end and release its lock
_TIMED_OUT, _KILLED = 124, 137  # exit codes of `timeout`

# paramiko logs failures in addition to raising them; without a handler Python would print them.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


def open_session(target: Target, dialled: socket.socket | None, *, lock: bool, who: str) -> ShellSession:
    """See `provision.ssh.connect`. `dialled` is the TCP connection to the host; None for a host behind a gateway."""
    connection = resolve(target, dialled)
    sudo = target.become and connection.user != "root"
    password = target.become_password if sudo else None
    handshake = Handshake(target.name, connection.user, frame.new_nonce(), sudo, password is not None)
    try:
        connection.open()
        channel = _start_shell(connection, command_line(sudo=sudo, password=password is not None))
        session = ShellSession(target.name, connection, channel, handshake)
        if password is not None:
            session.give_password(password().reveal())
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        session.start(first_line(handshake.nonce, lock=lock, holder=f"since {since} by {who}"))
    except BaseException:
        connection.close()
        raise
    return session


def _start_shell(connection: HostConnection, command: str) -> paramiko.Channel:
    try:
        channel = connection.transport.open_session(timeout=_EXEC_TIMEOUT)
        connection.wire.count_round_trips()
        connection.transport.execute(channel, command)
    except (SSHException, EOFError, OSError) as error:
        raise _no_shell(connection.label, str(error) or type(error).__name__) from error
    return channel


def _no_shell(label: str, reason: str) -> ConnectionLost:
    """The error for a host that accepts the login and starts no program."""
    return ConnectionLost(
        f"{label}: the host accepts the login but starts no shell: {reason}",
        hint="check MaxSessions and ForceCommand in its sshd_config, and whether the account is restricted",
    )


class ShellSession:
    """Implements `provision.ssh.session.Session`. One thread uses it; only `abort` may be called from others.

    `name` is the inventory's name of the host, for messages.
    """

    def __init__(self, name: str, connection: HostConnection, channel: paramiko.Channel, handshake: Handshake) -> None:
        self.traffic = connection.wire.traffic
        self._name = name
        self._connection = connection
        self._channel = channel
        self._handshake = handshake
        self._batch = 0
        self._aborted = False
        self._answers: Answers | None = None
        self._progress = _Progress()
        nonce = handshake.nonce.encode()
        stdout, stderr = (
            Splitter(nonce, partial(self._receive_output, stream), partial(self._receive_marker, stream))
            for stream in (0, 1)
        )
        self._pump = Pump(channel, connection.wire, connection.transport, (stdout.feed, stderr.feed), connection.label)

    # -- the Session protocol --------------------------------------------------------------------

    def ask(self, commands: Sequence[Command], *, deadline: float) -> list[Result]:
        """Run all commands in one round trip, in order, each in its own subshell, regardless of their exit codes.

        `deadline`: seconds for all of them. Raises DeadlineExceeded naming the command that did not end, ConnectionLost.
        """
        if not commands:
            return []
        return self._run_batch([Part(commands, deadline)]).results

    def run(self, command: Command, *, deadline: float, on_output: Callable[[bytes], None] | None = None) -> Result:
        """Run one command; `on_output` receives whole lines of stdout and stderr as they arrive.

        With `on_output` the result contains only the end of each output: see frame.STREAMED_KEPT.
        """
        progress = _Progress(1, on_output) if on_output else None
        return self._run_batch([Part([command], deadline)], progress).results[0]

    def run_steps(
        self,
        steps: Sequence[Step],
        then: Sequence[Command],
        *,
        deadline: float,
        report: Report,
        stopping: Callable[[], bool] = lambda: False,
    ) -> tuple[list[Result], list[Result]]:
        """Run steps in one round trip until one fails or `stopping` returns True. Then ask `then`. See `Session`."""
        parts = [*(Part([one.command], one.deadline) for one in steps), *([Part(then, deadline)] if then else [])]
        results = self._run_batch(parts, _Progress(len(steps), report.output, report.result), stopping).results
        return results[: len(steps)], results[len(steps) :]

    def close(self) -> None:
        """End the session. Waits briefly for the remote shell to end, so that the host's lock is released."""
        if not self._aborted:
            self._end_shell()
        self._connection.close()

    def abort(self) -> None:
        """Close the connection at once, from any thread: a pending `ask` or `run` raises ConnectionLost.

        The running command continues on the host until it ends or reaches its deadline, and keeps the lock until then.
        """
        self._aborted = True
        self._connection.close()

    # -- opening ---------------------------------------------------------------------------------

    def give_password(self, password: str) -> None:
        """Send sudo its password, and nothing else until the root shell has started. Raises BecomeError.

        A refusal is recognised by silence and by the exit code, never by the text of a prompt: sudo-rs prints others.
        """
        if "\n" in password or "\0" in password:
            raise BecomeError(
                f"{self._name}: the sudo password contains a line break or NUL", hint="check become_password"
            )
        handshake = self._handshake
        refused = _SilenceAfterOutput(lambda: handshake.stderr_size)
        with contextlib.suppress(TransferTimeout, ConnectionLost):  # in both cases the shell has not started
            self._pump.run(
                f"{password}\n".encode(), lambda: handshake.shell_started or refused(), seconds=_PASSWORD_TIMEOUT
            )
        if not handshake.shell_started:
            raise handshake.password_refused(self._end_shell())

    def start(self, line: bytes) -> None:
        """Send the line that the bootstrap script waits for. Its greeting is awaited with the first results."""
        try:
            self._pump.run(line, None, seconds=_EXEC_TIMEOUT)
        except ChannelEnded as error:
            self._raise_cause(error)

    def ready(self, *, deadline: float = 30.0) -> None:
        """Wait until the root shell has started and, if requested, holds the host's lock.

        Optional: the first `ask` or `run` does the same without a round trip of its own.
        Raises BecomeError, Locked, HostFailed.
        """
        try:
            self._pump.run(b"", lambda: self._handshake.complete, seconds=deadline)
        except TransferTimeout:
            self._connection.close()
            raise self._handshake.timed_out(deadline) from None
        except ConnectionLost as error:
            self._raise_cause(error)
        self._handshake.check()

    # -- inside ----------------------------------------------------------------------------------

    def _run_batch(
        self,
        parts: Sequence[Part],
        progress: _Progress | None = None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> Answers:
        self._batch += 1
        commands = [one for part in parts for one in part.commands]
        self._progress = progress = progress or _Progress()
        answers = self._answers = Answers(self._batch, len(commands), streamed=progress.steps)
        # The host reads a stop request only during a batch of several parts.
        stop = _StopRequest(stopping if len(parts) > 1 else lambda: False)
        clock = _Clock(parts, answers)
        data = frame.encode(self._batch, parts, self._handshake.nonce)
        try:
            self._pump.run(
                data,
                lambda: answers.done or self._handshake.failed,
                seconds=clock.seconds_left,
                further=stop,
            )
        except TransferTimeout:
            self._connection.close()
            raise DeadlineExceeded(
                f"{self._name}: no result within {clock.deadline:g} s, and the command could not be stopped;"
                " the connection was closed",
                hint=f"check on the host what blocks: {frame.describe(commands[len(answers.results)])}",
            ) from None
        except ConnectionLost as error:
            self._raise_cause(error)
        except BrokenAnswer as error:
            self._connection.close()
            command = frame.describe(commands[min(len(answers.results), len(commands) - 1)])
            raise ProbeFailed(
                f"{self._name}: {error.text}, during {command}; the connection was closed",
                hint="check what the command prints on the host, and whether the host can be trusted",
            ) from error
        except BaseException:  # the rest of this answer would be taken for the next one
            self._connection.close()
            raise
        finally:
            progress.flush()
            self._answers, self._progress = None, _Progress()
        self._handshake.check()
        failed = 0 < len(answers.results) <= progress.steps and answers.results[-1].code != 0
        stopped = stop.sent and answers.end_code == 0
        if len(answers.results) < len(commands) and not (failed or stopped):
            raise self._unfinished(commands, answers, clock)
        return answers

    def _receive_output(self, stream: int, piece: bytes) -> None:
        if not self._handshake.greeted_on(stream):
            self._handshake.add_output(stream, piece)
        elif self._answers is not None:
            self._answers.add_output(stream, piece)
            self._progress.add(stream, self._answers.running(stream), piece)

    def _receive_marker(self, stream: int, marker: Marker) -> None:
        if marker.key == GREETING:
            self._handshake.add_greeting(stream, marker.rest)
        elif self._answers is not None:
            for result in self._answers.add_marker(stream, marker):
                self._progress.end_command(result)

    def _end_shell(self) -> int | None:
        """End the shell's input and wait briefly for its exit code; None when it is not known."""
        if not self._connection.is_open:
            return None
        self._channel.shutdown_write()
        self._connection.wire.discard_output()
        code = wait_for_exit(self._connection.transport, self._channel, _CLOSE_TIMEOUT)
        self._connection.wire.count_round_trips()
        return code

    def _raise_cause(self, error: ConnectionLost) -> NoReturn:
        """Raise why the connection ended: an abort, a failed bootstrap, a refused shell, or `error` itself."""
        if self._aborted:
            raise ConnectionLost(f"{self._name}: the connection was closed by this run") from error
        if self._handshake.complete or not isinstance(error, ChannelEnded):
            self._handshake.check()
            self._connection.close()
            raise error
        refused = request_refused(self._channel)
        code = self._end_shell()
        self._connection.close()
        if refused:
            raise _no_shell(self._connection.label, "the request was refused") from error
        raise self._handshake.exited(code) from error

    def _unfinished(self, commands: Sequence[Command], answers: Answers, clock: _Clock) -> Exception:
        """Why the first command without a result has none."""
        command = frame.describe(commands[len(answers.results)])
        lines = [line.strip() for line in f"{answers.partial.errors}\n{answers.partial.text}".splitlines()]
        lines = [line for line in lines if line and line not in ("Terminated", "Killed")]
        output = f"; last output: {mask(lines[-1])[-300:]}" if lines else ""
        if answers.end_code == _KILLED and clock.part.gathers:
            command, output = f"one of {len(clock.part.commands)} commands, which ignored SIGTERM", ""
        if answers.end_code == _TIMED_OUT or (answers.end_code == _KILLED and clock.seconds >= clock.deadline):
            return DeadlineExceeded(
                f"{self._name}: stopped after {clock.deadline:g} s: {command}{output}",
                hint="the command did not end within its deadline; check on the host what it waits for",
            )
        return ProbeFailed(
            f"{self._name}: the shell ended with code {answers.end_code} during {command}{output}",
            hint="check on the host whether it was killed (out of memory), and that sh, timeout and dd are installed",
        )


class _Progress:
    """Passes on the outputs and results of the first `steps` commands of a batch, each output before its result."""

    def __init__(
        self,
        steps: int = 0,
        on_output: Callable[[bytes], None] = lambda _: None,
        on_result: Callable[[Result], None] = lambda _: None,
    ) -> None:
        self.steps = steps
        self._on_output = on_output
        self._on_result = on_result
        self._ended = 0
        self._joiners = (LineJoiner(), LineJoiner())  # pieces of the two streams arrive in turn
        self._early: list[tuple[int, int, bytes]] = []  # of commands after the one that has not ended on both streams

    def add(self, stream: int, index: int, piece: bytes) -> None:
        """Add output of the command `index`."""
        if index > self._ended:
            self._early.append((stream, index, piece))
        elif index < self.steps and (lines := self._joiners[stream].add(piece)):
            self._on_output(lines)

    def end_command(self, result: Result) -> None:
        """The next command has ended."""
        if self._ended < self.steps:
            self.flush()
            self._on_result(result)
        self._ended += 1
        early, self._early = self._early, []
        for one in early:
            self.add(*one)

    def flush(self) -> None:
        """Pass on a last line that has no line break."""
        for joiner in self._joiners:
            if rest := joiner.end():
                self._on_output(rest)


class _StopRequest:
    """The request to end after the running command. It is written once, after the batch."""

    def __init__(self, stopping: Callable[[], bool]) -> None:
        self._stopping = stopping
        self.sent = False

    def __call__(self) -> bytes:
        if self.sent or not self._stopping():
            return b""
        self.sent = True
        return frame.STOP_REQUEST


class _Clock:
    """The time of the running part of a batch. It starts when the part before has ended."""

    def __init__(self, parts: Sequence[Part], answers: Answers) -> None:
        self._parts = parts
        self._answers = answers
        self._index = 0
        self._since = time.monotonic()

    @property
    def part(self) -> Part:
        """The running part: the first one without all results, or the last one."""
        self._update()
        return self._parts[self._index]

    @property
    def deadline(self) -> float:
        """The seconds that the running part may take."""
        return self.part.deadline

    @property
    def seconds(self) -> float:
        """How long the running part has run."""
        self._update()
        return time.monotonic() - self._since

    def _update(self) -> None:
        while self._index < len(self._parts) - 1 and self._ended_commands() >= len(self._parts[self._index].commands):
            self._index += 1
            self._since = time.monotonic()

    def _ended_commands(self) -> int:
        """How many commands of the part at `_index` have ended."""
        return len(self._answers.results) - sum(len(one.commands) for one in self._parts[: self._index])

    def seconds_left(self) -> float:
        """The seconds until its result must have arrived. They include the time to kill a command and to get its output."""
        return self.deadline + _KILL_AFTER + _ANSWER_TIMEOUT - self.seconds


class _SilenceAfterOutput:
    """True once `size` has grown and then stayed the same for _REFUSAL_SILENCE seconds."""

    def __init__(self, size: Callable[[], int]) -> None:
        self._size = size
        self._last = 0
        self._since = time.monotonic()

    def __call__(self) -> bool:
        if (now := self._size()) != self._last:
            self._last, self._since = now, time.monotonic()
        return self._last > 0 and time.monotonic() - self._since > _REFUSAL_SILENCE
