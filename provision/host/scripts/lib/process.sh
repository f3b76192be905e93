#!/bin/sh
# Processes. A number alone does not identify one: when a process has ended, another may get its number.

# start_of PID: prints when the process started, in clock ticks since boot. It fails for one that has ended.
start_of() { field_of "$1" 22; }

# group_of PID: prints the process's group. It fails for a process that has ended.
group_of() { field_of "$1" 5; }

# field_of PID NUMBER: Source: proc(5), on stat. Field 3 is the state; the name, field 2, may contain anything.
field_of() (
  stat=$(cat -- "/proc/$1/stat" 2>/dev/null) || exit
  number=$(($2 - 2))
  set -f
  # shellcheck disable=SC2086 # one argument for each field
  set -- ${stat##*) }
  case $1 in Z | X) exit 1 ;; esac
  shift $((number - 1))
  echo "$1"
)
