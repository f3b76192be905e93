#!/bin/sh
# Makes a folder. Arguments: PATH MODE OWNER. Missing folders above it belong to root, with mode 0755.
. ./lib/files.sh
umask 022
enter "$1" && (umask 077; mkdir -- "$name") || exit "$NOTHING_CHANGED"
set_access "$1" "$2" "$3"
