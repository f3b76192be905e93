#!/bin/sh
# Runs a command that continues when the connection breaks, and prints its output.
# Argument: the job's folder. Standard input: the command's script.
# Prints the command's output at once; after a failure also its standard error again. Exits with the command's code.
#
# The command runs in a session of its own. When the connection breaks, it continues; the next run finds it running or
# ended, and takes its output and result instead of starting it again.
#   script, out, why   the command, its output, its standard error
#   pid, start, boot   its process, when that started, and the id of the boot in which both are valid
#   done               its exit code; renamed into place, so that it is complete or absent
#   room               space kept free for `done` and `why`, as the command may fill the disk; a part of it is freed for
#                      `start` and `pid`, so that a full disk is found, and named, before the command is started
#   stale              the job began before the last change: its result does not count
. ./lib/process.sh
job=$1
boot=$(cat /proc/sys/kernel/random/boot_id)
alive() {
  [ -s "$job/pid" ] && [ "$(cat "$job/boot")" = "$boot" ] && start=$(start_of "$(cat "$job/pid")") || return
  if [ -e "$job/start" ]; then
    [ "$start" = "$(cat "$job/start")" ]
  else
    # A job of version 0.1.0: its folder is one of its arguments.
    tr '\0' '\n' < "/proc/$(cat "$job/pid")/cmdline" 2>/dev/null | grep -qxF -e "$job"
  fi
}
if [ -e "$job/stale" ]; then
  if alive; then
    echo "waiting for an earlier run of this step, which began before the last change"
    tail -n 0 -s 0.2 -f --pid="$(cat "$job/pid")" -- "$job/out" >/dev/null
  fi
  rm -rf -- "$job"
fi
if alive; then
  echo "resuming: the step has been running since $(date -u -r "$job/pid" +%FT%TZ)"
elif [ -s "$job/done" ]; then
  echo "resuming: the step ended while no run was connected"
else
  # Files of an earlier boot or of a full disk are not a result of this step.
  rm -rf -- "$job"
  mkdir -p -m 0700 -- "$job" && cat > "$job/script" && cat /proc/sys/kernel/random/boot_id > "$job/boot" &&
    head -c 81920 /dev/zero > "$job/room" && truncate -s 65536 "$job/room" || { rm -rf -- "$job"; exit 1; }
  # shellcheck disable=SC2016 # the inner shell expands this
  setsid sh -c 'cd / && job=$1 && stat=$(cat /proc/$$/stat) && set -f && set -- ${stat##*) } && set +f &&
    echo "${20}" > "$job/start" && echo $$ > "$job/pid" && {
    output=$({ sh "$job/script" 2>&1 > "$job/out" < /dev/null; printf "\n%s" "$?"; } | tee "$job/why"); code=${output##*[!0-9]}
    rm -f "$job/room"; printf %s "${output%?"$code"}" > "$job/why"; echo "$code" > "$job/code"; mv "$job/code" "$job/done"; }' sh "$job" </dev/null >/dev/null 2>&1 &
  until [ -s "$job/pid" ]; do
    kill -0 "$!" 2>/dev/null || [ -s "$job/pid" ] || { echo "the step could not be started" >&2; rm -rf -- "$job"; exit 1; }
    sleep 0.05
  done
fi
touch -- "$job/out"
tail -n +1 -s 0.2 -f --pid="$(cat "$job/pid")" -- "$job/out"
if [ -s "$job/done" ]; then code=$(cat "$job/done"); else echo "the step was killed" >&2; code=143; fi
[ "$code" = 0 ] || cat -- "$job/why" >&2
rm -rf -- "$job"
rmdir -- "${job%/*}" 2>/dev/null
exit "$code"
