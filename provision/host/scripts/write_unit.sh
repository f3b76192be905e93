#!/bin/sh
# Replaces the file of a systemd unit and reloads systemd's configuration.
# Arguments: PATH BACKUPS (as in lib/files.sh). Standard input: the new content.
. ./lib/files.sh
replace_file "$1" 0644 root:root "" no "" "$2" || exit
systemctl daemon-reload
