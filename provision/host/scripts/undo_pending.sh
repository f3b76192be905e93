#!/bin/sh
# Undoes add_pending.sh after a change that changed nothing. Arguments: FILE ADDED. ADDED: what add_pending.sh printed.
. ./lib/pending.sh
printf '%s\n' "$2" | while read -r kind name; do
  case $kind in
    handler) clear_pending "$1" "$name" || exit ;;
    stale) rm -f -- "$name/stale" || exit ;;
  esac
done
