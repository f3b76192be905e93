#!/bin/sh
# Reads many files with two programs. Arguments: the paths.
# Prints a line for each path: present, absent or other (no plain file); then for each file that is present its mode, owner
# and size; then their contents.
count=$#
while [ "$count" -gt 0 ]; do
  if [ -f "$1" ]; then set -- "$@" "$1"; echo present; elif [ -e "$1" ]; then echo other; else echo absent; fi
  shift
  count=$((count - 1))
done
[ $# = 0 ] || { stat -L -c '%04a %U:%G %s' -- "$@" && cat -- "$@"; }
