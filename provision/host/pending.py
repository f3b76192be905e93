"""Pending work: what must run because something changed, and survives a killed run."""

from __future__ import annotations

from dataclasses import dataclass

from provision.shell import Command


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
