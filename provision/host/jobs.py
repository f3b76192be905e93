"""Steps that outlive the connection.

The step runs in a session of its own with its output in `/var/lib/provision/job/NAME/`; the shell follows
it, and says what the step had on stderr when it fails: a step keeps that for the cause. When the connection breaks the step goes on. Who comes next and wants the same step finds it
running, or ended, and takes its output and result instead of starting it again.

A job that was started and never picked up is its owner's debt: `pending` still names it. A change that
owes the step anew marks a job of before it as stale (`host_files.journal`): its result says nothing of that change.
"""

from __future__ import annotations

from provision.host.files import job_folder
from provision.shell import Command, sh

# `done` holds the exit code and is renamed into place, so it is whole or absent; `room` is kept free for it and for the
# step's last words, as the step may have filled the disk. The boot's id tells a
# process id of this boot from one that a reboot made meaningless.
_FOLLOW = """
job=%s
boot=$(cat /proc/sys/kernel/random/boot_id)
alive() { [ -s "$job/pid" ] && [ "$(cat "$job/boot")" = "$boot" ] && kill -0 "$(cat "$job/pid")" 2>/dev/null; }
if [ -e "$job/stale" ]; then
  if alive; then
    echo "waiting for one that began before the last change"
    tail -n 0 -s 0.2 -f --pid="$(cat "$job/pid")" -- "$job/out" >/dev/null
  fi
  rm -rf -- "$job"
fi
if alive; then
  echo "picking up: it is already running since $(date -u -r "$job/pid" +%%FT%%TZ)"
elif [ -s "$job/done" ]; then
  echo "picking up: it ended while nobody was connected"
else
  # What an earlier boot or a full disk left says nothing of this step.
  rm -rf -- "$job"
  mkdir -p -m 0700 -- "$job" && cat > "$job/script" && cat /proc/sys/kernel/random/boot_id > "$job/boot" &&
    head -c 65536 /dev/zero > "$job/room" || { rm -rf -- "$job"; exit 1; }
  setsid sh -c 'cd / && echo $$ > "$1/pid" && {
    said=$({ sh "$1/script" 2>&1 > "$1/out" < /dev/null; printf "\\n%%s" "$?"; } | tee "$1/why"); code=${said##*[!0-9]}
    rm -f "$1/room"; printf %%s "${said%%?"$code"}" > "$1/why"; echo "$code" > "$1/code"; mv "$1/code" "$1/done"; }' sh "$job" </dev/null >/dev/null 2>&1 &
  until [ -s "$job/pid" ]; do
    kill -0 "$!" 2>/dev/null || [ -s "$job/pid" ] || { echo "it could not be started" >&2; rm -rf -- "$job"; exit 1; }
    sleep 0.05
  done
fi
touch -- "$job/out"
tail -n +1 -s 0.2 -f --pid="$(cat "$job/pid")" -- "$job/out"
if [ -s "$job/done" ]; then code=$(cat "$job/done"); else echo "it was ended from outside" >&2; code=143; fi
[ "$code" = 0 ] || cat -- "$job/why" >&2
rm -rf -- "$job"
rmdir -- "${job%%/*}" 2>/dev/null
exit "$code"
"""


def detach(name: str, command: Command) -> Command:
    """The command, run so that it outlives the connection. It must not read standard input."""
    if command.stdin:
        raise ValueError(f"{name}: a step that outlives the connection cannot read from it")
    follow = sh(_FOLLOW, job_folder(name))
    return Command(follow.script, command.script.encode())
