"""A job's log: masked, with a time before each line, and sent to GitLab in pieces.

Sources: gitlab-runner's network/trace.go (intervals), common/buildlogger (times and masking, FF_TIMESTAMPS is on),
helpers/build_section.go, common/build.go.
"""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from .api import Answer, Server

CLEAR, RESET = "\x1b[0K", "\x1b[0;m"
GREEN, YELLOW, RED = "\x1b[32;1m", "\x1b[0;33m", "\x1b[31;1m"
_INTERVAL: Final = 3.0  # until GitLab asks for another one
_KEEPALIVE: Final = 30.0
_LIMIT: Final = 4 * 1024 * 1024
_PIECE: Final = 1024 * 1024
_MASKED: Final = b"[MASKED]"


class Stream:
    """One source of lines, `00` for the runner and `01` for the job; O for output, E for errors."""

    def __init__(self, trace: Trace, kind: str) -> None:
        self._trace, self._kind, self._rest = trace, kind, b""

    def write(self, data: bytes) -> None:
        """Adds whole lines; the rest waits for its end, as what could be a masked value that is not complete does."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._trace.line(self._kind, line + b"\n")

    def close(self) -> None:
        """Adds what has no newline."""
        if self._rest:
            self._trace.line(self._kind, self._rest + b"\n")
        self._rest = b""


class Trace:
    """The log of one job, and what GitLab knows about the job."""

    def __init__(self, server: Server, number: int, token: str, masked: Iterable[str]) -> None:
        self.server, self.number, self.token = server, number, token
        self._masked = sorted({one.encode() for one in masked if one}, key=len, reverse=True)
        self._log, self._sent, self._flag = bytearray(), 0, " "
        self._lock, self._end = threading.Lock(), threading.Event()
        self._interval, self._last = _INTERVAL, time.monotonic()
        self.canceled, self.aborted = threading.Event(), threading.Event()  # the script alone; all of it
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def line(self, kind: str, text: bytes, flag: str = " ") -> None:
        """Adds a line with its time. The flag `+` appends it to the line before."""
        for secret in self._masked:
            text = text.replace(secret, _MASKED)
        moment = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        with self._lock:
            if len(self._log) <= _LIMIT:
                self._log += f"{moment} {kind}{flag}".encode() + text
                if len(self._log) > _LIMIT:
                    self._log += f"\n{YELLOW}Job's log exceeded limit of {_LIMIT} bytes.\n{RESET}".encode()

    def print(self, text: str, before: str = CLEAR) -> None:
        """Adds lines of the runner itself."""
        for one in text.split("\n"):
            self.line("00O", f"{before}{one}{RESET}\n".encode(), self._flag)
            self._flag = " "

    def _mark(self, what: str, name: str) -> None:
        """A mark ends with a carriage return; what the runner writes next is appended to it."""
        self.line("00O", f"section_{what}:{int(time.time())}:{name}\r{CLEAR}\n".encode(), self._flag)
        self._flag = "+"

    @contextmanager
    def section(self, name: str, title: str) -> Iterator[None]:
        """A part of the log that can be folded."""
        self._mark("start", name)
        self.print(f"\x1b[0K\x1b[36;1m{title}{RESET}")
        try:
            yield
        finally:
            self._mark("end", name)

    def _watch(self) -> None:
        while not self._end.wait(self._interval):
            if not self._send():
                self.aborted.set()
                return

    def _send(self) -> bool:
        """Sends what is new, or that the job runs; whether GitLab wants the job to go on."""
        with self._lock:
            piece, start = bytes(self._log[self._sent : self._sent + _PIECE]), self._sent
        if piece:
            answer = self.server.patch(f"jobs/{self.number}/trace", self.token, piece, start)
            if answer.code in (202, 416):
                self._sent, self._last = int(answer.header("Range").rpartition("-")[2] or 0), time.monotonic()
        elif time.monotonic() - self._last > _KEEPALIVE:
            answer = self._put("running", "", None)
            self._last = time.monotonic()
        else:
            return True
        if interval := answer.header("X-GitLab-Trace-Update-Interval"):
            self._interval = float(interval)
        status = answer.header("Job-Status")
        if status == "canceling":
            self.canceled.set()
        return answer.code not in (403, 404) and status not in ("canceled", "failed")

    def _put(self, state: str, reason: str, code: int | None) -> Answer:
        body: dict[str, object] = {"token": self.token, "state": state, "output": {"bytesize": len(self._log)}}
        body |= {"failure_reason": reason} if reason else {}
        body |= {"exit_code": code} if code is not None else {}
        answer, _ = self.server.ask("PUT", f"jobs/{self.number}", self.token, body)
        return answer

    def finish(self, state: str, reason: str = "", code: int | None = None) -> None:
        """Sends the rest of the log, then the job's state: several times if GitLab does not answer."""
        self._end.set()
        self._thread.join()
        for pause in (1, 2, 4, 8, 16, 0):
            while self._sent < len(self._log):
                before = self._sent
                if not self._send() or self._sent == before:
                    break
            answer = self._put(state, reason, code)
            if answer.code in (200, 202, 403, 404):  # the last two: it has ended there
                return
            time.sleep(pause)
