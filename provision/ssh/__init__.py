"""The way to a host: one authenticated connection, one privileged shell. The only importer of fabric and paramiko.

Importing this package is cheap; fabric comes with the first `connect`.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from provision.lean import without
from provision.ssh.target import Target

if TYPE_CHECKING:
    from provision.ssh.shell_session import ShellSession

_BALLAST = ("unittest.mock", "invoke.vendor.yaml", "importlib.metadata")

__all__ = ["Target", "connect"]


def connect(target: Target, *, lock: bool, who: str) -> ShellSession:
    """Opens a session with a root shell on a host.

    `lock`: hold the host's lock for the session's life. Without it nothing is written to the host's disk.
    `who`: what a run that finds the lock taken is told ("alice@laptop, pid 4711").

    Raises Unreachable (HostKeyError, LoginRefused, ConnectionLost) and BecomeError. Locked, and a sudo that
    wants a password though none is given, are told by the first `ask` or `run` (or `ready`): waiting for
    them here would cost a round trip.
    """
    from provision.ssh.ahead import dial_ahead

    ahead = dial_ahead(target)
    with _without_ballast():
        from provision.ssh.line import open_session

    return open_session(target, ahead, lock=lock, who=who)


def _without_ballast() -> AbstractContextManager[None]:
    return nullcontext() if "fabric" in sys.modules else without(*_BALLAST)
