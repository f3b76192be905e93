#!/bin/sh
# Replaces state.json. Arguments: FILE TEXT. The text holds no secrets.
# Through cat, because on a full disk the shell's own printf only reports "I/O error".
mkdir -p -m 0700 -- "$(dirname -- "$1")" || exit
(umask 077; printf '%s\n' "$2" | cat > "$1.new") && sync -- "$1.new" && mv -f -- "$1.new" "$1"
