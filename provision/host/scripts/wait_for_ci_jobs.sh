#!/bin/sh
# Returns when no CI job runs on this host. Ends with 1 after LIMIT seconds. Argument: LIMIT
#
# Only gitlab-runner itself knows of a job whose image is still pulled: there is no container and no process of it. So the
# runner gets SIGQUIT: it takes no new job, and ends after its last one. systemd starts it again 120 s later
# (RestartSec); start_runner.sh does so at once. A runner that systemd would not start again gets no signal: then a job is
# visible as a container with the runner's label, as a child of the runner (shell executor), or by the runner's connection
# to Docker.
# Sources: gitlab-runner, "Signals" and executors/docker/internal/labels; proc(5) on task/PID/children; ss(8).
. ./lib/process.sh
property() { systemctl show gitlab-runner --property="$1" --value 2>/dev/null; }
main=$(property MainPID)
began='' ends=''
if [ "${main:-0}" != 0 ] && began=$(start_of "$main"); then
  case $(property Restart) in always | on-success) kill -QUIT "$main" && ends=yes ;; esac
fi
alive() { [ -n "$began" ] && [ "$(start_of "$main")" = "$began" ]; }
# uses_docker: whether one of the runner's sockets is connected to Docker's.
# ss prints the address and the number of both ends; Docker's end has the path.
uses_docker() {
  peers=" $(ss -Hx src /run/docker.sock 2>/dev/null | awk '$2 == "ESTAB" { print $NF }' | tr '\n' ' ')"
  for fd in /proc/"$main"/fd/*; do
    number=$(readlink -- "$fd")
    number=${number#socket:\[}
    case $peers in *" ${number%]} "*) return 0 ;; esac
  done
  return 1
}
ci_jobs() {
  if alive; then
    cat /proc/"$main"/task/*/children 2>/dev/null | tr ' ' '\n' | sed '/^$/d; s/^/process /'
    [ -n "$ends" ] || ! uses_docker || echo 'a job that uses Docker'
  fi
  [ ! -S /run/docker.sock ] ||
    docker ps --filter label=com.gitlab.gitlab-runner.managed=true --format 'container {{.Names}}' 2>/dev/null
}
waited=0 printed=
while running=$(ci_jobs | head -n 3 | paste -sd, -); [ -n "$running" ] || { [ -n "$ends" ] && alive; }; do
  # A runner without a job needs a moment to end.
  if [ -z "$running" ] && [ "$waited" -ge 3 ]; then running='a job that is being prepared'; fi
  if [ -n "$running" ] && [ -z "$printed" ]; then
    echo "waiting for the CI jobs on this host to end: $running"
    printed=yes
  fi
  if [ "$waited" -ge "$1" ]; then
    echo "CI jobs still run on this host after $1 s: ${running:-a job that is being prepared}" >&2
    [ -z "$ends" ] || echo 'gitlab-runner takes no new jobs until they have ended; then systemd starts it again' >&2
    exit 1
  fi
  sleep 1
  waited=$((waited + 1))
done
