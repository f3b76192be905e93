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
