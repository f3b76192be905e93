"""Steps that outlive the connection.

When the connection breaks, the step goes on. The next run that needs the same step finds it running or ended, and takes
its output and result instead of starting it again. Until then its handler is pending. A change that needs the step
again marks an earlier job as stale: that job's result does not cover the change.
"""

from __future__ import annotations

from provision.host.pending import job_folder
from provision.host.scripts import script
from provision.shell import Command


def detach(name: str, command: Command) -> Command:
    """The command, run so that it outlives the connection. Raises ValueError for one that reads standard input."""
    if command.stdin:
        raise ValueError(f"{name}: a step that outlives the connection cannot read from it")
    return script("run_detached", job_folder(name)).reading(command.script)
