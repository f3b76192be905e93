#!/bin/sh
# Installs the prune timer. Arguments: three pairs of PATH CONTENT: the script, its service, its timer.
set -e
put() {
  mkdir -p -- "${2%/*}"
  printf '%s' "$3" > "$2.provision"
  chmod "$1" "$2.provision"
  mv -f -- "$2.provision" "$2"
}
put 0755 "$1" "$2"
put 0644 "$3" "$4"
put 0644 "$5" "$6"
systemctl daemon-reload
systemctl enable --quiet provision-prune.timer
systemctl restart provision-prune.timer
