"""Docker's restart, as owed work that takes itself back.

`dockerd --validate` does not find everything (a log driver that does not exist), and 20.10 has no such check. When
Docker does not come up with the new daemon.json, the one of before the first unpaid edit is put back.
"""

from __future__ import annotations

from typing import Final

from provision.resources.base import Handler
from provision.resources.ci_jobs import LIMIT_SECONDS, wait_for_jobs
from provision.resources.host_files import HOME, PENDING
from provision.shell import Command, sh

DAEMON_JSON: Final = "/etc/docker/daemon.json"
ASIDE: Final = f"{HOME}/rollback/daemon.json"

# What Docker says when it does not start is in its journal, not on our terminal.
_SCRIPT = """
path=%s aside=%s owed=%s
restart() {
  systemctl reset-failed docker 2>/dev/null
  systemctl restart docker && docker version >/dev/null
}
drop_aside() { rm -f -- "$aside" "$aside.none"; rmdir -- "$(dirname -- "$aside")" 2>/dev/null; :; }
strike() {
  [ -e "$owed" ] && awk -F '\\t' '$1 != "restart-docker"' "$owed" > "$owed.new" || return 0
  if [ -s "$owed.new" ]; then mv -f -- "$owed.new" "$owed"; else rm -f -- "$owed" "$owed.new"; fi
}
put_back() {
  if [ -e "$aside" ]; then cp -p -- "$aside" "$path.new" && sync -- "$path.new" && mv -f -- "$path.new" "$path"
  else rm -f -- "$path"; fi
}
since=$(date '+%%F %%T')
if restart; then drop_aside; exit 0; fi
journalctl -u docker --since "$since" --no-pager -o cat | grep -v '^docker.service: \\|^Start' | tail -n 5 >&2
if [ ! -e "$aside" ] && [ ! -e "$aside.none" ]; then
  echo "$path is as it was edited: there is no earlier one to put back" >&2
elif ! put_back; then
  rm -f -- "$path.new"
  echo "the previous $path could not be put back: it is kept as $aside" >&2
elif restart; then
  drop_aside; strike
  echo "the previous $path is back in force" >&2
else
  echo "the previous $path is back in place, but Docker does not start with it either" >&2
fi
exit 1
"""

# What dockerd takes over on SIGHUP; all else needs a restart.  Source: dockerd(8), "configuration reload behavior".
RELOADED: Final = frozenset(
    {
        *("debug", "labels", "live-restore", "registry-mirrors", "insecure-registries", "shutdown-timeout"),
        *("max-concurrent-downloads", "max-concurrent-uploads", "max-download-attempts"),
        *("runtimes", "default-runtime", "features"),
    }
)
RELOAD: Final = Handler(
    "reload-docker", "reload docker", sh("systemctl reload docker && docker version >/dev/null"), deadline=60
)


def restart(*, now: bool = False) -> Handler:
    """The restart. Containers end with it, so it waits until no CI job runs on the host, unless it is to be `now`."""
    script = sh(_SCRIPT, DAEMON_JSON, ASIDE, PENDING)
    waiting = "" if now else wait_for_jobs()
    return Handler(
        "restart-docker",
        "restart docker",
        Command(f"{waiting}{script.script}"),
        deadline=300.0 + (0 if now else LIMIT_SECONDS),
        takes_back=True,
    )
