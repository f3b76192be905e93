#!/bin/sh
# Prints our files of one CA in the folder of local CAs, each after a line `file NAME`. Prints `missing` for each wanted
# certificate that the trust store lacks. A file whose name ends in .gone is about to be removed.
# Arguments: STEM BUNDLE LINE…
#   STEM: the files' path without number and suffix. BUNDLE: the trust store, one file.
#   LINE: for each wanted certificate a line of its text that no other certificate has.
stem=$1 bundle=$2
shift 2
for file in "$stem".crt "$stem"-[0-9]*.crt "$stem"*.gone; do
  [ -e "$file" ] || continue
  printf 'file %s\n' "${file##*/}"
  cat -- "$file" || exit
  echo
done
for line; do
  grep -qsF -e "$line" -- "$bundle" || echo missing
done
:
