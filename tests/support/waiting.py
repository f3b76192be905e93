"""Waiting for what other processes and threads do."""

from __future__ import annotations

import time
from collections.abc import Callable

_INTERVAL = 0.02  # seconds between two looks


def wait_for(look: Callable[[], bool], what: str, seconds: float = 20) -> None:
    """Waits until the condition holds; fails after `seconds`."""
    ends = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < ends, f"not within {seconds} s: {what}"
        time.sleep(_INTERVAL)
