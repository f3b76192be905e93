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
from provision.host.scripts import script
from provision.shell import Command, sh

HOME: Final = "/var/lib/provision"
PENDING: Final = f"{HOME}/pending"
STATE: Final = f"{HOME}/state.json"
BACKUP: Final = f"{HOME}/backup"

ASK_PENDING: Final = sh("test ! -e %s || cat %s", PENDING, PENDING)
ASK_STATE: Final = sh("test ! -e %s || cat %s", STATE, STATE)

CHANGED_MEANWHILE: Final = 79  # an exit code that programs leave alone


def replace(
    path: str,
    content: str | bytes,
    *,
    mode: str,
    owner: str,
    check: str = "",
    keep: bool = False,
    seen: bytes | None = None,
    rollback: str = "",
) -> Command:
    """A command that replaces a file atomically: same folder, checked, fsynced, the previous one backed up, renamed.

    check     shell text that checks the new file, named `$new`; non-zero refuses it
    keep      keep the owner and mode of a file that exists
    seen      what the file held when it was observed: if it holds something else now, nothing is replaced, and the
              script ends with CHANGED_MEANWHILE; None replaces any content
    rollback  where the file is copied to before its first change whose handler has not run yet; "" for nowhere
    A symlink is followed. The content travels on standard input.
    """
    expected = hashlib.sha256(seen).hexdigest() if seen is not None else ""
    kept = "yes" if keep else "no"
    return script("replace_file", path, mode, owner, check, kept, expected, BACKUP, rollback).reading(content)


def journal(handlers: tuple[Handler, ...]) -> str:
    """Shell text that writes handlers to the list of pending ones; "" for none."""
    if not handlers:
        return ""
    fields = [[one.name, one.summary, job_folder(one.name) if one.detached else ""] for one in handlers]
    return script("add_pending", PENDING, *(one for group in fields for one in group)).script


def job_folder(name: str) -> str:
    """Where a step that outlives the connection keeps its output and result."""
    return f"{HOME}/job/" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def settle(handler: Handler) -> str:
    """Shell text that removes a handler from the list of pending ones."""
    return script("clear_pending", PENDING, handler.name).script


def remember(state: Mapping[str, Any]) -> str:
    """Shell text that replaces `state.json`."""
    return script("write_state", STATE, json.dumps(state, indent=1, sort_keys=True)).script


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
