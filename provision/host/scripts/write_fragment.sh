#!/bin/sh
# Replaces a configuration fragment and tests the program's whole configuration with it. When the test fails, the previous
# content of PATH is restored, and the test's output is on standard error.
# Arguments: PATH MODE OWNER CHECK BACKUPS
#   CHECK: shell text, code 0 accepts. BACKUPS: as in lib/files.sh.
# Standard input: the new content.
. ./lib/files.sh
write_fragment() (
  path=$(readlink -m -- "$1") || exit
  # A second link to the old file preserves its content, owner, mode and time.
  old=$(dirname -- "$path")/.$(basename -- "$path").provision-old
  rm -f -- "$old" || exit
  if [ -e "$path" ]; then ln -- "$path" "$old" || exit; fi
  # shellcheck disable=SC2329 # the trap runs it
  roll_back() {
    if [ -e "$old" ]; then mv -f -- "$old" "$path"; else rm -f -- "$path"; fi
    rm -f -- "$old"
  }
  trap roll_back EXIT
  trap 'exit 143' HUP TERM
  replace_file "$path" "$2" "$3" "" no "" "$5" || exit
  output=$( (eval "$4") 2>&1 </dev/null)
  code=$?
  if [ "$code" != 0 ]; then
    printf '%s\n' "$output" >&2
    exit "$code"
  fi
  trap - EXIT
  rm -f -- "$old"
)
write_fragment "$1" "$2" "$3" "$4" "$5"
