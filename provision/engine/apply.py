"""Applying a change, and running the handlers that it notifies.

A change is one script, in this order: its handlers are added to `pending`, its records are added to `state.json`, then
the change itself runs. If a run is killed at any point, the next run finds the pending handlers and runs them. After the
change, outdated records are removed, and the result of a verification is recorded.

A command that fails before it changes anything ends with NOTHING_CHANGED or CHANGED_MEANWHILE: a file that its checker
refuses, for instance. The script then undoes both additions, so that no handler runs for nothing.

A change that could lock us out has a guard. Before it, the host starts a timer that undoes it. After it, we open a new
connection, because a firewall keeps established connections alive. The new login stops the timer. If the login fails,
the open connection undoes the change at once; if that connection is dead too, the timer does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from provision.engine.plan import Planned
from provision.errors import ChangedMeanwhile, ChangeFailed, HostFailed, ProvisionError
from provision.host.pending import Handler, add_pending, clear_pending, detach, undo_pending
from provision.host.scripts import CHANGED_MEANWHILE, NOT_READY, NOTHING_CHANGED, script
from provision.host.state import HostState, Json
from provision.masking import OutputMasker, last_lines
from provision.resources.base import ApiAction, Guard, Outcome
from provision.shell import Command, Result, sh
from provision.ssh.session import Session

OnOutput = Callable[[str], None]

_ADDED = "provision_added"  # a shell variable
_DISARM: Final = sh("systemctl stop %s.timer", Guard.UNIT)


class Applier:
    """The only part of the program that changes a host.

    state  what is recorded on the host; it is kept up to date
    login  opens a second session, which does not take the host's lock
    """

    def __init__(self, session: Session, state: HostState, login: Callable[[], Session]) -> None:
        self._session = session
        self._login = login
        self.state = state
        # By handler: the records to write after it has succeeded. A handler that fails may roll back its changes.
        self._after_handler: dict[str, list[tuple[str, Mapping[str, Json]]]] = {}

    def apply(self, planned: Planned, on_output: OnOutput) -> None:
        """Applies one change. Raises ChangeFailed with the last lines of the command's output."""
        outcome = planned.change.run.make() if isinstance(planned.change.run, ApiAction) else None
        try:
            self._apply(planned, outcome, on_output)
        finally:
            if outcome is not None and outcome.after is not None:
                outcome.after()

    def _apply(self, planned: Planned, outcome: Outcome | None, on_output: OnOutput) -> None:
        change, owner = planned.change, planned.item.owner
        command = (outcome.run if outcome else Command(":")) if isinstance(change.run, ApiAction) else change.run
        entries = planned.entries(outcome)
        after = self.state.updated(owner, entries) if entries else self.state
        during = self.state if change.verification else self.state.merged(after)
        steps = [add_pending(change.notify), during.write() if during != self.state else ""]
        undo = [undo_pending(_ADDED) if change.notify else "", self.state.write() if during != self.state else ""]
        rolling_back = [one.name for one in change.notify if one.rolls_back]
        if rolling_back:
            after = during
        follow_up = "\n".join(
            [*(clear_pending(one.name) for one in change.replaces), after.write() if after != during else ""]
        ).strip()
        if change.guard:
            command = _armed(command, change.guard)
        command = _with_scripts(steps, command, "" if change.guard else follow_up, undo)
        try:
            output = self._run(command, change.summary, change.deadline, on_output)
        except HostFailed as error:
            if not changed_nothing(error):
                self._record_after(rolling_back, owner, entries)
            raise
        self._record_after(rolling_back, owner, entries)
        if change.guard:
            _confirm(change.summary, change.guard, self._session, self._login)
            if follow_up:
                self._run(Command(follow_up), change.summary, change.deadline, on_output)
        if change.record_from is not None:
            after = after.updated(owner, {planned.item.resource.record_key: change.record_from(output)})
            self._run(Command(after.write()), change.summary, change.deadline, on_output)
        self.state.replace_with(after)

    def _record_after(self, handlers: list[str], owner: str, entries: Mapping[str, Json]) -> None:
        for name in handlers:
            self._after_handler.setdefault(name, []).append((owner, entries))

    def run_handler(self, handler: Handler, on_output: OnOutput) -> None:
        """Runs a handler, then removes it from `pending`. One that fails stays pending, unless it rolled back."""
        command = detach(handler.name, handler.run) if handler.detached else handler.run
        after = self.state
        for owner, entries in self._after_handler.get(handler.name, ()):
            after = after.updated(owner, entries)
        record = after.write() if after != self.state else ""
        script = "\n".join(filter(None, [clear_pending(handler.name), record]))
        self._run(_with_scripts([], command, script, []), handler.summary, handler.deadline, on_output)
        self._after_handler.pop(handler.name, None)
        self.state.replace_with(after)

    def _run(self, command: Command, what: str, deadline: float, on_output: OnOutput) -> str:
        """Runs a command and returns its standard output."""
        masker = OutputMasker()
        try:
            result = self._session.run(
                command, deadline=deadline, on_output=lambda piece: _pass_on(masker.add(piece), on_output)
            )
        finally:
            _pass_on(masker.end(), on_output)
        if result.code == CHANGED_MEANWHILE:
            raise ChangedMeanwhile(f"{what}: {end_of_output(result)}")
        if result.code != 0:
            error = ChangeFailed(f"{what}: {end_of_output(result)}")
            error.changed_nothing = result.code == NOTHING_CHANGED
            error.not_ready = result.code == NOT_READY
            raise error
        return result.text


def _pass_on(text: str, on_output: OnOutput) -> None:
    if text:
        on_output(text)


def changed_nothing(error: HostFailed) -> bool:
    """Whether it is known that a failed change left the host as it was."""
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
