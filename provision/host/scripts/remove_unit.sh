#!/bin/sh
# Stops and disables a systemd unit and deletes its file, and for a timer the time stamp of its last run.
# Arguments: NAME PATH
systemctl disable --quiet --now -- "$1" || [ ! -e "$2" ] || exit
rm -f -- "$2" "/var/lib/systemd/timers/stamp-$1" || exit
systemctl daemon-reload || exit
systemctl reset-failed -- "$1" 2>/dev/null
:
