#!/bin/sh
# Starts a timer that undoes the change that follows, unless it is stopped in time.
# Arguments: UNIT SECONDS UNDO. UNDO: shell text; an earlier timer of this name is replaced.
systemctl stop "$1.timer" "$1.service" 2>/dev/null
systemctl reset-failed "$1.service" 2>/dev/null
systemd-run --quiet --collect --unit="$1" --on-active="$2" --timer-property=AccuracySec=1s /bin/sh -c "$3" || exit
