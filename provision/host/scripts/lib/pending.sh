#!/bin/sh
# The list of pending handlers: one line NAME<TAB>SUMMARY for each.

# is_pending FILE NAME: whether the handler is listed.
is_pending() { cut -f1 -- "$1" 2>/dev/null | grep -qxF -e "$2"; }

# add_pending FILE NAME SUMMARY: adds the handler unless it is listed.
# Through cat, because on a full disk the shell's own printf only reports "I/O error".
add_pending() {
  is_pending "$1" "$2" || printf '%s\t%s\n' "$2" "$3" | cat >> "$1"
}

# clear_pending FILE NAME: removes the handler; an empty list is deleted.
clear_pending() {
  [ -e "$1" ] || return 0
  awk -F '\t' -v name="$2" '$1 != name' "$1" > "$1.new" || return
  if [ -s "$1.new" ]; then mv -f -- "$1.new" "$1"; else rm -f -- "$1" "$1.new"; fi
}
