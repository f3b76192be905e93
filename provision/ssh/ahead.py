"""Dialling ahead: hosts make a process and a first key for us while paramiko is still being imported here.

Only where the address is certain without it, that is where ~/.ssh/config has no say in the way.
"""

from __future__ import annotations

import re

from provision.errors import Unreachable
from provision.ssh.ssh_config import lines
from provision.ssh.target import Target
from provision.ssh.wire import Wire, dial

_SAYS_WHERE = re.compile(r"\s*(hostname|port|proxyjump|proxycommand|match|canonical\w+|addressfamily)\b", re.IGNORECASE)


class Ahead:
    """A host dialled already, or found not to answer."""

    def __init__(self, host: str, port: int, found: Wire | Unreachable) -> None:
        self._where, self._found = (host, port), found

    def take(self, host: str, port: int) -> Wire | None:
        """The connection, if it is one to there, for the first who asks. Raises Unreachable when there was none."""
        found, where, self._where = self._found, self._where, ("", 0)
        if where == (host, port) and isinstance(found, Unreachable):
            raise found
        if isinstance(found, Unreachable) or not where[0]:
            return None
        if where == (host, port):
            return found
        found.close()
        return None


def dial_ahead(target: Target) -> Ahead | None:
    """Connects to where the target is certain to be; None where that is not certain."""
    if target.proxy_jump or any(_SAYS_WHERE.match(line) for line in lines()):
        return None
    host, port = target.address, target.port or 22
    what = f"{target.name} ({host if port == 22 else f'{host} port {port}'})"
    try:
        return Ahead(host, port, dial(host, port, timeout=target.connect_timeout, what=what))
    except Unreachable as error:
        return Ahead(host, port, error)
