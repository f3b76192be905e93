#!/bin/sh
# Processes. A number alone does not identify one: when a process has ended, another may get its number.

# start_of PID: prints when the process started, in clock ticks since boot. It fails for one that has ended.
# Source: proc(5), on stat: the state and the start time are fields 3 and 22; the name, field 2, may contain anything.
start_of() (
  stat=$(cat -- "/proc/$1/stat" 2>/dev/null) || exit
  set -f
  # shellcheck disable=SC2086 # one argument for each field
  set -- ${stat##*) }
  case $1 in Z | X) exit 1 ;; esac
  echo "${20}"
)
