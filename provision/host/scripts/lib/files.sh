#!/bin/sh
# Replacing a file atomically.

# replace_file PATH MODE OWNER CHECK KEEP EXPECTED BACKUPS: standard input becomes the content of PATH.
#
# CHECK      shell text that checks the new file, which it finds as "$new"; a code other than 0 refuses the file
# KEEP       yes: the file keeps its owner and mode if it exists
# EXPECTED   sha256 of the content that PATH must still have, or "" for any. Otherwise the code is 79.
# BACKUPS    the folder for the previous content; the last 10 of each file are kept
#
# The new file has a fixed name beside the old one, so a killed run leaves at most that one file, and the next run
# overwrites it. A symbolic link is followed. `sync FILE` needs coreutils 8.24.
replace_file() (
  path=$(readlink -m -- "$1") || exit
  mode=$2 owner=$3 check=$4 keep=$5 expected=$6 backups=$7
  dir=$(dirname -- "$path") || exit
  new=$dir/.$(basename -- "$path").provision
  mkdir -p -- "$dir" || exit
  trap 'rm -f -- "$new"' EXIT
  (umask 077; cat > "$new") || exit
  chown -- "$owner" "$new" || exit
  chmod -- "$mode" "$new" || exit
  if [ "$keep" = yes ] && [ -e "$path" ]; then
    chown --reference="$path" -- "$new" || exit
    chmod --reference="$path" -- "$new" || exit
  fi
  if [ -n "$check" ]; then
    export new
    (set -e; eval "$check")
    code=$?
    [ "$code" = 0 ] || exit "$code"
  fi
  sync -- "$new" || exit
  if [ -n "$expected" ] && [ "$(cat -- "$path" 2>/dev/null | sha256sum)" != "$expected  -" ]; then
    echo "$path was changed by another program in the meantime" >&2
    exit 79
  fi
  if [ -e "$path" ]; then back_up "$path" "$backups" || exit; fi
  mv -f -- "$new" "$path" || exit
  sync -- "$dir"
)

# back_up PATH FOLDER: copies PATH to FOLDER/PATH.TIME and deletes all but the last 10 copies of it.
back_up() (
  backup=$2/$(printf '%s' "${1#/}" | tr / _)
  mkdir -p -m 0700 -- "$2" || exit
  (umask 077; cp -- "$1" "$backup.$(date -u +%Y%m%dT%H%M%S.%N)") || exit
  # shellcheck disable=SC2012 # these names are ours, and ls sorts them
  ls -1r -- "$backup".[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]T* | tail -n +11 |
    while IFS= read -r old; do rm -f -- "$old"; done
)
