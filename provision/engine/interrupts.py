"""Ctrl-C, taken where it can be answered."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any


class Interrupts:
    """While it is entered, Ctrl-C cuts short a `wait` and nothing else: one that comes at another time is kept for it."""

    def __init__(self) -> None:
        self._kept = 0
        self._waiting = False
        self._previous: Any = None

    def __enter__(self) -> Interrupts:
        # A process that ignores Ctrl-C (nohup) goes on doing so; signals can be taken in the main thread alone.
        default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if default and threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._caught)
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def wait(self, until: Callable[[], object]) -> bool:
        """Calls `until`, which waits for something. False when Ctrl-C came first; one that came earlier counts."""
        try:
            self._waiting = True
            if not self._kept:
                until()
            self._waiting = False
        except KeyboardInterrupt:
            self._kept = self._kept or 1
        if self._kept:
            self._kept -= 1
            return False
        return True

    def _caught(self, *_: object) -> None:
        self._kept += 1
        if self._waiting:
            self._waiting = False
            raise KeyboardInterrupt
