"""Connecting to a host: one authenticated connection with one root shell. The only importer of fabric and paramiko.

Importing this package is cheap: the first `connect` imports fabric and paramiko.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from provision.ssh.session import Target

if TYPE_CHECKING:
    from provision.ssh.dial import Dialler
    from provision.ssh.shell_session import ShellSession

__all__ = ["Target", "connect"]


def connect(target: Target, *, lock: bool, who: str, dialler: Dialler | None = None) -> ShellSession:
    """Open a session with a root shell on a host.

    lock      hold the host's lock until the session ends; without it nothing is written to the host's disk
    who       describes this run to others that find the host locked ("alice@laptop, process 4711")
    dialler   may have a connection to the host already

    Raises Unreachable (HostKeyError, LoginRefused, ConnectionLost) and BecomeError. The first `ask`, `run` or `ready`
    raises Locked, and BecomeError when sudo requires a password and none is given: detecting them here would cost a
    round trip.
    """
    from provision.ssh.dial import dial_directly

    # The host starts its processes for the connection while fabric and paramiko are imported here.
    dialled = (dialler.take(target.name) if dialler is not None else None) or dial_directly(target)
    try:
        from provision.ssh.shell_session import open_session

        return open_session(target, dialled, lock=lock, who=who)
    except BaseException:
        if dialled is not None:
            dialled.close()
        raise
