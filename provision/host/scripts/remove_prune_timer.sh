#!/bin/sh
# Removes the prune timer. Arguments: its script, its service, its timer.
systemctl disable --quiet --now provision-prune.timer
rm -f -- "$1" "$2" "$3" /var/lib/systemd/timers/stamp-provision-prune.timer || exit 1
rmdir -- "${1%/*}" 2>/dev/null
systemctl daemon-reload
