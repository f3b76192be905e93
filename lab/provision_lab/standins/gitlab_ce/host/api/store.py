"""Everything that GitLab remembers, in one JSON file that is replaced whole."""

from __future__ import annotations

import datetime
import json
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from ..paths import write_atomically  # noqa: TID252 - the package has another name on the host

Record = dict[str, Any]


class Store:
    """Entered by one thread at a time; written on leaving when something changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._dirty = False
        empty: Record = {"last_id": {}, "users": [], "tokens": [], "projects": [], "runners": [], "variables": []}
        self._data: Record = {**empty, "repositories": [], "branches": [], "merge_requests": []}
        if path.exists():
            self._data |= json.loads(path.read_text())

    def __enter__(self) -> Store:
        self._lock.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._dirty:
                write_atomically(self._path, json.dumps(self._data, indent=1) + "\n", 0o600)
                self._dirty = False
        finally:
            self._lock.release()

    def all(self, table: str) -> list[Record]:
        """The records of a table, oldest first."""
        records: list[Record] = self._data[table]
        return records

    def find(self, table: str, **wanted: Any) -> Record | None:
        """The first record with these values."""
        for record in self.all(table):
            if all(record.get(key) == value for key, value in wanted.items()):
                return record
        return None

    def add(self, table: str, record: Record) -> Record:
        """Keeps a record under a new id."""
        identity = self._data["last_id"].get(table, 0) + 1
        self._data["last_id"][table] = identity
        kept = {"id": identity, **record}
        self.all(table).append(kept)
        self.changed()
        return kept

    def remove(self, table: str, record: Record) -> None:
        """Forgets a record."""
        self.all(table).remove(record)
        self.changed()

    def changed(self) -> None:
        """Says that a record was changed in place."""
        self._dirty = True

    def new_id(self, name: str) -> int:
        """A number never given before under this name."""
        identity: int = self._data["last_id"].get(name, 0) + 1
        self._data["last_id"][name] = identity
        self.changed()
        return identity


def now() -> str:
    """The time as the API writes it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def age(moment: str) -> float:
    """Seconds since a time that `now` wrote."""
    then = datetime.datetime.fromisoformat(moment.replace("Z", "+00:00"))
    return (datetime.datetime.now(datetime.UTC) - then).total_seconds()
