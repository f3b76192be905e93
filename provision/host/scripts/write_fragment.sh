#!/bin/sh
# Replaces a configuration fragment and tests the program's whole configuration with it. When the test fails, the previous
# content of PATH is restored, the test's output is on standard error, and the code is 113.
# Arguments: PATH MODE OWNER CHECK BACKUPS
#   CHECK: shell text, code 0 accepts. BACKUPS: as in lib/files.sh.
# Standard input: the new content.
. ./lib/files.sh
write_fragment() (
  start=$PWD
  enter "$1" && make_private provision-old || exit "$NOTHING_CHANGED"
  # A second link to the old file preserves its content, owner, mode and time.
  if [ -e "../$name" ]; then ln -P -- "../$name" old || exit "$NOTHING_CHANGED"; fi
  roll_back() {
    trap '' HUP TERM
    if [ -e old ]; then mv -fT -- old "../$name"; else rm -f -- "../$name"; fi
  }
  trap 'roll_back; exit 143' HUP TERM
  output=
  replace_file "$path" "$2" "$3" "" no "" "$5" && output=$( (cd -- "$start" && eval "$4") 2>&1 </dev/null)
  code=$?
  trap - HUP TERM
  [ "$code" != 0 ] || exit 0
  [ -z "$output" ] || printf '%s\n' "$output" >&2
  roll_back || exit
  exit "$NOTHING_CHANGED"
)
write_fragment "$1" "$2" "$3" "$4" "$5"
