"""Files under /etc/gitlab-standin that let a test make this package misbehave.

reconfigure-seconds          a reconfigure takes that long
fail-next-reconfigure        the next one fails before it changed anything; content: the message
fail-next-reconfigure-late   the next one fails after files were written and services restarted
seed.json                    users, tokens and projects (api/seed.py)
settings.json                {"legacy_registration": true, "registration_token": "…"}
api-faults.json              answers to give instead of the right ones (api/faults.py)
"""

from __future__ import annotations

import time
from pathlib import Path


def consume(folder: Path, name: str) -> str | None:
    """The text of a switch that works once, or None."""
    path = folder / name
    try:
        text = path.read_text().strip()
    except FileNotFoundError:
        return None
    path.unlink()
    return text or "switched to fail"


def linger(folder: Path) -> None:
    """Takes as long as `reconfigure-seconds` says."""
    try:
        seconds = float((folder / "reconfigure-seconds").read_text())
    except FileNotFoundError:
        return
    time.sleep(seconds)
