"""What planning imports is imported while the hosts answer: then it is nobody's wait."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from importlib import import_module

from provision.resources.base import Resource


class Warm:
    """The libraries that these resources plan with; `up` brings them in, once, beside the caller."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        self._names = list(dict.fromkeys(name for one in resources for name in one.libraries))
        self._lock = threading.Lock()

    def up(self) -> None:
        """Starts it, and returns at once. The second call and further ones do nothing."""
        with self._lock:
            names, self._names = self._names, []
        if names:
            threading.Thread(target=_bring_in, args=(names,), name="warm", daemon=True).start()


def _bring_in(names: list[str]) -> None:
    for name in names:
        import_module(name)
