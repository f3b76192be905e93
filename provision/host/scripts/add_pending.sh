#!/bin/sh
# Adds handlers to the list of pending ones, before the change that requires them.
# Arguments: FILE, then NAME SUMMARY JOB for each. JOB: the folder of a detached job, or "". A job there is marked stale,
# since it began before the change.
. ./lib/pending.sh
file=$1
shift
mkdir -p -m 0700 -- "$(dirname -- "$file")" || exit
while [ $# -gt 0 ]; do
  add_pending "$file" "$1" "$2" || exit
  [ -z "$3" ] || [ ! -d "$3" ] || touch -- "$3/stale" || exit
  shift 3
done
sync -- "$file"
