"""Waiting until no CI job runs on a host, before a step that would end it."""

from __future__ import annotations

from typing import Final

from provision.host.scripts import script

LIMIT_SECONDS: Final = 1800


def wait_for_jobs(limit: int = LIMIT_SECONDS) -> str:
    """Shell text that returns when no job runs, and ends the script with 1 after `limit` seconds."""
    return script("wait_for_ci_jobs", limit).script
