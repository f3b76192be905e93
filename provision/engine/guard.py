"""Changes that could lock us out are rolled back unless a fresh login succeeds.

Before such a change the host starts a timer that undoes it. After the change we open a new connection, because a
firewall keeps established connections alive. The new login stops the timer. If the login fails, the open connection undoes
the change at once; if that connection is dead too, the timer does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from provision.errors import ChangeFailed, ProvisionError
from provision.host.scripts import script
from provision.resources.base import Guard
from provision.shell import Command, sh
from provision.ssh.session import Session

_DISARM: Final = sh("systemctl stop %s.timer", Guard.UNIT)


def armed(command: Command, guard: Guard) -> Command:
    """The command, preceded by starting the timer that undoes it."""
    arm = script("arm_guard", Guard.UNIT, guard.seconds, guard.undo.script)
    return Command(f"{arm.script}{command.script}", command.stdin)


def confirm(summary: str, guard: Guard, session: Session, login: Callable[[], Session]) -> None:
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
