"""The program's folder on a host, `/var/lib/provision`, and replacing files on the host.

pending      handlers that have not run yet (`provision.host.pending`)
state.json   records (`provision.host.state`); no secrets
backup/      previous contents of replaced files, the last 10 of each file
rollback/    the content of a file before its first change whose handler has not succeeded yet (`scripts/lib/rollback.sh`)
api_token    on a GitLab host: the token for its API that the task `access` made
job/         detached jobs (`scripts/run_detached.sh`)
lock         describes the run that holds the host's lock (the lock itself is on the folder)
"""

from __future__ import annotations

import hashlib
from typing import Final

from provision.host.scripts import script
from provision.shell import Command

HOME: Final = "/var/lib/provision"
BACKUP: Final = f"{HOME}/backup"


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
    """A command that replaces a file atomically. It writes, checks and syncs a new file beside it, backs up, renames.

    check     shell text that checks the new file, named `$new`; non-zero refuses it
    keep      keep the owner and mode of a file that exists
    seen      what the file held when it was observed: if its content is different now, nothing is replaced, and the
              script ends with CHANGED_MEANWHILE; None replaces any content
    rollback  path of the copy made before the first change whose handler has not run yet; "" for no copy
    A symlink is followed if it belongs to root. The content travels on standard input. A step that fails before the new
    file is in place ends the script with NOTHING_CHANGED.
    """
    expected = hashlib.sha256(seen).hexdigest() if seen is not None else ""
    kept = "yes" if keep else "no"
    return script("replace_file", path, mode, owner, check, kept, expected, BACKUP, rollback).reading(content)
