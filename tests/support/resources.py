"""Resources applied for real, without an engine: observe, plan, run each change with this machine's sh."""

from __future__ import annotations

import grp
import os
import pwd
from typing import Final

from provision.resources import Resource, Result
from provision.shell import Command
from provision.testing import LocalSession, observe_on, planned

ME: Final = f"{pwd.getpwuid(os.getuid()).pw_name}:{grp.getgrgid(os.getgid()).gr_name}"
"""The owner of what this process creates."""


def apply(resource: Resource, host: LocalSession) -> list[str]:
    """Applies all changes of a resource and returns their summaries. Fails when a command fails."""
    summaries = []
    for change in planned(resource, observe_on(host, resource)):
        result = run(change.run, host)
        assert result.code == 0, result.errors
        summaries.append(change.summary)
    return summaries


def refuse(resource: Resource, host: LocalSession) -> str:
    """Applies a resource's only change, which must fail, and returns what it printed on stderr."""
    (change,) = planned(resource, observe_on(host, resource))
    result = run(change.run, host)
    assert result.code != 0
    return result.errors


def run(command: object, host: LocalSession) -> Result:
    """Runs the command of a change."""
    assert isinstance(command, Command)
    return host.run(command, deadline=30)
