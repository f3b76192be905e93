"""Waiting until GitLab and its registry are ready.

While Rails boots, Workhorse answers 502 to everything: for 30 to 90 s after a reconfigure or an upgrade, and longer on
slow machines. A question, a request or a change that meets this is repeated until it is answered, for a limited time.
Nothing waits while GitLab is ready, and nothing is asked for it.

Scripts on hosts report it by the exit code NOT_READY, the API's client by `ApiFailed.not_ready`. The reconfigure's own
script waits by itself, because it continues without a connection (`host/scripts/reconfigure_gitlab.sh`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from provision.engine.events import MessageKind, StepKind
from provision.gitlab.api import following, pause

_INTERVAL_SECONDS: Final = 2.0
_REPEAT_SECONDS: Final = 30.0  # between two messages


class Stopped(Exception):
    """The user interrupted the run, and the host is between two steps. `left` is what was to be done next, or ""."""

    def __init__(self, left: str = "") -> None:
        super().__init__(left)
        self.left = left


class Reports(Protocol):
    """What reports the steps and messages of a host."""

    def start_step(self, step: str, kind: StepKind) -> None:
        """Reports that the host begins a step."""

    def message(self, text: str, kind: MessageKind = "note") -> None:
        """Reports a message for the user."""


class _Following:
    """Reports what a change follows in GitLab, while the host is in the step `to`."""

    def __init__(self, reports: Reports, pause: Callable[[float], bool], to: str) -> None:
        self._reports, self._pause, self._to = reports, pause, to

    def report(self, text: str) -> None:
        self._reports.message(text, "waiting")
        self._reports.start_step(f"{self._to}: {text}", "checking")

    def wait(self, seconds: float, left: str) -> None:
        if self._pause(seconds):
            raise Stopped(left)


class Waiting:
    """The waiting of one host's run.

    pause  waits for a number of seconds, or until the user interrupts the run: then it returns True
    limit  seconds to wait until something is ready; 0: nothing is repeated
    """

    def __init__(self, reports: Reports, pause: Callable[[float], bool], limit: float) -> None:
        self._reports = reports
        self._pause = pause
        self._limit = limit
        self._since: float | None = None
        self._reported = 0.0
        self._reason = ""

    def again(self, reason: str, to: str) -> bool:
        """Waits a moment because of `reason`. Returns whether to try again: not when the limit is reached.

        to  what is to be done afterwards, such as "observe". Raises Stopped.
        """
        if self._limit <= 0:
            return False
        reason = self._reason = reason.partition("\n")[0]
        now = time.monotonic()
        if self._since is None:
            self._since = now
            self._report(now, f"waiting for at most {self._limit:.0f} s", reason)
        waited = now - self._since
        if waited >= self._limit:
            return False
        progress = f"waiting for {waited:.0f} s of at most {self._limit:.0f} s"
        if now - self._reported >= _REPEAT_SECONDS:
            self._report(now, progress, reason)
        self._reports.start_step(f"{progress} to {to}: {reason}", "checking")
        if self._pause(min(_INTERVAL_SECONDS, self._limit - waited)):
            raise Stopped(to)
        return True

    @contextmanager
    def rate_limits(self, to: str) -> Iterator[None]:
        """Reports the waits for GitLab's rate limit inside, and what is followed there. Ctrl-C raises Stopped in them.

        to  what the requests are for, such as "observe"
        """

        def wait(seconds: float, reason: str) -> None:
            self._reports.message(f"waiting for {seconds:.0f} s: {reason}", "waiting")
            if self._pause(seconds):
                raise Stopped(to)

        token, followed = pause.set(wait), following.set(_Following(self._reports, self._pause, to))
        try:
            yield
        finally:
            following.reset(followed)
            pause.reset(token)

    def ended(self) -> None:
        """Reports for how long was waited, if it was."""
        if self._since is not None:
            self._reports.message(f"waited for {time.monotonic() - self._since:.0f} s: {self._reason}")
            self._since = None

    def until_ready(self, attempt: Callable[[], str], to: str) -> None:
        """Repeats an attempt that returns why something is not ready yet, until it returns "" or the limit is reached."""
        waited = False
        while (reason := attempt()) and self.again(reason, to):
            waited = True
        if waited and not reason:
            self.ended()

    def _report(self, now: float, progress: str, reason: str) -> None:
        self._reported = now
        self._reports.message(f"{progress}: {reason}", "waiting")
