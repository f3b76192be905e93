#!/bin/sh
# Removes an allow rule from ufw. Arguments: BACKUPS, then the rule as ufw takes it.
# A rule that is added again comes last, where an earlier one may override it: to undo this, the files are restored.
backups=$1
shift
mkdir -p -m 0700 -- "$backups" && cp -p -- /etc/ufw/user.rules /etc/ufw/user6.rules "$backups" || exit
ufw delete allow "$@"
