"""Carrying a change out, and paying what it owes.

One frame per change, in this order: the debt is written to `pending`, our part is written to
`state.json`, then the change itself runs. A run killed at any point leaves a debt that the next one pays.
Behind the change what is no longer ours leaves `state.json`, and what a proof showed gets into it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from provision.engine.guard import armed, confirm
from provision.errors import ChangedMeanwhile, ChangeFailed
from provision.host.files import CHANGED_MEANWHILE, journal, remember, settle
from provision.host.jobs import detach
from provision.host.pending import Handler
from provision.host.state import either, updated
from provision.resources.base import Call, Change
from provision.secret import mask
from provision.shell import Command, Result
from provision.ssh.session import Session

OnOutput = Callable[[str], None]


class Hands:
    """The only part of the program that changes a host."""

    def __init__(self, session: Session, state: dict[str, Any], login: Callable[[], Session]) -> None:
        self._session = session
        self._login = login
        self.state = state
        self._promised: dict[str, Any] = {}  # what is on record once the work that may take it back is paid

    def apply(self, change: Change, on_output: OnOutput) -> None:
        """Carries one change out. Raises ChangeFailed with the command's own last words."""
        command, memory = change.run.make() if isinstance(change.run, Call) else (change.run, change.remember)
        steps = [journal(change.notify)]
        after = updated(self.state, memory)
        during = either(self.state, after) if change.leaves else self.state
        if during != self.state:
            steps.append(remember(during))
        if change.detached:
            command = detach(change.summary, command)
        if change.guard:
            command = armed(command, change.guard)
        if any(one.takes_back for one in change.notify):
            self._promised |= memory
            after = during
        late = remember(after) if after != during else ""
        command = _between(steps, command, "" if change.guard else late)
        self._run(command, change.summary, change.deadline, on_output)
        if change.guard:
            confirm(change.summary, change.guard, self._session, self._login)
            if late:
                self._run(Command(late), change.summary, change.deadline, on_output)
        self.state = after

    def pay(self, handler: Handler, on_output: OnOutput) -> None:
        """Does what is owed, then strikes it off. Work that fails stays owed, unless it struck itself off."""
        command = detach(handler.name, handler.run) if handler.detached else handler.run
        after = updated(self.state, self._promised) if handler.takes_back else self.state
        paid = "\n".join([settle(handler), remember(after) if after != self.state else ""])
        self._run(_between([], command, paid.strip()), handler.summary, handler.deadline, on_output)
        self.state = after

    def _run(self, command: Command, what: str, deadline: float, on_output: OnOutput) -> Result:
        result = self._session.run(
            command, deadline=deadline, on_output=lambda piece: on_output(mask(piece.decode("utf-8", "replace")))
        )
        if result.code == CHANGED_MEANWHILE:
            raise ChangedMeanwhile(f"{what}: {last_words(result)}")
        if result.code != 0:
            raise ChangeFailed(f"{what}: {last_words(result)}")
        return result


def _between(before: list[str], command: Command, after: str) -> Command:
    """The command with steps of ours before and behind it; where one fails, none of the rest runs."""
    script = command.script
    steps = [text for text in before if text]
    if after:
        script = f"{_subshell(script)}{after}"
    if steps:
        first = "\n".join(["set -e", *steps])
        script = f"{_subshell(first, '</dev/null')}{script}"
    return Command(script, command.stdin)


def _subshell(script: str, redirection: str = "") -> str:
    """The script in a shell of its own; what follows runs only if it succeeds.

    Its code is looked at on a line of its own: behind `||` the shell would ignore the script's own `set -e`.
    """
    return f'(\n{script}\n) {redirection}\nprovision_code=$?\n[ "$provision_code" = 0 ] || exit "$provision_code"\n'


def last_words(result: Result, lines: int = 12) -> str:
    """The end of what a failed command said, secrets masked; its exit code when it said nothing."""
    said = [line for line in (result.errors + "\n" + result.text).splitlines() if line.strip()]
    words = result.errors.strip().splitlines() or said
    if not words:
        return f"exit code {result.code}, without a word"
    return mask("\n".join(words[-lines:]))
