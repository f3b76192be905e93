#!/bin/sh
# The rollback copy of a configuration file: its content before the first change whose handler has not run yet.
# COPY.none instead of COPY means that there was no file.

# keep_copy PATH COPY: makes the copy unless there is one already.
keep_copy() {
  [ ! -e "$2" ] && [ ! -e "$2.none" ] || return 0
  mkdir -p -m 0700 -- "$(dirname -- "$2")" || return
  if [ ! -e "$1" ]; then : > "$2.none"; return; fi
  cp -p -- "$1" "$2.new" && sync -- "$2.new" && mv -- "$2.new" "$2"
}

# has_copy COPY
has_copy() { [ -e "$1" ] || [ -e "$1.none" ]; }

# restore_copy PATH COPY: restores PATH from the copy, with its owner, mode and time. When that fails, PATH is unchanged.
# It needs lib/files.sh.
restore_copy() (
  if [ ! -e "$2" ]; then rm -f -- "$1"; exit; fi
  enter "$1" && make_private provision && cp -p -- "$2" new && sync -- new && mv -fT -- new "../$name" && sync -- ..
)

# drop_copy COPY: the copy is no longer needed.
drop_copy() {
  rm -f -- "$1" "$1.none" "$1.begun"
  rmdir -- "$(dirname -- "$1")" 2>/dev/null
  :
}
