"""Shell text for steps of the Docker CLI: a login that is thrown away, last words that are kept, one message for a failure."""

from __future__ import annotations

from typing import Final

# `work` is a folder on a memory file system, since Docker keeps logins in the clear; it goes with the shell.
WORK: Final = """
fail() { printf '%%s: %%s\\n' "$1" "$2" >&2; [ -z "$3" ] || printf '%%s\\n' "$3" >&2; exit 1; }
work=$(mktemp -d /dev/shm/provision-docker.XXXXXX) && DOCKER_CONFIG="$work" && export DOCKER_CONFIG || exit 1
trap 'rm -rf -- "$work"' EXIT
trap 'exit 143' TERM
"""

# `login REGISTRY USER`, its password in $password. Docker knows its Hub by another name than images do.
LOGIN: Final = """
login() {
  [ -n "$2" ] || return 0
  said=$(printf '%%s' "$password" | docker login -u "$2" --password-stdin "$1" 2>&1) ||
    fail "login to $1 as $2" "$(printf '%%s' "$said" | tail -n 2)" 'check the login in the inventory, and that the host reaches the registry'
}
"""

# `told COMMAND…` runs it with its output shown as it comes; its last lines are in $work/last.
TOLD: Final = """
told() {
  { { "$@"; echo $? > "$work/code"; } 2>&1 | { tee /dev/fd/3 | tail -n 12 > "$work/last"; } 3>&1; }
  return "$(cat "$work/code")"
}
"""

# `is_ours CONTAINER`: it is there, and bears the label of the app $app.
OURS: Final = """
is_ours() { [ "$(docker container inspect -f '{{with .Config.Labels}}{{with index . "provision.app"}}{{.}}{{end}}{{end}}' "$1" 2>/dev/null)" = "$app" ]; }
"""
