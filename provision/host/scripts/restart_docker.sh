#!/bin/sh
# Restarts Docker. When it does not start, the previous daemon.json is restored and Docker is restarted with that.
# Arguments: PATH of daemon.json, its rollback COPY, the list of PENDING handlers.
# Prints the cause and the outcome on standard error, and ends with 1.
. ./lib/files.sh
. ./lib/pending.sh
. ./lib/rollback.sh
path=$1 copy=$2 pending=$3
restart() {
  systemctl reset-failed docker 2>/dev/null
  systemctl restart docker && docker version >/dev/null
}
since=$(date '+%F %T')
if restart; then drop_copy "$copy"; exit 0; fi
# Docker writes the cause to its journal, not to our output.
journalctl -u docker --since "$since" --no-pager -o cat | grep -av '^docker.service: \|^Start' | tail -n 5 >&2
if ! has_copy "$copy"; then
  echo "there is no earlier version of $path to restore: it keeps the new settings" >&2
elif ! restore_copy "$path" "$copy"; then
  echo "the previous $path could not be restored: it is kept as $copy" >&2
elif restart; then
  drop_copy "$copy"
  clear_pending "$pending" restart-docker
  echo "rolled back to the previous $path" >&2
else
  echo "rolled back to the previous $path, but Docker does not start with it either" >&2
fi
exit 1
