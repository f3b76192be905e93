#!/bin/sh
# Replaces our files of one CA in the folder of local CAs, then renews the trust store with update-ca-certificates.
# Arguments: FOLDER COUNT NAME CONTENT … OLD…
#   COUNT: how many pairs NAME CONTENT follow. OLD: names of files to remove.
# A file is renamed to NAME.gone before the trust store is renewed, and deleted after it: when a run is
# killed in between, the remaining file makes the next run do this again.
. ./lib/files.sh
command -v update-ca-certificates >/dev/null || { echo 'the package ca-certificates is not installed' >&2; exit 1; }
at=$1 count=$2
shift 2
while [ "$count" -gt 0 ]; do
  printf '%s' "$2" | replace_file "$at/$1" 0644 '' '' no '' '' || exit
  shift 2
  count=$((count - 1))
done
# Some hosts let the group staff write to this folder.
enter "$at/provision" || exit
for old; do
  case $old in
    *.gone) ;;
    *) mv -fT -- "$old" "$old.gone" || exit ;;
  esac
done
update-ca-certificates || exit
for old; do
  rm -f -- "${old%.gone}.gone" || exit
done
