"""Pending work: what must run because something changed, and survives a killed run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from provision.shell import Command, sh


@dataclass(frozen=True)
class Handler:
    """Work that a change owes: done once, at the end of the last task of the play that may owe it.

    `name` is its key in the host's `pending` file, so it outlives a killed run: one word.
    takes_back  when it fails, it undoes the changes that owe it: what they drop is ours until it is paid
    """

    name: str
    summary: str
    run: Command
    deadline: float = 300.0
    detached: bool = False
    takes_back: bool = False

    @classmethod
    def restart(cls, unit: str) -> Handler:
        """Restarts a systemd unit: `notify=Handler.restart("nginx")`."""
        name = unit.removesuffix(".service")
        # A unit that failed too often refuses to start until its counter is reset.
        run = sh("systemctl reset-failed -- %s 2>/dev/null; systemctl restart -- %s", name, name)
        return cls(f"restart-{name}", f"restart {name}", run)

    @classmethod
    def reload(cls, unit: str) -> Handler:
        """Has a running unit read its configuration again, or restarts one that cannot; starts none that is stopped."""
        name = unit.removesuffix(".service")
        return cls(f"reload-{name}", f"reload {name}", sh("systemctl try-reload-or-restart -- %s", name))


def handlers_of(notify: Handler | Sequence[Handler]) -> tuple[Handler, ...]:
    """The handlers that a resource's `notify` names: one, or several."""
    return (notify,) if isinstance(notify, Handler) else tuple(notify)
