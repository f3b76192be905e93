#!/bin/sh
# Checks the daemon.json "$new". dockerd of 20.10 has no --validate and ends with 1 for it: the file is then accepted.
output=$(dockerd --validate --config-file "${new:?}" 2>&1) || case $output in
  *'unknown flag'*) ;;
  *) printf '%s\n' "$output" >&2; exit 1 ;;
esac
