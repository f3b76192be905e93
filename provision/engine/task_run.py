"""One task on one host: plan, apply what can be applied, run handlers, observe again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from provision.engine.apply import Applier, changed_nothing
from provision.engine.desired_state import Owned
from provision.engine.observe import Observer, ResourceError, named
from provision.engine.plan import Plan, PlanErrors, Planned, declared_handlers, make_plan
from provision.engine.recorder import Recorder
from provision.engine.waiting import Stopped, Waiting
from provision.errors import ChangedMeanwhile, ChangeFailed, DeadlineExceeded, HostFailed, NotConverged, NotReady
from provision.host.pending import ASK_PENDING, Handler, read_pending
from provision.resources.base import Change

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
        changed = self._predict(plan) if self.check else self._apply_all(plan, items, later)
        # A handler runs at the end of the last task of the play that may notify it.
        later_handlers = declared_handlers(later)
        before = read_pending(self.observer.answer(ASK_PENDING).text)
        for handler in declared_handlers(items):
            pending = handler.name in self.pending or (handler.name in before and handler.name not in self.replaced)
            if pending and handler not in later_handlers:
                self._run_handler(handler)
                changed = True
        if plan.errors:  # check mode only: the other resources of the task have been planned
            raise PlanErrors(plan.errors)
        if changed and not self.check:
            self.observer.forget()
            left = self._plan(items, later, "observing again").lasting
            if left:
                raise _not_converged(left)

    def _plan(self, items: Sequence[Owned], later: Sequence[Owned], step: str = "observing") -> Plan:
        self._stop_point()
        self.recorder.start_step(step, "observing")
        self.observer.observe(items, later)
        return make_plan(items, self.observer, go_on=self.check)

    def _predict(self, plan: Plan) -> bool:
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
            self._notify(one.change)
            self._replace(one.change)
        return bool(plan.lasting)

    def _notify(self, change: Change) -> None:
        names = {one.name for one in change.notify}
        self.pending |= names
        self.replaced -= names

    def _replace(self, change: Change) -> None:
        names = {one.name for one in change.replaces}
        self.pending -= names
        self.replaced |= names

    def _apply_all(self, plan: Plan, items: Sequence[Owned], later: Sequence[Owned]) -> bool:
        """Applies in rounds. A change that requires something that this task sets up is planned again afterwards."""
        done: set[tuple[str, str]] = set()
        changed = False
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
            raced = False
            for one in ready:
                if raced := self._raced(one):
                    break
                changed = changed or not one.change.verification
                done.add(one.id)
            if not (waiting or raced or postponed):
                return changed
            self.observer.forget()
            plan = self._plan(items, later, "observing again")

    def _raced(self, planned: Planned) -> bool:
        """Applies one change. Returns True if it must be planned again.

        That is so if another program changed the same thing, and after waiting for a GitLab that was starting.
        """
        try:
            self._apply(planned)
        except ResourceError as problem:
            error = problem.error
            # What was planned is outdated after a while: a request may have had an effect although its answer was 502.
            if (
                isinstance(error, ChangeFailed)
                and error.not_ready
                and self.waiting.again(error.text, planned.change.summary)
            ):
                return True
            self.races += 1
            if not isinstance(error, ChangedMeanwhile) or self.races > _RACES:
                raise
            self.recorder.message(f"{error.text}: observing again")
            return True
        return False

    def _apply(self, planned: Planned) -> None:
        change = planned.change
        self._stop_point()
        self.recorder.start_step(change.summary, "checking" if change.verification else "applying")
        started = time.monotonic()
        earlier = set(self.pending)
        self._notify(change)
        try:
            with named(planned.item), self.waiting.rate_limits(change.summary):
                self.applier.apply(planned, self.recorder.output)
        except HostFailed as error:
            if changed_nothing(error):
                self.pending &= earlier
            raise ResourceError(planned.label, _explained(error)) from error
        self.waiting.ended()
        self._replace(change)
        if change.verification:
            self.recorder.message(f"done: {change.summary}")
        else:
            self.recorder.change(planned, applied=True, seconds=time.monotonic() - started)

    def _run_handler(self, handler: Handler) -> None:
        if self.check:
            self.pending.discard(handler.name)
            self.recorder.handler(handler, applied=False)
            return
        self.pending.add(handler.name)  # an earlier run may have left it
        self._stop_point()
        self.recorder.start_step(handler.summary, "handler")
        started = time.monotonic()
        try:
            self.applier.run_handler(handler, self.recorder.output)
        except HostFailed as error:
            raise ResourceError(handler.name, _explained(error)) from error
        self.pending.discard(handler.name)
        self.recorder.handler(handler, applied=True, seconds=time.monotonic() - started)

    def _stop_point(self) -> None:
        if self.stopping():
            raise Stopped


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
