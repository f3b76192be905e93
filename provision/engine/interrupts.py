"""Ctrl-C, taken where it can be answered."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any


class Interrupts:
    """While it is entered, Ctrl-C breaks nothing off: it is noted, and answered by who follows the jobs.

    No exception is raised for it. One raised in the middle of other code is lost where that code may not fail (a
    finalizer), and leaves locks taken.
    """

    def __init__(self) -> None:
        self._pressed: SimpleQueue[bool] = SimpleQueue()  # True: Ctrl-C; False: a job has ended
        self._previous: Any = None

    def __enter__(self) -> Interrupts:
        # A process that ignores Ctrl-C (nohup) goes on doing so; signals can be taken in the main thread alone.
        default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if default and threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, lambda *_: self._pressed.put(True))
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def during(self, jobs: Sequence[Future[Any]]) -> Iterator[None]:
        """Waits until every job has ended. Yields once for each Ctrl-C, those that came earlier first."""
        for job in jobs:
            job.add_done_callback(lambda _: self._pressed.put(False))
        left = len(jobs)
        while left:
            if self._pressed.get():
                yield
            else:
                left -= 1
