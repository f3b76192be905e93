"""Pending handlers: commands that must run because something was changed. Their file survives a killed run.

The file `/var/lib/provision/pending` has one line `name<TAB>summary` for each handler that has not run yet.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from provision.host.files import HOME
from provision.host.scripts import body, script
from provision.shell import Command, sh

PENDING: Final = f"{HOME}/pending"
ASK_PENDING: Final = sh("test ! -e %s || cat %s", PENDING, PENDING)


class Handler(NamedTuple):
    """A command that a change requires: it runs once, at the end of the last task of the play that may require it.

    name        its key in `pending`; one word
    deadline    seconds
    detached    it continues when the connection breaks; the next run follows it or reads its result
    rolls_back  when it fails, it undoes the changes that notified it; their old records are kept until it succeeds
    """

    name: str
    summary: str
    run: Command
    deadline: float = 300.0
    detached: bool = False
    rolls_back: bool = False

    @classmethod
    def restart(cls, unit: str) -> Handler:
        """Restarts a systemd unit: `notify=Handler.restart("nginx")`."""
        name = unit.removesuffix(".service")
        # A unit that failed too often refuses to start until its counter is reset.
        run = sh("systemctl reset-failed -- %s 2>/dev/null; systemctl restart -- %s", name, name)
        return cls(f"restart-{name}", f"restart {name}", run)

    @classmethod
    def reload(cls, unit: str) -> Handler:
        """Reloads a running unit, or restarts one that cannot reload. A stopped unit stays stopped."""
        name = unit.removesuffix(".service")
        return cls(f"reload-{name}", f"reload {name}", sh("systemctl try-reload-or-restart -- %s", name))


def handlers_of(notify: Handler | Sequence[Handler]) -> tuple[Handler, ...]:
    """The handlers that a resource's `notify` names: one, or several."""
    return (notify,) if isinstance(notify, Handler) else tuple(notify)


def add_pending(handlers: tuple[Handler, ...]) -> str:
    """Shell text that adds handlers to `pending`; "" for none. An earlier detached job is marked as stale.

    It prints what was not so before, for `undo_pending`.
    """
    if not handlers:
        return ""
    fields = [[one.name, one.summary, job_folder(one.name) if one.detached else ""] for one in handlers]
    return script("add_pending", PENDING, *(one for group in fields for one in group)).script


def undo_pending(added: str) -> str:
    """Shell text that undoes `add_pending`, whose output is in the shell variable `added`."""
    return f'# undo_pending.sh\n{sh("set -- %s", PENDING).script} "${added}"\n{body("undo_pending")}'


def clear_pending(name: str) -> str:
    """Shell text that removes a handler from `pending`. It fails when the disk is full."""
    return script("clear_pending", PENDING, name).script


def read_pending(text: str) -> dict[str, str]:
    """The summaries of pending handlers by name."""
    entries = (line.partition("\t") for line in text.splitlines() if line.strip())
    return {name: summary for name, _, summary in entries}


def job_folder(name: str) -> str:
    """Where a detached job keeps its output and result."""
    return f"{HOME}/job/" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def detach(name: str, command: Command) -> Command:
    """The command as a job that continues when the connection breaks. Raises ValueError if it reads standard input.

    The next run that needs the same step finds it running or ended, and takes its output and result instead of starting
    it again. Until then its handler is pending. A change that needs the step again marks an earlier job as stale: that
    job's result does not cover the change.
    """
    if command.stdin:
        raise ValueError(f"{name}: a detached command cannot read standard input")
    return script("run_detached", job_folder(name)).reading(command.script)
