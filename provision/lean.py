"""Libraries without what they import and we never use: a fifth of the time that `provision` takes to start.

fabric brings unittest.mock, and with it asyncio, and a YAML parser for configuration files that are not read here;
paramiko importlib.metadata, and with it email and zipfile, to tell its own version; pydantic the same, to search for
plugins that are not wanted here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any


class _Later(ModuleType):
    """Stands in for a module: each of its functions imports the real one when it is called."""

    def __getattr__(self, attribute: str) -> Callable[..., Any]:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        name = self.__name__

        def call(*arguments: Any, **options: Any) -> Any:
            # Called while it still stands in, by another thread say: it makes room for the real one.
            if sys.modules.get(name) is self:
                sys.modules.pop(name, None)
            return getattr(import_module(name), attribute)(*arguments, **options)

        return call


def _version(name: str) -> str:
    """importlib.metadata.version, for a distribution that is installed as a folder: by the name of its records."""
    for folder in sys.path:
        for record in Path(folder).glob(f"{name}-*.dist-info"):
            return record.stem.rpartition("-")[2]
    return import_module("importlib.metadata").version(name)  # type: ignore[no-any-return]


@contextmanager
def without(*names: str) -> Iterator[None]:
    """What is imported inside is given stand-ins for these modules, where they are not loaded already.

    Who imports one of them afterwards gets the real one.
    """
    stand_ins = {name: _Later(name) for name in names if name not in sys.modules}
    if metadata := stand_ins.get("importlib.metadata"):
        vars(metadata)["version"] = _version
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]
