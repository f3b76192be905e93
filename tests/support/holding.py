"""Pauses a run at a chosen point between writing gitlab.rb and the health check, as a slow host would."""

from __future__ import annotations

from provision_lab.harness import Harness
from tests.support.faults import Gate, fact

# write: gitlab.rb's new text is written beside the old one; health: GitLab is reconfigured, the health check runs
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
    """Replaces Ruby and gitlab-ctl on the host with wrappers that wait at the chosen point."""
    for path, real in (
        ("/opt/gitlab/embedded/bin/ruby", "/usr/bin/ruby"),
        ("/usr/bin/gitlab-ctl", "/opt/gitlab/bin/gitlab-ctl"),
    ):
        harness.lab.inside(host, f"rm -f {path}; cat > {path}; chmod 755 {path}", stdin=_WRAPPER % real)


def hold(harness: Harness, point: str, host: str = "gitlab") -> Gate:
    """Makes the next run wait at this point until the gate is opened."""
    gate = Gate(harness, host)
    harness.lab.inside(host, f"rm -f /run/begun; echo {point} > /run/hold")
    return gate


def kill_all(harness: Harness, host: str = "gitlab") -> None:
    """Kills everything of the paused step with SIGKILL, as a loss of power would."""
    session = fact(harness, host, "ps -o sid= -p $(cat /run/held)").strip()
    harness.lab.inside(host, f"pkill -9 -s {session}; rm -f /run/gate /run/begun /run/hold")
