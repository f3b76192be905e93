#!/bin/sh
# Replacing a file atomically, also in a folder that another user may write to.
#
# Such a user can plant a link where root is about to write, and exchange a file between two steps. Therefore:
#   - a symbolic link is followed only if it belongs to root or to the user who runs the script;
#   - the folder is entered, and names are relative to it from then on: another folder under its name has no effect;
#   - a new file is made in a folder of our own inside it, which other users cannot enter, and renamed from there.
#     rename(2) replaces a link and does not follow it.

# The exit code of a step that failed before it changed anything; programs do not use it.
NOTHING_CHANGED=113

# real_path PATH: prints the absolute PATH without symbolic links. It fails for a link that belongs to another user.
real_path() (
  at='' rest=$1 links=0 me=$(id -u)
  while [ -n "$rest" ]; do
    part=${rest%%/*}
    case $rest in */*) rest=${rest#*/} ;; *) rest= ;; esac
    case $part in
      '' | .) continue ;;
      ..) at=${at%/*}; continue ;;
    esac
    if [ ! -L "$at/$part" ]; then at=$at/$part; continue; fi
    links=$((links + 1))
    [ "$links" -le 40 ] || { echo "$1 leads through too many symbolic links" >&2; exit 1; }
    user=$(stat -c %u -- "$at/$part") || exit
    if [ "$user" != 0 ] && [ "$user" != "$me" ]; then
      echo "$at/$part is a symbolic link that belongs to $(stat -c %U -- "$at/$part"): root does not follow it;" \
        "remove the link, or use the path that it points to" >&2
      exit 1
    fi
    target=$(readlink -- "$at/$part") || exit
    case $target in /*) at= ;; esac
    rest=$target/$rest
  done
  printf '%s\n' "${at:-/}"
)

# enter_folder FOLDER: enters a folder that `real_path` printed.
enter_folder() {
  cd -P -- "$1" || return
  [ "$(pwd -P)" = "$1" ] || { echo "$1 was exchanged in the meantime" >&2; return 1; }
}

# enter PATH: makes the folder of PATH and enters it. "$path": PATH without links; "$folder", "$name": its two parts.
enter() {
  path=$(real_path "$1") || return
  folder=${path%/*} name=${path##*/}
  folder=${folder:-/} name=${name:-.}
  mkdir -p -- "$folder" && enter_folder "$folder"
}

# make_private WORD: makes and enters the folder "$private", inside the one that `enter` entered. It is deleted with the
# shell, and so is the file "$private.new" beside it. What a killed run left under these names is deleted first.
make_private() {
  rm -rf -- ".$name.$1" ".$name.$1".* || return
  private=$(mktemp -d ".$name.$1.XXXXXX") || return
  trap 'cd -P .. && rm -rf -- "$private" "$private.new"' EXIT
  cd -P -- "$private" || return
  [ "$(pwd -P) $(stat -c '%u %a' .)" = "${folder%/}/$private $(id -u) 700" ] && return
  trap - EXIT
  echo "$folder/$private was exchanged in the meantime" >&2
  return 1
}

# replace_file PATH MODE OWNER CHECK KEEP EXPECTED BACKUPS: standard input becomes the content of PATH.
#
# OWNER      "" for the user who runs the script
# CHECK      shell text that checks the new file, which it finds as "$new"; a code other than 0 refuses the file
# KEEP       yes: the file keeps its owner and mode if it exists
# EXPECTED   sha256 of the content that PATH must still have, or "" for any. Otherwise the code is 79.
# BACKUPS    the folder for the previous content, of which the last 10 of each file are kept; "" for no backup
#
# The code is NOTHING_CHANGED where a step before the last one fails. `sync FILE` needs coreutils 8.24.
replace_file() (
  check=$4 expected=$6 backups=$7 start=$PWD
  enter "$1" && make_private provision && write_new "$2" "$3" "$5" || exit "$NOTHING_CHANGED"
  file=new
  if [ -n "$check" ]; then
    # Beside the old file, because a configuration may name other files relative to itself.
    new=${folder%/}/$private.new file=../$private.new
    mv -T -- new "$file" || exit "$NOTHING_CHANGED"
    export new
    # On a line of its own: as part of a list the shell would ignore the check's own `set -e`.
    (set -e; cd -- "$start"; eval "$check")
    code=$?
    [ "$code" = 0 ] || exit "$NOTHING_CHANGED"
  fi
  if [ -n "$expected" ] && [ "$(cat -- "../$name" 2>/dev/null | sha256sum)" != "$expected  -" ]; then
    echo "$path was changed by another program in the meantime" >&2
    exit 79
  fi
  if [ -n "$backups" ] && [ -e "../$name" ]; then
    back_up "../$name" "$backups/$(printf '%s' "${path#/}" | tr / _)" || exit "$NOTHING_CHANGED"
  fi
  mv -fT -- "$file" "../$name" || exit "$NOTHING_CHANGED"
  sync -- ..
)

# write_new MODE OWNER KEEP: writes the file "new" of `replace_file`. In a folder of our own other users cannot read it
# before its mode is set.
write_new() {
  mode=$1 owner=$2
  (umask 077; cat > new) || return
  if [ "$3" = yes ] && [ -e "../$name" ]; then
    found=$(stat -c '%f %a %u:%g' -- "../$name") || return
    case $found in 8???\ *) ;; *) echo "$path is not a regular file" >&2; return 1 ;; esac
    found=${found#* }
    mode=${found% *} owner=${found#* }
  fi
  [ -z "$owner" ] || chown -h -- "$owner" new || return
  chmod -- "$mode" new && sync -- new
}

# back_up FILE BACKUP: copies FILE to BACKUP.TIME and deletes all but the last 10 copies of it.
back_up() (
  mkdir -p -m 0700 -- "${2%/*}" || exit
  (umask 077; cp -P -- "$1" "$2.$(date -u +%Y%m%dT%H%M%S.%N)") || exit
  # shellcheck disable=SC2012 # these names are ours, and ls sorts them
  ls -1r -- "$2".[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]T* | tail -n +11 |
    while IFS= read -r old; do rm -f -- "$old"; done
)

# set_access PATH MODE OWNER: sets mode and owner of an existing file or folder. OWNER: "" for the one that it has.
#
# A file is reached through a second link in a folder of our own: other users cannot exchange that.
set_access() (
  mode=$2 owner=$3
  enter "$1" || exit "$NOTHING_CHANGED"
  if [ -d "$name" ] && [ ! -L "$name" ]; then
    enter_folder "$path" || exit "$NOTHING_CHANGED"
    file=.
  else
    make_private provision-access && ln -P -- "../$name" same || exit "$NOTHING_CHANGED"
    file=same
    if [ ! -f "$file" ] || [ -L "$file" ]; then
      echo "$path is not a regular file" >&2
      exit "$NOTHING_CHANGED"
    fi
  fi
  [ -z "$owner" ] || chown -h -- "$owner" "$file" || exit
  chmod -- "$mode" "$file"
)
