#!/bin/sh
# Prints the last LINES of a container's log and what follows, until the connection ends. Arguments: CONTAINER LINES
# Nothing signals the end of a connection to this shell, but the nearest sshd above it ends with the connection.
. ./lib/process.sh
docker container inspect "$1" >/dev/null || exit 1
sshd=$$
while read -r name < "/proc/$sshd/comm"; do
  case $name in sshd*) break ;; esac
  sshd=$(sed -n 's/^PPid:[^0-9]*//p' "/proc/$sshd/status")
done
started=$(start_of "$sshd")
docker logs --tail "$2" -f "$1" & logs=$!
trap 'kill "$logs" 2>/dev/null' EXIT
trap 'exit 143' TERM
while [ "$(start_of "$sshd")" = "$started" ] && kill -0 "$logs" 2>/dev/null; do sleep 1; done
