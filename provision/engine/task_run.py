"""One task on one host: plan, apply what can be applied, run handlers, observe again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

from provision.engine.apply import Applier, Work, changed_nothing
from provision.engine.desired_state import Owned
from provision.engine.observe import Observer, Questions, ResourceError, named
from provision.engine.plan import Plan, PlanErrors, Planned, declared_handlers, make_plan
from provision.engine.recorder import Recorder
from provision.engine.waiting import Stopped, Waiting
from provision.errors import ChangedMeanwhile, ChangeFailed, DeadlineExceeded, HostFailed, NotConverged, NotReady
from provision.host.pending import ASK_PENDING, Handler, read_pending
from provision.resources.base import Change

_AGAIN = "observing again"
_RACES = 3  # how often a task plans again because another program changed the same thing in the meantime


@dataclass
class TaskRun:
    """What the tasks of one host share.

    pending   the handlers that changes of this run require and that did not run to their end
    replaced  the handlers that a later change made unnecessary
    failed_before  whether a task that a change requires failed earlier in this run (check mode)
    not_planned    the number of changes that were not planned for this reason
    """

    observer: Observer
    applier: Applier
    recorder: Recorder
    check: bool
    stopping: Callable[[], bool]
    waiting: Waiting
    failed_before: Callable[[str], bool]
    pending: set[str] = field(default_factory=set)
    replaced: set[str] = field(default_factory=set)
    races: int = 0
    not_planned: int = 0

    def work(self, items: Sequence[Owned], later: Sequence[Owned]) -> None:
        """Applies one task, or predicts it in check mode.

        later  the resources of this play's further tasks, which are observed in the same batch
        Raises ResourceError, NotConverged, Stopped, and in check mode PlanErrors.
        """
        plan = self._plan(items, later)
        for text in plan.notes:
            self.recorder.message(text)
        if self.check:
            self._predict(plan)
            for handler in self._due([], items, later):
                self.pending.discard(handler.name)
                self.recorder.handler(handler, applied=False)
            if plan.errors:  # the other resources of the task have been planned
                raise PlanErrors(plan.errors)
        else:
            self._apply_all(plan, items, later)

    def _due(self, first: Sequence[Planned], items: Sequence[Owned], later: Sequence[Owned]) -> list[Handler]:
        """The handlers that must run at the end of this task, if the changes `first` are applied before.

        A handler runs at the end of the last task of the play that may notify it.
        """
        pending, replaced = set(self.pending), set(self.replaced)
        for one in first:
            _notify(one.change, pending, replaced)
            _replace(one.change, pending, replaced)
        before = read_pending(self.observer.answer(ASK_PENDING).text)
        later_handlers = declared_handlers(later)
        return [
            one
            for one in declared_handlers(items)
            if (one.name in pending or (one.name in before and one.name not in replaced)) and one not in later_handlers
        ]

    def _plan(self, items: Sequence[Owned], later: Sequence[Owned], step: str = "observing") -> Plan:
        self._stop_point()
        if (self.recorder.step, step) != (
            _AGAIN,
            _AGAIN,
        ):  # it was reported already if the questions came with the changes
            self.recorder.start_step(step, "observing")
        self.observer.observe(items, later)
        return make_plan(items, self.observer, go_on=self.check)

    def _predict(self, plan: Plan) -> None:
        for one in plan.changes:
            if one.change.requires and self.failed_before(one.change.requires):
                text = f"not planned, depends on {one.change.requires}, which failed: {one.change.summary}"
                self.recorder.message(text, "skipped")
                self.not_planned += 1
                continue
            if one.change.verification:
                self.recorder.message(f"would {one.change.summary}", "check")
            else:
                self.recorder.change(one, applied=False)
            _notify(one.change, self.pending, self.replaced)
            _replace(one.change, self.pending, self.replaced)

    def _apply_all(self, plan: Plan, items: Sequence[Owned], later: Sequence[Owned]) -> None:
        """Applies in rounds. A change that requires something that this task sets up is planned again afterwards.

        In the last round, the pending handlers run that must run at the end of this task. If anything was changed, the host
        is observed again.
        """
        done: set[tuple[str, str]] = set()
        while True:
            waiting = [one for one in plan.changes if one.change.requires]
            ready = [one for one in plan.changes if not one.change.requires]
            undone = [one for one in ready if one.id in done and not one.change.verification]
            if undone:
                raise _not_converged(undone)
            ready = [one for one in ready if one.id not in done]  # a repeated verification is no progress
            first = [one for one in ready if not one.change.final]
            if waiting and not first:
                raise _not_ready(waiting[0])
            postponed = len(first) < len(ready) and (bool(waiting) or any(not one.change.verification for one in first))
            if postponed:
                ready = first
            last = not (waiting or postponed)
            work: list[Work] = [*ready, *(self._due(ready, items, later) if last else ())]
            lasting = any(isinstance(one, Handler) or not one.change.verification for one in work)
            again = not last or lasting
            questions = self.observer.questions(items, later, due=lasting) if again and work else None
            raced = self._apply_work(work, questions, done)
            if not (raced or again):
                return
            plan = self._plan(items, later, _AGAIN)
            if last and not raced:
                if plan.lasting:
                    raise _not_converged(plan.lasting)
                return

    def _apply_work(self, work: Sequence[Work], questions: Questions | None, done: set[tuple[str, str]]) -> bool:
        """Applies changes and handlers, and asks the questions after them. Returns True if they must be planned again.

        They must be planned again if another program changed the same thing, and after a wait for a starting GitLab. The
        ids of the applied changes are added to `done`. What was observed before is forgotten.
        """
        steps = _Steps(self, done)
        commands = questions.commands if questions else []
        raced, answers = False, None
        while work and not raced:
            self._stop_point()
            try:
                with steps.named(), self.waiting.rate_limits(_summary(work[0])):
                    count, answers = self.applier.apply(work, steps, commands, self.stopping)
                work = work[count:]
            except HostFailed as error:
                raced = steps.failed(error)
        if (questions is not None or raced) and self.stopping():
            steps.stopped()  # the report must name the last change or handler, not the questions
            raise Stopped
        if questions is not None and answers is not None:
            self.observer.renew(questions, answers)
        elif questions is not None or raced:
            self.observer.forget()
        return raced

    def _stop_point(self) -> None:
        if self.stopping():
            raise Stopped


class _Steps:
    """Reports changes and handlers while they run, and updates which handlers are pending."""

    def __init__(self, run: TaskRun, done: set[tuple[str, str]]) -> None:
        self._run = run
        self._done = done
        self._current: Work | None = None
        self._started = 0.0
        self._earlier: set[str] = set()  # the handlers that were pending before the current change or handler
        self._step = ""

    @contextmanager
    def named(self) -> Iterator[None]:
        """Names the resource of the running change in an exception that its code does not handle."""
        try:
            yield
        except Exception:
            with named(self._current.item) if isinstance(self._current, Planned) else nullcontext():
                raise

    def begin(self, one: Work) -> None:
        run = self._run
        self._current, self._started = one, time.monotonic()
        self._earlier, self._step = set(run.pending), run.recorder.step
        if isinstance(one, Handler):
            run.pending.add(one.name)  # it may be pending from an earlier run only
            run.recorder.start_step(one.summary, "handler")
        else:
            _notify(one.change, run.pending, run.replaced)
            run.recorder.start_step(one.change.summary, "checking" if one.change.verification else "applying")

    def output(self, text: str) -> None:
        self._run.recorder.output(text)

    def end(self, one: Work) -> None:
        run, seconds = self._run, time.monotonic() - self._started
        if isinstance(one, Handler):
            run.pending.discard(one.name)
            run.recorder.handler(one, applied=True, seconds=seconds)
        else:
            run.waiting.ended()
            _replace(one.change, run.pending, run.replaced)
            self._done.add(one.id)
            if one.change.verification:
                run.recorder.message(f"done: {one.change.summary}")
            else:
                run.recorder.change(one, applied=True, seconds=seconds)
        self._current, self._step = None, run.recorder.step

    def observe(self) -> None:
        self._run.recorder.start_step(_AGAIN, "observing")

    def stopped(self) -> None:
        self._forget_pending()
        self._run.recorder.step = self._step

    def _forget_pending(self) -> None:
        if isinstance(self._current, Planned):
            self._run.pending &= self._earlier

    def failed(self, error: HostFailed) -> bool:
        """Returns True if the current change must be planned again; otherwise raises the error."""
        one, run = self._current, self._run
        if one is None:  # while the questions were asked
            raise error
        if changed_nothing(error):
            self._forget_pending()
        name = one.name if isinstance(one, Handler) else one.label
        problem = ResourceError(name, _explained(error))
        if isinstance(one, Handler):
            raise problem from error
        # What was planned is outdated after a while: a request may have had an effect although its answer was 502.
        if isinstance(error, ChangeFailed) and error.not_ready and run.waiting.again(error.text, one.change.summary):
            return True
        run.races += 1
        if not isinstance(error, ChangedMeanwhile) or run.races > _RACES:
            raise problem from error
        run.recorder.message(f"{error.text}: observing again")
        return True


def _summary(one: Work) -> str:
    return one.summary if isinstance(one, Handler) else one.change.summary


def _notify(change: Change, pending: set[str], replaced: set[str]) -> None:
    names = {one.name for one in change.notify}
    pending |= names
    replaced -= names


def _replace(change: Change, pending: set[str], replaced: set[str]) -> None:
    names = {one.name for one in change.replaces}
    pending -= names
    replaced |= names


def _not_ready(planned: Planned) -> ResourceError:
    change = planned.change
    error = NotReady(
        f"cannot {change.summary}: it requires {change.requires}",
        hint=change.remedy or f"run `provision {change.requires}` first; if it has run, see its error above",
    )
    return ResourceError(planned.label, error)


def _not_converged(left: Sequence[Planned]) -> NotConverged:
    text = "; ".join(f"{one.label}: {one.change.summary}" for one in left)
    return NotConverged(
        f"not converged; still pending: {text}",
        hint="check whether something on the host undoes the change; if not, the resource has a bug",
    )


def _explained(error: HostFailed) -> HostFailed:
    if not error.hint and not isinstance(error, DeadlineExceeded):
        error.hint = _hint_for(error.text) or "fix the cause on the host, then rerun the command"
    return error


# What programs report when the host's clock is wrong: apt (apt-pkg/deb/debmetaindex.cc), sqv and gpgv, which check
# signatures for it, and OpenSSL through curl (crypto/x509/x509_txt.c).
_WRONG_CLOCK = (
    *("is not valid yet (invalid for another", "Not live until", "(time warp or clock problem)"),
    *("certificate is not yet valid", "is not yet valid"),
)
# certbot's text (certbot/_internal/auth_handler.py), and that of Chef's acme cookbook in GitLab's package.
_CHALLENGE_FAILED = ("Some challenges have failed.", "Validation failed, unable to request certificate")


_DISK_FULL = ("No space left on device", "You don't have enough free space in", "not enough disk space: ")


def _hint_for(text: str) -> str:
    """The next step for error messages whose cause is the host's own condition; "" for others."""
    if any(words in text for words in _DISK_FULL):
        return "the disk is full: free some space (df -h), then rerun the command"
    if "has been held for" in text or "Could not get lock" in text:
        return "another package manager is running on the host: wait until it ends, then rerun the command"
    if any(words in text for words in _WRONG_CLOCK):
        return "check the host's clock with `date`, and set it (timedatectl set-ntp true), then rerun the command"
    if any(words in text for words in _CHALLENGE_FAILED):
        return (
            "the authority must reach port 80 of this host by its name: run `provision firewall`, check DNS and other "
            "firewalls; or give a certificate's files in registry.certificate"
        )
    if "Read-only file system" in text:
        return "the file system is mounted read-only: see dmesg and /etc/fstab on the host"
    return ""
