"""One task on one host: plan, apply what can be, pay what is due, look again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from provision.engine.apply import Hands
from provision.engine.observe import Eyes
from provision.engine.plan import Plan, ResourceError, declared, make_plan
from provision.engine.recorder import Teller
from provision.errors import ChangedMeanwhile, DeadlineExceeded, HostFailed, NotConverged, NotReady
from provision.host.files import ASK_PENDING, read_pending
from provision.host.pending import Handler
from provision.resources.base import Change, Resource

Labelled = tuple[str, Change]
_RACES = 3  # how often somebody else may be quicker before we give up


class Stopped(Exception):
    """The user asked to stop; the host was left between two steps."""


@dataclass
class TaskRun:
    """What one host's tasks share; `owed` is the work that this run's changes owe and have not paid yet."""

    eyes: Eyes
    hands: Hands
    teller: Teller
    check: bool
    stopping: Callable[[], bool]
    owed: set[str] = field(default_factory=set)
    races: int = 0

    def work(self, resources: Sequence[Resource], later: Sequence[Resource]) -> None:
        """Brings one task about (or foresees it). `later`: what this play's further tasks want, looked at along with it.

        Raises ResourceError, NotConverged, Stopped.
        """
        plan = self._look(resources, later)
        for text in plan.notes:
            self.teller.note(text)
        changed = self._foresee(plan) if self.check else self._apply_all(plan, resources, later)
        # A debt is paid at the end of the last task of the play that may add to it.
        due = [one for one in declared(resources) if one not in declared(later)]
        before = read_pending(self.eyes.answer(ASK_PENDING).text)
        for handler in due:
            if handler.name in self.owed or handler.name in before:
                self._pay(handler)
                changed = True
        if changed and not self.check:
            self.eyes.forget()
            left = self._look(resources, later, "looking again").lasting
            if left:
                raise _not_converged(left)

    def _look(self, resources: Sequence[Resource], later: Sequence[Resource], step: str = "looking") -> Plan:
        self._stop_point()
        self.teller.at(step, "observing")
        self.eyes.look_at([*resources, *later], ASK_PENDING)
        return make_plan(resources, self.eyes)

    def _foresee(self, plan: Plan) -> bool:
        for label, change in plan.changes:
            if change.leaves:
                self.teller.change(label, change, applied=False)
            else:
                self.teller.note(f"would {change.summary}", "check")
        self.owed |= {one.name for one in plan.handlers}
        return bool(plan.lasting)

    def _apply_all(self, plan: Plan, resources: Sequence[Resource], later: Sequence[Resource]) -> bool:
        """Applies in rounds: what waits for something that this task itself leaves is planned again after it."""
        done: set[tuple[str, str]] = set()
        changed = False
        while True:
            ready = [one for one in plan.changes if not one[1].waits_for]
            waiting = [one for one in plan.changes if one[1].waits_for]
            again = [one for one in ready if (one[0], one[1].summary) in done]
            undone = [one for one in again if one[1].leaves]
            if undone:
                raise _not_converged(undone)
            ready = [one for one in ready if one not in again]  # a proof that is always due is no progress
            mending = [one for one in ready if not one[1].last]
            if waiting and not mending:
                label, change = waiting[0]
                raise ResourceError(
                    label,
                    NotReady(
                        f"cannot {change.summary}: that waits for {change.waits_for}",
                        hint=change.remedy or f"run `provision {change.waits_for}` first, or see above why it failed",
                    ),
                )
            postponed = len(mending) < len(ready) and (bool(waiting) or any(change.leaves for _, change in mending))
            if postponed:
                ready = mending
            raced = False
            for label, change in ready:
                if raced := self._raced(label, change):
                    break
                changed = changed or change.leaves
                done.add((label, change.summary))
            if not (waiting or raced or postponed):
                return changed
            self.eyes.forget()
            plan = self._look(resources, later, "looking again")

    def _raced(self, label: str, change: Change) -> bool:
        """Applies one change; True when somebody else was quicker, so that it must be planned anew (a few times)."""
        try:
            self._apply(label, change)
        except ResourceError as problem:
            self.races += 1
            if not isinstance(problem.error, ChangedMeanwhile) or self.races > _RACES:
                raise
            self.teller.note(f"{problem.error.text}: looking again")
            return True
        return False

    def _apply(self, label: str, change: Change) -> None:
        self._stop_point()
        self.teller.at(change.summary)
        started = time.monotonic()
        self.owed |= {one.name for one in change.notify}
        try:
            self.hands.apply(change, self.teller.say)
        except HostFailed as error:
            raise ResourceError(label, _explained(error)) from error
        if change.leaves:
            self.teller.change(label, change, applied=True, seconds=time.monotonic() - started)
        else:
            self.teller.note(f"done: {change.summary}")

    def _pay(self, handler: Handler) -> None:
        self.owed.discard(handler.name)
        if self.check:
            self.teller.handler(handler, applied=False)
            return
        self._stop_point()
        self.teller.at(handler.summary, "handler")
        started = time.monotonic()
        try:
            self.hands.pay(handler, self.teller.say)
        except HostFailed as error:
            raise ResourceError(handler.name, _explained(error)) from error
        self.teller.handler(handler, applied=True, seconds=time.monotonic() - started)

    def _stop_point(self) -> None:
        if self.stopping():
            raise Stopped


def _not_converged(left: Sequence[Labelled]) -> NotConverged:
    text = "; ".join(f"{label}: {change.summary}" for label, change in left)
    return NotConverged(
        f"applied, looked again, and still to do: {text}",
        hint="look at the host: something there undoes it, or the task's check and its change disagree",
    )


def _explained(error: HostFailed) -> HostFailed:
    if not error.hint and not isinstance(error, DeadlineExceeded):
        error.hint = _hint_for(error.text) or "mend the cause on the host, then run the same command again"
    return error


def _hint_for(text: str) -> str:
    """The next step for what programs say when the host, not our work, is at fault."""
    if "No space left on device" in text:
        return "the disk is full: free some space (df -h), then run the same command again"
    if "has been held for" in text or "Could not get lock" in text:
        return "another package manager is at work there: let it end, then run the same command again"
    if "Read-only file system" in text:
        return "the file system is mounted read-only: look at dmesg and /etc/fstab"
    return ""
