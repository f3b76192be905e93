"""Holds a run at a chosen point of its way through gitlab.rb and the reconfigure, as a slow host would."""

from __future__ import annotations

from provision_lab.harness import Harness
from tests.support.faults import Gate, fact

# write: gitlab.rb's new text stands beside the old one; health: GitLab is reconfigured, and is being looked at
POINTS = ("write", "show-config", "reconfigure", "health")
_WRAPPER = """#!/bin/sh
point=$1
case $0 in *ruby) point=write ;; esac
[ "$point $(cat /run/begun 2>/dev/null)" != "status yes" ] || point=health
[ "$point" != reconfigure ] || echo yes > /run/begun
if [ "$point" = "$(cat /run/hold 2>/dev/null)" ]; then
  : > /run/hold; echo $$ > /run/held; read -r _ < /run/gate; rm -f /run/gate /run/begun
fi
exec %s "$@"
"""


def can_be_held(harness: Harness, host: str = "gitlab") -> None:
    """Puts programs in front of Ruby and gitlab-ctl on the host that wait where they are told to."""
    for path, real in (
        ("/opt/gitlab/embedded/bin/ruby", "/usr/bin/ruby"),
        ("/usr/bin/gitlab-ctl", "/opt/gitlab/bin/gitlab-ctl"),
    ):
        harness.lab.inside(host, f"rm -f {path}; cat > {path}; chmod 755 {path}", stdin=_WRAPPER % real)


def hold(harness: Harness, point: str, host: str = "gitlab") -> Gate:
    """The next run is held at this point, until the gate is opened."""
    gate = Gate(harness, host)
    harness.lab.inside(host, f"rm -f /run/begun; echo {point} > /run/hold")
    return gate


def kill_all(harness: Harness, host: str = "gitlab") -> None:
    """kill -9 of all that belongs to the step that is held, as when the host loses its power."""
    session = fact(harness, host, "ps -o sid= -p $(cat /run/held)").strip()
    harness.lab.inside(host, f"pkill -9 -s {session}; rm -f /run/gate /run/begun /run/hold")
