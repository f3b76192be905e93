#!/bin/sh
# Removes an allow rule from ufw. Arguments: BACKUPS, then the rule as ufw takes it.
# The files are backed up, since undoing by adding the rule again would put it last, where an earlier rule may override it.
backups=$1
shift
mkdir -p -m 0700 -- "$backups" && cp -p -- /etc/ufw/user.rules /etc/ufw/user6.rules "$backups" || exit
ufw delete allow "$@"
