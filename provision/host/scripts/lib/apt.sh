#!/bin/sh
# Package management that waits for other programs, and for a slow network as long as something arrives.

export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l

# wait_for_apt SECONDS: waits until no other program holds a lock of apt or dpkg; ends the script with 100 after SECONDS.
# It names the holder at once, when it changes, and every minute.
# apt waits for dpkg's lock itself, but not for that of the lists, and names no holder. /proc/locks does.
wait_for_apt() {
  waited=0 reported=
  while :; do
    holder=
    for lock in /var/lib/dpkg/lock-frontend /var/lib/dpkg/lock /var/lib/apt/lists/lock /var/cache/apt/archives/lock; do
      inode=$(stat -c %i -- "$lock" 2>/dev/null) || continue
      holder=$(awk -v at=":$inode" '$6 ~ at "$" && $5 > 0 { print $5; exit }' /proc/locks)
      [ -z "$holder" ] || break
    done
    [ -n "$holder" ] || return 0
    name=$(cat "/proc/$holder/comm" 2>/dev/null) || name='a process of another namespace'
    if [ "$reported" != "$lock $holder" ] || [ $((waited % 60)) = 0 ]; then
      reported="$lock $holder"
      since=
      [ "$waited" = 0 ] || since=", for $waited s of at most $1 s"
      echo "waiting for $lock, held by $name (pid $holder)$since"
    fi
    if [ "$waited" -ge "$1" ]; then
      echo "$lock has been held for $1 s by $name (pid $holder)" >&2
      exit 100
    fi
    sleep 1
    waited=$((waited + 1))
  done
}

# complete_dpkg: completes a dpkg that was interrupted: killed, or ended by a full disk. apt refuses to install until then.
# "$completed" is not empty then.
# It is recognised as apt does it: dpkg's journal has entries. Sources: apt's apt-pkg/deb/debsystem.cc, CheckUpdates; dpkg(1).
complete_dpkg() {
  for entry in /var/lib/dpkg/updates/[0-9]*; do
    [ -e "$entry" ] || continue
    echo "an earlier dpkg was interrupted: completing it with dpkg --configure -a"
    # shellcheck disable=SC2034 # for the scripts that include this file
    completed=yes
    dpkg --force-confold --configure -a || exit 100
    return
  done
}

# fetch_with_apt STALL WORD…: apt-get, which ends a download of which nothing arrives for STALL seconds. However long the
# whole download takes, it is not ended. Source: apt.conf(5), apt-transport-http(1), Timeout.
fetch_with_apt() {
  stall=$1
  shift
  apt-get -q -o Acquire::http::Timeout="$stall" -o Acquire::https::Timeout="$stall" -o Acquire::ftp::Timeout="$stall" \
    -o Acquire::Retries=3 "$@"
}

# refresh_lists STALL: fetches each package list once in a run, so that the tasks of a run share one `apt-get update`. The
# first call fetches all lists. A later call fetches only those of new or changed sources, but all lists if anything else of
# apt's configuration has changed, such as a proxy or a key, and if no run holds the host's lock. The file that names what was
# fetched is removed together with the lock. Afterwards "$lists" is "all" or "some".
# Source: apt.conf(5), Dir::Etc and APT::Get::List-Cleanup; sources.list(5).
refresh_lists() {
  fetched_by='' run='' lists=all known=/var/lib/provision/apt-lists
  { read -r run < /var/lib/provision/lock && read -r fetched_by < "$known"; } 2>/dev/null || fetched_by=
  configuration=$(stat -c '%i.%Y.%s %n' /etc/apt/sources.list /etc/apt/sources.list.d/* /etc/apt/keyrings/* \
    /etc/apt/trusted.gpg.d/* /etc/apt/apt.conf /etc/apt/apt.conf.d/* /etc/apt/auth.conf /etc/apt/auth.conf.d/* 2>/dev/null) || :
  if [ "$run" ] && [ "$fetched_by" = "$run" ]; then
    # The changed sources, one a line, or "all".
    changed=$(printf '%s\n' "$configuration" | awk -v known="$known" '
      BEGIN { while ((getline < known) > 0) before[substr($0, index($0, " ") + 1)] = $1 }
      { name = substr($0, index($0, " ") + 1); found[name] }
      before[name] == $1 { next }
      name ~ /\/sources\.list\.d\/[^\/]*\.sources$/ { print name; next }
      name ~ /\/keyrings\// && before[name] == "" { next }
      { all = 1 }
      END { for (name in before) if (name ~ /^\// && !(name in found)) all = 1; if (all) print "all" }')
    case $changed in *all) ;; *) lists=some ;; esac
  fi
  if [ "$lists" = some ]; then
    printf '%s\n' "$changed" | while read -r source; do
      [ -z "$source" ] || fetch_with_apt "$1" -o Dir::Etc::SourceList="$source" -o Dir::Etc::SourceParts=/dev/null \
        -o APT::Get::List-Cleanup=0 update
    done
  else
    fetch_with_apt "$1" update
  fi
  [ -z "$run" ] || printf '%s\n' "$run" "$configuration" > "$known" || rm -f -- "$known"
}

# check_space_for PACKAGE…: fails, and prints why, if the disk has no room for the packages and what they depend on.
# apt itself compares the downloads only, and a dpkg that fills the disk leaves packages half installed. The files of an
# old version are deleted after the new ones are written. Where several file systems may get them, the one with most room
# decides. Installed-Size is in KiB, Size in bytes. Source: deb-control(5), dpkg(1), unpacking.
check_space_for() {
  # shellcheck disable=SC2046 # names and versions, without spaces
  set -- $(apt-get -qq -s --allow-downgrades --allow-change-held-packages install -- "$@" 2>/dev/null |
    sed -n 's/^Inst \([^ ]*\) .*(\([^ ]*\) .*/\1=\2/p')
  [ $# != 0 ] || return 0
  sizes=$(apt-cache --no-all-versions show -- "$@" 2>/dev/null |
    awk '/^Installed-Size:/ { unpacked += $2 } /^Size:/ { packed += $2 / 1024 } END { printf "%d %d", unpacked, packed }')
  needed=${sizes% *}
  [ "$(stat -c %d /usr)" != "$(stat -c %d /var/cache/apt)" ] || needed=$((needed + ${sizes#* }))
  free=$(df -Pk /usr /opt 2>/dev/null | awk 'NR > 1 && $4 > most { most = $4 } END { printf "%d", most }')
  [ "$free" -lt "$needed" ] || return 0
  echo "not enough disk space: $((needed / 1024 + 1)) MiB are needed for $# packages, $((free / 1024)) MiB are free" >&2
  return 1
}
