"""Waiting until no CI job runs on a host, before something that would end it.

A job of the docker executor is a container with gitlab-runner's label; one of the shell executor is a child of the
runner's main process. Source: gitlab-runner's executors/docker/internal/labels; proc(5) on task/PID/children.
"""

from __future__ import annotations

from typing import Final

from provision.shell import sh

LIMIT_SECONDS: Final = 1800

_WAIT = """
ci_jobs() {
  main=$(systemctl show gitlab-runner --property=MainPID --value 2>/dev/null)
  [ "${main:-0}" = 0 ] || cat /proc/"$main"/task/*/children 2>/dev/null | tr ' ' '\\n' | sed '/^$/d; s/^/process /'
  [ ! -S /run/docker.sock ] || docker ps --filter label=com.gitlab.gitlab-runner.managed=true --format 'container {{.Names}}' 2>/dev/null
}
wait_for_jobs() {
  waited=0
  while running=$(ci_jobs | head -n 3 | paste -sd, -) && [ -n "$running" ]; do
    [ "$waited" -gt 0 ] || echo "waiting for the CI jobs on this host to end: $running"
    if [ "$waited" -ge %s ]; then
      echo "CI jobs still run on this host after %s s: $running" >&2
      exit 1
    fi
    sleep 1; waited=$((waited + 1))
  done
}
"""


def wait_for_jobs(limit: int = LIMIT_SECONDS) -> str:
    """Shell text that returns when no job runs, and ends the script with 1 after `limit` seconds."""
    return f"{sh(_WAIT, limit, limit).script}wait_for_jobs\n"
