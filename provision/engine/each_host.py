"""Running one command on several hosts in parallel, with its output as it arrives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from provision.engine.assemble import Opener
from provision.engine.run import Interrupts, start_thread
from provision.errors import as_provision_error
from provision.masking import OutputMasker
from provision.shell import Command, Result
from provision.ssh.session import Session


@dataclass
class EachHost:
    """Runs one command on several hosts: one thread and one session for each, without the host's lock.

    command    the command for a host, by the host's name
    deadline   seconds for the command
    on_line    receives a host's name and a line of its output, masked, without the line break; a very long line in parts
    on_error   receives a host's name and the error that ended its command

    The two callbacks are never called at the same time. An error that one of them raises ends the command on all hosts.
    """

    open_session: Opener
    command: Callable[[str], Command]
    deadline: float
    on_line: Callable[[str, str], None]
    on_error: Callable[[str, Exception], None]
    interrupted: bool = False
    _sessions: dict[str, Session] = field(default_factory=dict)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _reporting: threading.Lock = field(default_factory=threading.Lock)
    _callback_error: BaseException | None = None

    def run(self, names: Sequence[str]) -> dict[str, Result | Exception]:
        """Run the command on all hosts and wait for its end. Ctrl-C ends it on all hosts and sets `interrupted`."""
        with Interrupts() as interrupts:
            jobs = {name: start_thread(f"host {name}", self._run_on, name) for name in names}
            for _ in interrupts.during(list(jobs.values())):
                self.interrupted = True
                self._stop()
        outcomes: dict[str, Result | Exception] = {}
        for name, job in jobs.items():
            if (error := job.exception()) is None:
                outcomes[name] = job.result()
            else:  # no thread could be started for it
                outcomes[name] = failure = as_provision_error(error)
                self._report(partial(self.on_error, name, failure))
        if self._callback_error is not None:
            raise self._callback_error
        return outcomes

    def _run_on(self, name: str) -> Result | Exception:
        masker = OutputMasker()
        try:
            session = self._sessions[name] = self.open_session(name, lock=False)
            try:
                if self._stopping.is_set():  # while the session was being opened
                    session.abort()
                return session.run(
                    self.command(name),
                    deadline=self.deadline,
                    on_output=lambda piece: self._pass_on(name, masker.add(piece)),
                )
            finally:
                session.close()
                self._pass_on(name, masker.end())
        except Exception as failure:
            error = as_provision_error(failure)
        if not self._stopping.is_set():
            self._report(lambda: self.on_error(name, error))
        return error

    def _pass_on(self, name: str, text: str) -> None:
        for line in text.removesuffix("\n").split("\n") if text else ():
            self._report(partial(self.on_line, name, line.removesuffix("\r")))

    def _report(self, callback: Callable[[], None]) -> None:
        with self._reporting:
            if self._callback_error is not None:
                return
            try:
                callback()
            except BaseException as error:
                self._callback_error = error
                self._stop()

    def _stop(self) -> None:
        self._stopping.set()
        for session in list(self._sessions.values()):
            session.abort()
