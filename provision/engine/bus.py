"""Events reach listeners one at a time, in the order in which they happened."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from provision.engine.events import Event, Listener


class Bus:
    """Hands each event to every listener; safe to call from any thread."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = tuple(listeners)
        self._lock = threading.Lock()

    def tell(self, event: Event) -> None:
        """Delivers one event."""
        with self._lock:
            for listener in self._listeners:
                listener.on(event)

    def close(self) -> None:
        """Lets each listener finish (write its file, leave its screen)."""
        with self._lock:
            for listener in self._listeners:
                listener.close()
