"""The difference between config.toml's data and what is wanted: the edits, and the resulting data."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from provision.editing.document import same
from provision.editing.toml.model import (
    Action,
    Data,
    Entry,
    Path,
    RunnerId,
    WantedRunner,
    dotted,
    entries_in,
    match,
    same_url,
    undotted,
)
from provision.errors import Refused


@dataclass(frozen=True)
class Put:
    """The value at `path` becomes `value`. The enclosing tables exist already."""

    path: Path
    value: Any = field(repr=False)


class Drop(NamedTuple):
    """The key, table or entry at `path` is removed."""

    path: Path


@dataclass(frozen=True)
class Append:
    """One more `[[runners]]` entry at the end."""

    entry: Data = field(repr=False)


Edit = Put | Drop | Append


@dataclass
class Plan:
    """Edits in the order in which they must be applied, what they amount to, and the resulting data."""

    data: Data = field(repr=False)
    edits: list[Edit] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)

    def merge(self, above: Path, want: Mapping[str, Any], owned: Collection[str] = ()) -> list[str]:
        """Merge `want` into the table at `above`, and remove the `owned` keys that `want` lacks.

        Returns descriptions of the changes: "set docker.image", "remove limit".
        """
        done = []
        for path, value in list(_differences(above, _at(self.data, above), want)):
            self._put(path, value)
            done.append(f"set {dotted(path[len(above) :])}")
        for key in sorted(owned):
            keys = undotted(key)
            if not _has(want, keys) and _has(_at(self.data, above), keys) and self._drop(above, keys, want):
                done.append(f"remove {key}")
        return done

    def append(self, entry: Data) -> None:
        """Add an entry to `[[runners]]`."""
        self.edits.append(Append(entry))
        self.data.setdefault("runners", []).append(entry)

    def drop_entry(self, index: int) -> None:
        """Remove an entry of `[[runners]]`."""
        self.edits.append(Drop(("runners", index)))
        del self.data["runners"][index]

    def _put(self, path: Path, value: Any) -> None:
        self.edits.append(Put(path, value))
        _at(self.data, path[:-1])[path[-1]] = copy.deepcopy(value)

    def _drop(self, above: Path, keys: Sequence[str], want: Mapping[str, Any]) -> bool:
        """Remove a key, and the tables that are empty without it. Returns False if the key is a table with other keys in it."""
        if isinstance(_at(self.data, above + tuple(keys)), dict) and _at(self.data, above + tuple(keys)):
            return False
        while len(keys) > 1 and len(_at(self.data, above + tuple(keys[:-1]))) == 1:
            keys = keys[:-1]
            if _has(want, keys):  # wanted but empty: written again, since a table may exist only by its keys
                self._put(above + tuple(keys), {})
                return True
        path = above + tuple(keys)
        self.edits.append(Drop(path))
        del _at(self.data, path[:-1])[path[-1]]
        return True


def make_plan(
    data: Data,
    top: Mapping[str, Any],
    runners: Sequence[WantedRunner],
    owned_top: Collection[str],
    dropped: Sequence[RunnerId],
    owned_keys: Mapping[str, Collection[str]],
) -> Plan:
    """Plan everything that `reconcile` does. Raises Refused for changes that are impossible or unsafe."""
    plan = Plan(copy.deepcopy(data))
    top = plain(top)
    if "runners" in top:
        raise ValueError("runners are given as WantedRunner, not among the top-level keys")
    if done := plan.merge((), top, owned_top):
        plan.actions.append(Action("update", "", ", ".join(done)))
    found = entries_in(data)
    matches = match(found, runners, dropped)
    new: list[Data] = []
    for want, index in zip(runners, matches.of, strict=True):
        if index is None:
            new.append(_new_entry(want))
            plan.actions.append(Action("create", want.name, f"add runner {want.name} ({want.url})"))
        elif done := plan.merge(("runners", index), _wanted_keys(want, found[index]), owned_keys.get(want.name, ())):
            plan.actions.append(Action("update", want.name, f"{want.name}: {', '.join(done)}"))
    for index in sorted(matches.surplus, reverse=True):
        plan.drop_entry(index)
        entry, why = found[index], matches.surplus[index]
        plan.actions.append(Action("delete", entry.name, f"remove runner {entry.name} ({entry.url}): {why}"))
    for entry_data in new:
        plan.append(entry_data)
    return plan


def plain(value: Any) -> Any:
    """Return mappings as dicts and sequences as lists. Raises TypeError for values that TOML lacks: None, a Secret."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if not isinstance(value, str | bool | int | float | datetime.date | datetime.time):
        raise TypeError(f"{type(value).__name__} cannot be written in TOML")
    return value


def _new_entry(want: WantedRunner) -> Data:
    if want.token is None:
        raise Refused(
            f"runner {want.name} has no entry in config.toml, and its token is not known",
            hint="give its token in the inventory, or have it created again through the API",
        )
    entry: Data = {"name": want.name, "url": want.url}
    if want.id is not None:
        entry["id"] = want.id
    entry |= {"token": want.token} | plain(want.settings)
    return entry


def _wanted_keys(want: WantedRunner, found: Entry) -> Data:
    """The keys that an existing entry must have; another URL of the same server stays."""
    keys: Data = {"name": want.name}
    if not same_url(found.url, want.url):
        keys["url"] = want.url
    if want.id is not None:
        keys["id"] = want.id
    if want.token is not None:
        keys["token"] = want.token
    keys |= plain(want.settings)
    return keys


def _differences(above: Path, have: Data, want: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    for key, value in want.items():
        was = have.get(key)
        if isinstance(value, dict) and isinstance(was, dict):
            yield from _differences((*above, key), was, value)
        elif key not in have or not same(was, value):
            yield (*above, key), value


def _at(data: Any, path: Path) -> Any:
    for key in path:
        data = data[key]
    return data


def _has(table: Mapping[str, Any], keys: Sequence[Any]) -> bool:
    node: Any = table
    for key in keys:
        if not isinstance(node, Mapping) or key not in node:
            return False
        node = node[key]
    return True
