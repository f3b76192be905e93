"""One host's way through a run: connect, look once, then play by play and task by task."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from provision.engine.apply import Hands
from provision.engine.events import Bus, HostSummary, Status
from provision.engine.observe import Eyes
from provision.engine.plan import ResourceError
from provision.engine.recorder import Teller
from provision.engine.task_run import Stopped, TaskRun
from provision.errors import ProbeFailed, ProvisionError
from provision.host.files import ASK_PENDING, ASK_STATE, STATE, read_state
from provision.resources.base import Resource
from provision.ssh.session import Session
from provision.tasks.base import Host, Task

Connect = Callable[[], Session]


class HostRun:
    """A host in a run; one thread at a time works on it."""

    def __init__(
        self,
        name: str,
        connect: Connect,
        login: Connect,
        bus: Bus,
        *,
        check: bool,
        stopping: Callable[[], bool],
        on_look: Callable[[], None] = lambda: None,
    ) -> None:
        self.teller = Teller(name, bus)
        self.gave_up = False
        self._session: Session | None = None
        self._connect = connect
        self._login = login
        self._check = check
        self._stopping = stopping
        self._on_look = on_look

    def open(self, host: Host, tasks: Sequence[Task]) -> None:
        """Connects, and looks at everything that all tasks of the run will ask, in one batch."""
        self.teller.at("connecting", "connecting")
        try:
            self._session = self._connect()
            eyes = Eyes(self._session)
            self.teller.at("looking", "observing")
            self._on_look()
            eyes.look_at([one for task in tasks for one in task.resources(host)], ASK_PENDING, ASK_STATE)
            hands = Hands(self._session, _state(eyes), self._login)
            self._work = TaskRun(eyes, hands, self.teller, self._check, self._stopping)
        except ProvisionError as error:
            self._give_up("", error)

    def forget(self) -> None:
        """Something changed elsewhere: look again before the next play."""
        if not self.gave_up:
            self._work.eyes.forget()

    def play(self, host: Host, tasks: Sequence[Task]) -> bool:
        """Works through a play's tasks. True when something was changed."""
        before = self.teller.changed
        wanted = [(task, task.resources(host)) for task in tasks]
        for index, (task, resources) in enumerate(wanted):
            later = [one for _, more in wanted[index + 1 :] for one in more]
            self._task(task, resources, later)
        return self.teller.changed > before

    def leave_out(self, tasks: Sequence[Task], why: str) -> None:
        """Another host's failure has ended the play before this host's turn."""
        self.teller.task = tasks[0].name
        self.teller.note(why, "skipped")
        for task in tasks:
            self.teller.done(task, "skipped", time.monotonic(), self.teller.changed)

    def wait(self) -> None:
        """The host is through a play, and others are not."""
        if not self.gave_up:
            self.teller.at("waiting for the other hosts", "waiting")

    @property
    def busy(self) -> bool:
        """Still on its way."""
        return not self.teller.ended and not self.gave_up

    def abort(self) -> None:
        """Breaks the session off from another thread; the step on the host may go on (and keeps the lock)."""
        if self._session is not None:
            self._session.abort()

    def close(self) -> None:
        """Ends the session; the host's lock is free after it."""
        if self._session is not None:
            self._session.close()
        self.teller.ended = time.monotonic()

    def summary(self) -> HostSummary:
        """The counts, for the end of the report."""
        return self.teller.summary(self._session.traffic if self._session else None)

    def _task(self, task: Task, resources: Sequence[Resource], later: Sequence[Resource]) -> None:
        started, changes = time.monotonic(), self.teller.changed
        if self.gave_up:
            first = self.teller.task == "" and not self.teller.skipped
            status: Status = "skipped"
            if first:
                status = "unreachable" if self.teller.unreachable else "failed"
                self.teller.task = task.name
            self.teller.done(task, status, started, changes)
            return
        self.teller.task = task.name
        try:
            self._work.work(resources, later)
        except ResourceError as problem:
            self._give_up(problem.resource, problem.error)
        except ProvisionError as error:
            self._give_up("", error)
        except Stopped:
            self._tell_stopped()
            self.teller.done(task, "skipped", started, changes)
            return
        status = "changed" if self.teller.changed > changes else "ok"
        if self.gave_up:
            status = "unreachable" if self.teller.unreachable else "failed"
        self.teller.done(task, status, started, changes)

    def _give_up(self, resource: str, error: ProvisionError) -> None:
        self.gave_up = True
        self.teller.error(resource, error)

    def _tell_stopped(self) -> None:
        self.gave_up = True
        owed = ", ".join(sorted(self._work.owed))
        more = f"; owed, and done by the next run: {owed}" if owed else ""
        self.teller.note(f"stopped between two steps, the last was: {self.teller.step}{more}")


def _state(eyes: Eyes) -> dict[str, object]:
    try:
        return read_state(eyes.answer(ASK_STATE).text)
    except ValueError as error:
        raise ProbeFailed(
            f"{STATE} cannot be read: {error}",
            hint="mend it, or move it away: what was set up by earlier runs is then no longer taken back",
        ) from error
