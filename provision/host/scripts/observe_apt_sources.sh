#!/bin/sh
# Prints the files that apt reads its sources from: a line `SIZE PATH` for each, an empty line, then their contents.
# apt reads no file with another character in its name. Source: sources.list(5).
set --
for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
  case ${file##*/} in *[!A-Za-z0-9_.-]*) continue ;; esac
  [ ! -f "$file" ] || set -- "$@" "$file"
done
[ $# = 0 ] || stat -L -c '%s %n' -- "$@" || exit
echo
[ $# = 0 ] || cat -- "$@"
