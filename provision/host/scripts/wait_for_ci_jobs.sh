#!/bin/sh
# Returns when no CI job runs on this host. Ends with 1 after LIMIT seconds. Argument: LIMIT
#
# A job of the docker executor is a container with gitlab-runner's label; one of the shell executor is a child of the
# runner's main process. Sources: gitlab-runner, executors/docker/internal/labels; proc(5) on task/PID/children.
ci_jobs() {
  main=$(systemctl show gitlab-runner --property=MainPID --value 2>/dev/null)
  [ "${main:-0}" = 0 ] || cat /proc/"$main"/task/*/children 2>/dev/null | tr ' ' '\n' | sed '/^$/d; s/^/process /'
  [ ! -S /run/docker.sock ] ||
    docker ps --filter label=com.gitlab.gitlab-runner.managed=true --format 'container {{.Names}}' 2>/dev/null
}
waited=0
while running=$(ci_jobs | head -n 3 | paste -sd, -) && [ -n "$running" ]; do
  [ "$waited" -gt 0 ] || echo "waiting for the CI jobs on this host to end: $running"
  if [ "$waited" -ge "$1" ]; then
    echo "CI jobs still run on this host after $1 s: $running" >&2
    exit 1
  fi
  sleep 1
  waited=$((waited + 1))
done
