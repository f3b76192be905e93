"""Applying changes, and running the handlers that they notify.

A change is one script, in this order: its handlers are added to `pending`, its records are added to `state.json`, then
the change itself runs. If a run is killed at any point, the next run finds the pending handlers and runs them. After the
change, outdated records are removed, and the result of a verification is recorded.

Several changes and handlers are sent in one round trip, each as a step, together with the questions that are asked after
them. The host runs the steps one by one and ends after the first one that fails. So the script of each step expects that
all steps before it have succeeded. Between two steps the host also ends when the user has pressed Ctrl-C or the connection
is gone. So a killed or interrupted run leaves at most one step running (`ssh/frame.py`).

A command that fails before it changes anything ends with NOTHING_CHANGED or CHANGED_MEANWHILE: a file that its checker
refuses, for instance. The script then undoes both additions, so that no handler runs for nothing.

A change that could lock us out has a guard. Before it, the host starts a timer that undoes it. After it, we open a new
connection, because a firewall keeps established connections alive. The new login stops the timer. If the login fails,
the open connection undoes the change at once; if that connection is dead too, the timer does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from provision.engine.observe import DEADLINE, named
from provision.engine.plan import Planned
from provision.errors import ChangedMeanwhile, ChangeFailed, HostFailed, ProvisionError
from provision.host.pending import Handler, add_pending, clear_pending, detach, undo_pending
from provision.host.scripts import CHANGED_MEANWHILE, NOT_READY, NOTHING_CHANGED, script
from provision.host.state import HostState, Json
from provision.masking import OutputMasker, last_lines
from provision.resources.base import ApiAction, Guard, Outcome
from provision.shell import Command, Result, sh
from provision.ssh.session import Session, Step

Work = Planned | Handler
# By handler: the records to write after it has succeeded. A handler that fails may roll back its changes.
_AfterHandler = dict[str, list[tuple[str, Mapping[str, Json]]]]

_ADDED = "provision_added"  # a shell variable
_DISARM: Final = sh("systemctl stop %s.timer", Guard.UNIT)


class Progress(Protocol):
    """Is called while several changes and handlers are applied."""

    def begin(self, one: Work) -> None:
        """Called before a change or handler runs."""

    def output(self, text: str) -> None:
        """Called with what the running one prints; secrets are masked."""

    def end(self, one: Work) -> None:
        """Called when one has succeeded."""

    def observe(self) -> None:
        """Called when all have succeeded, before the questions are asked."""

    def stopped(self) -> None:
        """Called when the next one has not started because the user asked to stop."""


class Applied(NamedTuple):
    """The result of one round trip.

    done     how many changes and handlers were applied
    answers  to the questions; None if they were not asked
    """

    done: int
    answers: list[Result] | None = None


class _Prepared(NamedTuple):
    """One step of a round trip.

    ended    called when the step has succeeded, or has failed after it may have changed something
    applied  called with the step's output when it has succeeded, after `ended`
    is_last  whether `applied` uses the connection: then no other step and no question is sent after this one
    """

    step: Step
    summary: str
    ended: Callable[[], None]
    applied: Callable[[str], None]
    is_last: bool = False


class _Expected:
    """What is recorded when the next step of a round trip runs, if all steps before it have succeeded."""

    def __init__(self, state: HostState, after_handler: _AfterHandler) -> None:
        self.state = state
        self.after_handler = {name: list(entries) for name, entries in after_handler.items()}


class Applier:
    """The only part of the program that changes a host.

    state  what is recorded on the host; it is kept up to date
    login  opens a second session, which does not take the host's lock
    """

    def __init__(self, session: Session, state: HostState, login: Callable[[], Session]) -> None:
        self._session = session
        self._login = login
        self.state = state
        self._after_handler: _AfterHandler = {}

    def apply(
        self,
        work: Sequence[Work],
        progress: Progress,
        then: Sequence[Command] = (),
        stopping: Callable[[], bool] = lambda: False,
    ) -> Applied:
        """Applies as many changes and handlers as one round trip can, in order. If these are all, it also asks `then`.

        A handler that has succeeded is no longer in `pending`. A handler that fails stays pending, unless it rolled back.
        When the user asks to stop, fewer are applied. Raises ChangeFailed for the first change or handler that fails, with
        the last lines of its output.
        """
        first = work[0]
        progress.begin(first)
        action = first.change.run if isinstance(first, Planned) else None
        outcome = (action.make() or Outcome()) if isinstance(action, ApiAction) else None
        try:
            return self._send(work[: _count_for_one_trip(work, outcome)], outcome, progress, then, len(work), stopping)
        finally:
            if outcome is not None and outcome.after is not None:
                outcome.after()

    def _send(
        self,
        work: Sequence[Work],
        outcome: Outcome | None,
        progress: Progress,
        then: Sequence[Command],
        wanted: int,
        stopping: Callable[[], bool],
    ) -> Applied:
        expected = _Expected(self.state, self._after_handler)
        steps = [self._prepare(one, expected, outcome if index == 0 else None) for index, one in enumerate(work)]
        if len(work) < wanted or steps[-1].is_last:
            then = ()
        running = _Running(work, steps, progress, asks=bool(then))
        try:
            results, answers = self._session.run_steps(
                [one.step for one in steps], then, deadline=DEADLINE, report=running, stopping=stopping
            )
            if len(results) > running.done:  # this step has failed, or `applied` uses the connection
                step, last = steps[running.done], results[-1]
                _raise_for(last, step.summary)
                step.ended()
                step.applied(last.text)
                running.end()
        except HostFailed as error:
            if running.done < len(steps) and not changed_nothing(error):
                steps[running.done].ended()
            raise
        finally:
            running.flush()
        if running.done < len(work) or (then and not answers):
            progress.stopped()
        return Applied(running.done, answers or None)

    def _prepare(self, one: Work, expected: _Expected, outcome: Outcome | None) -> _Prepared:
        if isinstance(one, Handler):
            return self._handler(one, expected)
        with named(one.item):
            return self._change(one, expected, outcome)

    def _change(self, planned: Planned, expected: _Expected, outcome: Outcome | None) -> _Prepared:
        change, owner, before = planned.change, planned.item.owner, expected.state
        command = change.run if isinstance(change.run, Command) else (outcome or Outcome()).run
        entries = planned.entries(outcome)
        after = before.updated(owner, entries) if entries else before
        during = before if change.verification else before.merged(after)
        first = [add_pending(change.notify), during.write() if during != before else ""]
        undo = [undo_pending(_ADDED) if change.notify else "", before.write() if during != before else ""]
        rolling_back = [one.name for one in change.notify if one.rolls_back]
        if rolling_back:
            after = during
        follow_up = "\n".join(
            [*(clear_pending(one.name) for one in change.replaces), after.write() if after != during else ""]
        ).strip()
        if change.guard:
            command = _armed(command, change.guard)
        command = _with_scripts(first, command, "" if change.guard else follow_up, undo)
        expected.state = after
        _record_after(expected.after_handler, rolling_back, owner, entries)

        def applied(output: str) -> None:
            recorded = after
            if change.guard:
                _confirm(change.summary, change.guard, self._session, self._login)
                if follow_up:
                    self._run(Command(follow_up), change.summary, change.deadline)
            if change.record_from is not None:
                recorded = after.updated(owner, {planned.item.resource.record_key: change.record_from(output)})
                self._run(Command(recorded.write()), change.summary, change.deadline)
            self.state.replace_with(recorded)

        return _Prepared(
            Step(command, change.deadline),
            change.summary,
            lambda: _record_after(self._after_handler, rolling_back, owner, entries),
            applied,
            _must_be_last(planned),
        )

    def _handler(self, handler: Handler, expected: _Expected) -> _Prepared:
        command = detach(handler.name, handler.run) if handler.detached else handler.run
        after = expected.state
        for owner, entries in expected.after_handler.pop(handler.name, ()):
            after = after.updated(owner, entries)
        record = after.write() if after != expected.state else ""
        follow_up = "\n".join(filter(None, [clear_pending(handler.name), record]))
        expected.state = after

        def applied(_: str) -> None:
            self._after_handler.pop(handler.name, None)
            self.state.replace_with(after)

        step = Step(_with_scripts([], command, follow_up, []), handler.deadline)
        return _Prepared(step, handler.summary, lambda: None, applied)

    def _run(self, command: Command, what: str, deadline: float) -> None:
        _raise_for(self._session.run(command, deadline=deadline), what)


class _Running:
    """Receives the outputs and results of a round trip from the session. It masks outputs, and calls a Progress.

    done  how many steps have succeeded; a step that `is_last` counts when `end` is called
    """

    def __init__(self, work: Sequence[Work], steps: Sequence[_Prepared], progress: Progress, *, asks: bool) -> None:
        self.done = 0
        self._work = work
        self._steps = steps
        self._progress = progress
        self._asks = asks
        self._masker = OutputMasker()

    def output(self, piece: bytes) -> None:
        self._pass_on(self._masker.add(piece))

    def result(self, result: Result) -> None:
        self.flush()
        step = self._steps[self.done]
        if result.code == 0 and not step.is_last:
            step.ended()
            step.applied(result.text)
            self.end()

    def end(self) -> None:
        """Called when the running step has succeeded. The next one begins."""
        self._progress.end(self._work[self.done])
        self.done += 1
        if self.done < len(self._work):
            self._progress.begin(self._work[self.done])
        elif self._asks:
            self._progress.observe()

    def flush(self) -> None:
        """Passes on a step's output that has no line break at its end."""
        self._pass_on(self._masker.end())
        self._masker = OutputMasker()

    def _pass_on(self, text: str) -> None:
        if text:
            self._progress.output(text)


def _count_for_one_trip(work: Sequence[Work], outcome: Outcome | None) -> int:
    """How many of the changes and handlers, in order, can be sent in one round trip.

    `outcome` is that of the first one, if this is an API action. An API action is called when everything before it has
    succeeded, so it can only be the first one. A change with a guard is the last one, because a login follows it. A change
    whose record is made from its output is the last one too.
    """
    if outcome is not None and outcome.after is not None:
        return 1
    for index, one in enumerate(work):
        if index and isinstance(one, Planned) and isinstance(one.change.run, ApiAction):
            return index
        if _must_be_last(one):
            return index + 1
    return len(work)


def _must_be_last(one: Work) -> bool:
    return isinstance(one, Planned) and (one.change.guard is not None or one.change.record_from is not None)


def _record_after(by_handler: _AfterHandler, handlers: list[str], owner: str, entries: Mapping[str, Json]) -> None:
    for name in handlers:
        by_handler.setdefault(name, []).append((owner, entries))


def _raise_for(result: Result, what: str) -> None:
    if result.code == CHANGED_MEANWHILE:
        raise ChangedMeanwhile(f"{what}: {end_of_output(result)}")
    if result.code != 0:
        error = ChangeFailed(f"{what}: {end_of_output(result)}")
        error.changed_nothing = result.code == NOTHING_CHANGED
        error.not_ready = result.code == NOT_READY
        raise error


def changed_nothing(error: HostFailed) -> bool:
    """Whether it is known that a failed change has changed nothing on the host."""
    return isinstance(error, ChangeFailed) and error.changed_nothing


def _with_scripts(before: list[str], command: Command, after: str, undo: list[str]) -> Command:
    """The command with the given scripts before and after it. When one fails, the rest does not run.

    undo  runs if the command changed nothing, provided that there is something `before` it
    """
    script = command.script
    steps = [text for text in before if text]
    if steps:
        undone = "\n".join(text for text in undo if text)
        script = f"{_subshell('', script)}{_unless_failed(undone)}{after}"
        first = "\n".join(["exec </dev/null", "set -e", *steps])
        script = f"{_subshell(f'{_ADDED}=$', first)}{_unless_failed()}{script}"
    elif after:
        script = f"{_subshell('', script)}{_unless_failed()}{after}"
    return Command(script, command.stdin)


def _subshell(word: str, script: str) -> str:
    return f"{word}(\n{script}\n)\n"


def _unless_failed(undo: str = "") -> str:
    """What follows a subshell: the text after it runs only if the subshell succeeded. `undo` runs if it changed nothing.

    The exit code is tested on a separate line: after `||` the shell would ignore the script's own `set -e`.
    """
    undone = f"case $provision_code in {CHANGED_MEANWHILE} | {NOTHING_CHANGED}) (\n{undo}\n) ;; esac\n" if undo else ""
    test = '[ "$provision_code" = 0 ] || exit "$provision_code"\n'
    return f"provision_code=$?\n{undone}{test}"


def end_of_output(result: Result, lines: int = 12) -> str:
    """The last lines of a failed command's stderr, or of its stdout if stderr is empty; the exit code if both are."""
    printed = result.errors.strip() or "\n".join(line for line in result.text.splitlines() if line.strip())
    return last_lines(printed, lines) if printed else f"exit code {result.code}, no output"


def _armed(command: Command, guard: Guard) -> Command:
    """The command, preceded by starting the timer that undoes it."""
    arm = script("arm_guard", Guard.UNIT, guard.seconds, guard.undo.script)
    return Command(f"{arm.script}{command.script}", command.stdin)


def _confirm(summary: str, guard: Guard, session: Session, login: Callable[[], Session]) -> None:
    """Opens a fresh login and stops the timer. Raises ChangeFailed, with the change undone, when that fails."""
    try:
        fresh = login()
        try:
            result = fresh.run(_DISARM, deadline=guard.seconds / 2)
        finally:
            fresh.close()
        if result.code == 0:
            return
        why = result.errors.strip()
    except ProvisionError as error:
        why = error.text
    raise ChangeFailed(
        f"{summary}: a fresh login failed after it ({why}); {_undone(guard, session, login)}",
        hint="another firewall rule may block SSH: check `ufw status numbered` on the host",
    )


def _undone(guard: Guard, session: Session, login: Callable[[], Session]) -> str:
    try:
        undo = session.run(Command(f"{guard.undo.script}\n{_DISARM.script}"), deadline=guard.seconds)
        if undo.code != 0:
            return f"the rollback failed too, and is tried again within {guard.seconds} s: {undo.errors.strip()}"
        login().close()
    except ProvisionError as error:
        return f"the host rolls it back within {guard.seconds} s ({error.text})"
    return "it was rolled back, and logins work again"
