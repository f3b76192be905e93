"""The way to a host: one authenticated connection, one privileged shell. The only importer of fabric and paramiko.

Importing this package is cheap: fabric and paramiko are imported by the first `connect`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from provision.ssh.session import Target

if TYPE_CHECKING:
    from provision.ssh.shell_session import ShellSession

__all__ = ["Target", "connect"]


def connect(target: Target, *, lock: bool, who: str) -> ShellSession:
    """Open a session with a root shell on a host.

    `lock`: hold the host's lock for the session's life. Without it nothing is written to the host's disk.
    `who`: what a run that finds the lock taken is told ("alice@laptop, process 4711").

    Raises Unreachable (HostKeyError, LoginRefused, ConnectionLost) and BecomeError. Locked, and a sudo that
    needs a password though none is given, are raised by the first `ask` or `run` (or `ready`): waiting for
    them here would cost a round trip.
    """
    from provision.ssh.shell_session import open_session

    return open_session(target, lock=lock, who=who)
