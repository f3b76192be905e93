"""Waiting for what other processes and threads do."""

from __future__ import annotations

import time
from collections.abc import Callable

_INTERVAL = 0.02  # seconds between two looks at first
_LONGEST = 0.5  # seconds; a look at a host takes 50 ms of processor time, which the host and other tests need
_PART = 0.02  # of the time that was waited so far


def wait_for(look: Callable[[], bool], what: str, seconds: float = 20) -> None:
    """Waits until the condition holds; fails after `seconds`. The longer it waits, the less often it looks."""
    started = time.monotonic()
    while not look():
        waited = time.monotonic() - started
        assert waited < seconds, f"not within {seconds} s: {what}"
        time.sleep(min(max(_INTERVAL, waited * _PART), _LONGEST))
