"""What we keep on a host: `/var/lib/provision`, and how a file there or elsewhere is replaced.

pending      owed work, one `name<TAB>summary` a line
state.json   what was set up by us; no secrets
backup/      what was replaced, the last 10 of each file
lock         who holds the host (the lock itself is on the folder)
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from provision.host.pending import Handler
from provision.shell import Command, sh

HOME: Final = "/var/lib/provision"
PENDING: Final = f"{HOME}/pending"
STATE: Final = f"{HOME}/state.json"
BACKUP: Final = f"{HOME}/backup"

ASK_PENDING: Final = sh("test ! -e %s || cat %s", PENDING, PENDING)
ASK_STATE: Final = sh("test ! -e %s || cat %s", STATE, STATE)

_MAKE_HOME: Final = f"mkdir -p -m 0700 {HOME}"

CHANGED_MEANWHILE: Final = 79  # an exit code that programs leave alone

# The new file stands beside the old one under a fixed name, so that a killed run leaves at most that one
# name, and the next run writes over it. `sync FILE` is coreutils >= 8.24.
_REPLACE: Final = """
set -e
path=%s mode=%s owner=%s check=%s keep=%s expected=%s
path=$(readlink -m -- "$path")
dir=$(dirname -- "$path") new=$(dirname -- "$path")/.$(basename -- "$path").provision
mkdir -p -- "$dir"
trap 'rm -f -- "$new"' EXIT
(umask 077; cat > "$new")
chown -- "$owner" "$new"; chmod -- "$mode" "$new"
if [ "$keep" = yes ] && [ -e "$path" ]; then chown --reference="$path" -- "$new"; chmod --reference="$path" -- "$new"; fi
if [ -n "$check" ]; then export new; eval "$check"; fi
sync -- "$new"
if [ -n "$expected" ] && [ "$(cat -- "$path" 2>/dev/null | sha256sum)" != "$expected  -" ]; then
  echo "$path was changed by somebody else meanwhile" >&2
  exit %s
fi
if [ -e "$path" ]; then
  backup=%s/$(printf '%%s' "${path#/}" | tr / _)
  mkdir -p -m 0700 %s
  (umask 077; cp -- "$path" "$backup.$(date -u +%%Y%%m%%dT%%H%%M%%S.%%N)")
  ls -1r -- "$backup".[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]T* | tail -n +11 | while IFS= read -r old; do rm -f -- "$old"; done
fi
mv -f -- "$new" "$path"
sync -- "$dir"
"""


def replace(
    path: str,
    content: str | bytes,
    *,
    mode: str,
    owner: str,
    check: str = "",
    keep: bool = False,
    seen: bytes | None = None,
) -> Command:
    """Replaces a file atomically: same folder, checked, fsynced, the previous one backed up, renamed.

    check   shell text that judges the new file, named `$new`; non-zero refuses it
    keep    keep the owner and mode of a file that is there
    seen    what the file held when it was looked at: if it holds something else now, nothing is replaced, and the
            script ends with CHANGED_MEANWHILE; None replaces whatever is there
    A symlink is followed. The content travels on standard input.
    """
    expected = hashlib.sha256(seen).hexdigest() if seen is not None else ""
    command = sh(
        _REPLACE, path, mode, owner, check, "yes" if keep else "no", expected, CHANGED_MEANWHILE, BACKUP, BACKUP
    )
    return command.reading(content)


# Written through cat: on a full disk the shell's own printf says "I/O error", and cat what it is.
def journal(handlers: tuple[Handler, ...]) -> str:
    """Shell text that writes owed work down, before the change that owes it; "" when nothing is owed."""
    lines = [
        sh(
            "cut -f1 -- %s 2>/dev/null | grep -qxF -e %s || printf '%%s\\n' %s | cat >> %s",
            PENDING,
            one.name,
            f"{one.name}\t{one.summary}",
            PENDING,
        )
        for one in handlers
    ]
    lines += [
        sh("test ! -d %s || touch %s/stale", job_folder(one.name), job_folder(one.name))
        for one in handlers
        if one.detached
    ]
    if not lines:
        return ""
    return "\n".join([_MAKE_HOME, *(line.script for line in lines), sh("sync -- %s", PENDING).script])


def job_folder(name: str) -> str:
    """Where a step that outlives the connection keeps its output and result."""
    return f"{HOME}/job/" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def settle(handler: Handler) -> str:
    """Shell text that strikes paid work off `pending`."""
    return sh(
        "if [ -e %s ]; then awk -F '\\t' -v name=%s '$1 != name' %s > %s.new || exit; "
        "if [ -s %s.new ]; then mv -f %s.new %s; else rm -f %s %s.new; fi; fi",
        PENDING, handler.name, *[PENDING] * 7,
    ).script  # fmt: skip


def remember(state: Mapping[str, Any]) -> str:
    """Shell text that replaces `state.json`."""
    text = json.dumps(state, indent=1, sort_keys=True)
    return "\n".join(
        [
            _MAKE_HOME,
            sh(
                "(umask 077; printf '%%s\\n' %s | cat > %s.new) && sync -- %s.new && mv -f %s.new %s",
                text,
                STATE,
                STATE,
                STATE,
                STATE,
            ).script,
        ]
    )


def read_state(text: str) -> dict[str, Any]:
    """What `state.json` says; an empty text is an empty state. Raises ValueError for a broken file."""
    if not text.strip():
        return {}
    state = json.loads(text)
    if not isinstance(state, dict):
        raise ValueError("not a JSON object")
    return state


def read_pending(text: str) -> dict[str, str]:
    """Owed work by name, with its summary."""
    entries = (line.partition("\t") for line in text.splitlines() if line.strip())
    return {name: summary for name, _, summary in entries}
