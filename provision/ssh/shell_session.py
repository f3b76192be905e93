"""The session that the engine works through: one root shell over one connection."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn, Protocol

from provision.errors import ConnectionLost, DeadlineExceeded, ProbeFailed
from provision.resources.base import Result
from provision.secret import mask
from provision.shell import Command
from provision.ssh import frame, opening
from provision.ssh.frame import Answers, Mark, Splitter
from provision.ssh.pump import ChannelEnded, OutOfTime, Pump
from provision.ssh.session import Traffic

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
