#!/bin/sh
# Adds an allow rule to ufw. Arguments: COMMENT, then the rule as ufw takes it.
# ufw ends with 0 even when it fails: only its output shows that.
comment=$1
shift
output=$(ufw allow "$@" comment "$comment" 2>&1) || { echo "$output" >&2; exit 1; }
case $output in
  *"Rules updated"* | *"Rule added"* | *"Skipping adding existing rule"*) ;;
  *) echo "$output" >&2; exit 1 ;;
esac
