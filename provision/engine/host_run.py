"""One host in a run: it connects, observes once, then runs its plays and their tasks in order."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Collection, Sequence

from provision.engine.apply import Applier
from provision.engine.desired_state import HostDesiredState, Owned
from provision.engine.events import Bus, HostSummary, Status
from provision.engine.observe import Observer, ResourceError, named
from provision.engine.plan import PlanErrors
from provision.engine.recorder import Recorder
from provision.engine.task_run import TaskRun
from provision.engine.waiting import Stopped, Waiting
from provision.errors import ApiFailed, HostFailed, Unexpected, Unreachable, as_provision_error
from provision.ssh.session import Session, Traffic
from provision.tasks import SHIPPED
from provision.tasks.base import Task

Connect = Callable[[], Session]


class HostRun:
    """A host in a run; one thread at a time works on it.

    desired  the resources that the run's tasks yield for the host
    named   what the user named on the command line: verifications of these tasks are always due
    outdated  is called whenever something was changed on the host
    """

    def __init__(
        self,
        name: str,
        desired: HostDesiredState,
        connect: Connect,
        login: Connect,
        bus: Bus,
        *,
        named: Collection[str],
        check: bool,
        stopping: Callable[[], bool],
        waiting: Callable[[Recorder], Waiting],
        failed_tasks: set[str],
        outdated: Callable[[], None] = lambda: None,
    ) -> None:
        self.recorder = Recorder(name, bus)
        self.failed = False
        self._session: Session | None = None
        self._work: TaskRun | None = None
        self._traffic: Traffic | None = None  # of the session that has ended
        self._desired = desired
        self._connect = connect
        self._login = login
        self._named = named
        self._check = check
        self._stopping = stopping
        self._outdated = outdated
        self._waiting = waiting(self.recorder)
        self._failed_here: set[str] = set()
        self._failed_anywhere = failed_tasks
        self._refused: Task | None = None  # the task that refused before anything was changed
        self._apart = False  # each task is observed alone, since the observation of all of them failed
        self._changed_elsewhere = False
        self._pending: set[str] = set()  # handlers, kept up to date by the task run
        self._current: tuple[str, bool] = ("", False)  # the running task, and whether its verifications are due

    def connecting(self) -> None:
        """Reports that the host is being connected to."""
        self.recorder.start_step("connecting", "connecting")

    def open(self) -> None:
        """Connects, and observes the resources of all tasks of the run in one batch."""
        self.connecting()
        try:
            self._session = self._connect()
            observer = Observer(self._session, self._desired.claimed, self._is_due, self._waiting, self._outdated)
            self.recorder.start_step("observing", "observing")
            self._observe_all(observer)
            applier = Applier(self._session, observer.state, self._login)
            self._work = TaskRun(
                observer,
                applier,
                self.recorder,
                self._check,
                self._stopping,
                self._waiting,
                self._failed_before,
                self._pending,
            )
            if not self._check:  # check mode plans every task, and reports each refusal there
                self._refuse_early(observer)
        except BaseException as error:  # also SystemExit of an own resource, and panics of libraries written in Rust
            self._fail(error, fatal=True)

    def _observe_all(self, observer: Observer) -> None:
        try:
            observer.observe([one for owned in self._desired.tasks.values() for one in owned])
        except (ResourceError, ApiFailed):
            if not self._check:
                raise
            self._apart = True  # check mode goes on with the tasks whose own observation succeeds

    def _refuse_early(self, observer: Observer) -> None:
        """Raises ResourceError for what makes a later task fail, before an earlier one changes anything."""
        for task, items in self._desired.tasks.items():
            for item in [one for one in items if one.may_refuse_early and observer.is_observed(one)]:
                try:
                    with named(item):
                        item.resource.refuse_early(observer.observation(item))
                except HostFailed as error:
                    self._refused, self.recorder.task = task, task.name
                    raise ResourceError(item.label, error) from error
            if task not in SHIPPED:  # it may set up what the later tasks need
                return

    def _failed_before(self, task: str) -> bool:
        """Whether a task has failed: on this host, or on another one if it does not run on this host."""
        own = {one.name for one in self._desired.tasks}
        return task in (self._failed_here if task in own else self._failed_anywhere)

    def crashed(self, error: BaseException) -> None:
        """Called when the run of this host ended by an exception outside of its tasks: the host has failed."""
        self._fail(error, fatal=True)
        if not self.recorder.unreachable:
            self.recorder.failed = max(self.recorder.failed, 1)

    def changed_elsewhere(self) -> None:
        """Called when an earlier play changed any host: the observations of this host may be outdated."""
        self._changed_elsewhere = True
        if not self.failed and not self._check:
            self._opened.observer.forget()

    def play(self, tasks: Sequence[Task]) -> bool:
        """Runs the tasks of a play. Returns whether something was changed."""
        before = self.recorder.changed
        for index, task in enumerate(tasks):
            following = () if self._apart else tasks[index + 1 :]
            later = [one for other in following for one in self._desired.tasks[other]]
            self._task(task, later)
        return self.recorder.changed > before

    def skip(self, tasks: Sequence[Task], why: str) -> None:
        """Reports the tasks as skipped: another host's failure ended the play."""
        self.recorder.task = tasks[0].name
        self.recorder.message(why, "skipped")
        for task in tasks:
            self.recorder.task_done(task, "skipped", time.monotonic(), self.recorder.changed)

    def wait(self, awaited: str) -> None:
        """Reports that the host waits for other plays. `awaited` names them: "access on gitlab"."""
        if not self.failed and self.recorder.step != (step := f"waiting for {awaited}"):
            self.recorder.start_step(step, "waiting")

    def give_up(self) -> None:
        """Skips all tasks of the host. Called instead of `open` when Ctrl-C came before the host was contacted."""
        self.failed = True
        self.recorder.task = next(iter(self._desired.tasks)).name
        self.recorder.message("stopped before the host was contacted")

    @property
    def failed_tasks(self) -> frozenset[str]:
        """The names of the tasks that have failed here, or that depend on such a task."""
        return frozenset(self._failed_here)

    @property
    def busy(self) -> bool:
        """Whether there is still work to do."""
        return not self.recorder.ended and not self.failed

    def abort(self) -> None:
        """Closes the session at once, from another thread. The running step may continue and keep the host's lock."""
        self.recorder.message(f"abandoned during: {self.recorder.step}{self._left}", "abandoned")
        if (session := self._session) is not None:
            session.abort()

    def close(self) -> None:
        """Ends the session, which releases the host's lock. Only the counts of the host are kept, to save memory."""
        try:
            if self._session is not None:
                self._session.close()
        except Exception as error:
            self.recorder.message(f"the session was not closed properly: {as_provision_error(error).text}")
        finally:
            self.recorder.ended = time.monotonic()
            if self._session is not None:
                self._traffic = self._session.traffic
            self._session = self._work = None

    def summary(self) -> HostSummary:
        """The counts, for the end of the report."""
        return self.recorder.summary(self._session.traffic if self._session else self._traffic)

    @property
    def _opened(self) -> TaskRun:
        if self._work is None:
            raise RuntimeError(f"{self.recorder.host}: `open` was not called")
        return self._work

    def _is_due(self, owner: str) -> bool:
        """Whether the verifications of a task are due. For the running task this does not change while it runs."""
        task, due = self._current
        if owner == task:
            return due
        return owner in self._named or self._changed_elsewhere or self.recorder.changed > 0

    def _task(self, task: Task, later: Sequence[Owned]) -> None:
        started, changes = time.monotonic(), self.recorder.changed
        if self.failed:
            first = self.recorder.task == "" and not self.recorder.skipped
            status: Status = "skipped"
            if first or task is self._refused:
                status = "unreachable" if self.recorder.unreachable else "failed"
                self.recorder.task = task.name
            self.recorder.task_done(task, status, started, changes)
            return
        self.recorder.task = task.name
        self._current = "", False
        self._current = task.name, self._is_due(task.name)
        work = self._opened
        failed, not_planned = False, work.not_planned
        try:
            work.work(self._desired.tasks[task], later)
        except Stopped as stop:
            self._report_stop(stop.left)
            self.recorder.task_done(task, "skipped", started, changes)
            return
        except PlanErrors as problems:
            failed = True
            for one in problems.errors:
                self._fail(one)
        except BaseException as error:
            failed = True
            self._fail(error)
        depends = work.not_planned > not_planned  # on a task that failed
        if failed:
            status = "unreachable" if self.recorder.unreachable else "failed"
        elif self.recorder.changed > changes:
            status = "changed"
        else:
            status = "skipped" if depends else "ok"
        if failed or depends:
            self._failed_here.add(task.name)
            self._failed_anywhere.add(task.name)
        self.recorder.task_done(task, status, started, changes)

    def _fail(self, error: BaseException, *, fatal: bool = False) -> None:
        """Every exception is this host's failure: the others continue. -v prints the traceback of an unexpected one.

        In check mode the host's other tasks are planned, too, unless the failure is `fatal` or the host is unreachable.
        """
        resource, problem = "", as_provision_error(error)
        if isinstance(error, ResourceError):
            resource, problem = error.resource, error.error
        if isinstance(problem, Unexpected):
            self.recorder.output("".join(traceback.format_exception(error)))
        self.failed = self.failed or fatal or not self._check or isinstance(problem, Unreachable)
        self.recorder.error(resource, problem)

    @property
    def _left(self) -> str:
        names = ", ".join(sorted(self._pending.copy()))
        return f"; pending until the next run: {names}" if names else ""

    def _report_stop(self, left: str) -> None:
        self.failed = True
        more = f"; not done: {left}" if left else ""
        self.recorder.message(f"stopped between two steps; the last was: {self.recorder.step}{more}{self._left}")
