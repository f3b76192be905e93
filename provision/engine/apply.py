"""Applying a change, and running the handlers that it notifies.

A change is one script, in this order: its handlers are added to `pending`, its records are added to `state.json`, then
the change itself runs. If a run is killed at any point, the next run finds the pending handlers and runs them. After the
change, outdated records are removed, and the result of a verification is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from provision.engine.guard import armed, confirm
from provision.engine.plan import Planned
from provision.errors import ChangedMeanwhile, ChangeFailed
from provision.host.files import CHANGED_MEANWHILE
from provision.host.pending import Handler, add_pending, clear_pending, detach
from provision.host.state import HostState, Json
from provision.resources.base import ApiAction
from provision.secret import mask
from provision.shell import Command, Result
from provision.ssh.session import Session

OnOutput = Callable[[str], None]


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
        change, owner = planned.change, planned.item.owner
        outcome = change.run.make() if isinstance(change.run, ApiAction) else None
        command = (outcome.run if outcome else Command(":")) if isinstance(change.run, ApiAction) else change.run
        entries = planned.entries(outcome)
        after = self.state.updated(owner, entries) if entries else self.state
        during = self.state if change.verification else self.state.merged(after)
        steps = [add_pending(change.notify), during.write() if during != self.state else ""]
        rolling_back = [one.name for one in change.notify if one.rolls_back]
        for name in rolling_back:
            self._after_handler.setdefault(name, []).append((owner, entries))
        if rolling_back:
            after = during
        follow_up = "\n".join(
            [*(clear_pending(one.name) for one in change.replaces), after.write() if after != during else ""]
        ).strip()
        if change.guard:
            command = armed(command, change.guard)
        output = self._run(
            _with_scripts(steps, command, "" if change.guard else follow_up), change.summary, change.deadline, on_output
        )
        if change.guard:
            confirm(change.summary, change.guard, self._session, self._login)
            if follow_up:
                self._run(Command(follow_up), change.summary, change.deadline, on_output)
        if change.record_from is not None:
            after = after.updated(owner, {planned.item.resource.record_key: change.record_from(output)})
            self._run(Command(after.write()), change.summary, change.deadline, on_output)
        self.state.replace_with(after)

    def run_handler(self, handler: Handler, on_output: OnOutput) -> None:
        """Runs a handler, then removes it from `pending`. One that fails stays pending, unless it rolled back."""
        command = detach(handler.name, handler.run) if handler.detached else handler.run
        after = self.state
        for owner, entries in self._after_handler.get(handler.name, ()):
            after = after.updated(owner, entries)
        record = after.write() if after != self.state else ""
        script = "\n".join(filter(None, [clear_pending(handler.name), record]))
        self._run(_with_scripts([], command, script), handler.summary, handler.deadline, on_output)
        self._after_handler.pop(handler.name, None)
        self.state.replace_with(after)

    def _run(self, command: Command, what: str, deadline: float, on_output: OnOutput) -> str:
        """Runs a command and returns its standard output."""
        result = self._session.run(
            command, deadline=deadline, on_output=lambda piece: on_output(mask(piece.decode("utf-8", "replace")))
        )
        if result.code == CHANGED_MEANWHILE:
            raise ChangedMeanwhile(f"{what}: {end_of_output(result)}")
        if result.code != 0:
            raise ChangeFailed(f"{what}: {end_of_output(result)}")
        return result.text


def _with_scripts(before: list[str], command: Command, after: str) -> Command:
    """The command with the given scripts before and after it. When one fails, the rest does not run."""
    script = command.script
    steps = [text for text in before if text]
    if after:
        script = f"{_subshell(script)}{after}"
    if steps:
        first = "\n".join(["set -e", *steps])
        script = f"{_subshell(first, '</dev/null')}{script}"
    return Command(script, command.stdin)


def _subshell(script: str, redirection: str = "") -> str:
    """The script in a subshell. The text after it runs only if the script succeeds.

    The exit code is tested on a separate line: after `||` the shell would ignore the script's own `set -e`.
    """
    return f'(\n{script}\n) {redirection}\nprovision_code=$?\n[ "$provision_code" = 0 ] || exit "$provision_code"\n'


def end_of_output(result: Result, lines: int = 12) -> str:
    """The last lines of a failed command's stderr, or of its stdout if stderr is empty; the exit code if both are."""
    all_lines = [line for line in (result.errors + "\n" + result.text).splitlines() if line.strip()]
    printed = result.errors.strip().splitlines() or all_lines
    if not printed:
        return f"exit code {result.code}, no output"
    return mask("\n".join(printed[-lines:]))
