#!/bin/sh
# Adds handlers to the list of pending ones, before the change that requires them.
# Arguments: FILE, then NAME SUMMARY JOB for each. JOB: the folder of a detached job, or "". A job there is marked stale,
# since it began before the change.
# Prints what was not so before, for undo_pending.sh: `handler NAME` or `stale JOB` for each.
. ./lib/pending.sh
file=$1
shift
mkdir -p -m 0700 -- "$(dirname -- "$file")" || exit
while [ $# -gt 0 ]; do
  if ! is_pending "$file" "$1"; then
    add_pending "$file" "$1" "$2" || exit
    echo "handler $1"
  fi
  if [ -n "$3" ] && [ -d "$3" ] && [ ! -e "$3/stale" ]; then
    touch -- "$3/stale" || exit
    echo "stale $3"
  fi
  shift 3
done
sync -- "$file"
