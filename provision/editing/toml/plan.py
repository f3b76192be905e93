"""The difference between a file's data and what is wanted: edits, and the data they must lead to.

The way in: text and options to text.
"""

from __future__ import annotations

import copy
import datetime
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from provision.editing.toml.model import (
    Action,
    Entry,
    Path,
    Reconciled,
    RunnerId,
    Table,
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
    """The value at `path` becomes `value`; what encloses it is there already."""

    path: Path
    value: Any = field(repr=False)


@dataclass(frozen=True)
class Drop:
    """What stands at `path` goes: a key, a table, or a whole entry."""

    path: Path


@dataclass(frozen=True)
class Append:
    """One more `[[runners]]` entry at the end."""

    entry: Table = field(repr=False)


Edit = Put | Drop | Append


@dataclass
class Plan:
    """Edits in the order they must be done, what they amount to, and the data that must come out."""

    data: Table = field(repr=False)
    edits: list[Edit] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)

    def merge(self, above: Path, want: Mapping[str, Any], owned: Collection[str] = ()) -> list[str]:
        """Brings the table at `above` to `want`; what `owned` names and `want` lacks goes. Returns what it did."""
        done = []
        for path, value in list(_differences(above, _at(self.data, above), want)):
            self._put(path, value)
            done.append(f"set {dotted(path[len(above) :])}")
        for key in sorted(owned):
            keys = undotted(key)
            if not _in(want, keys) and _in(_at(self.data, above), keys) and self._drop(above, keys, want):
                done.append(f"remove {key}")
        return done

    def _put(self, path: Path, value: Any) -> None:
        self.edits.append(Put(path, value))
        _at(self.data, path[:-1])[path[-1]] = copy.deepcopy(value)

    def _drop(self, above: Path, keys: Sequence[str], want: Mapping[str, Any]) -> bool:
        """Takes a key out, and the tables that nothing is left in. False: others have filled the table since."""
        if isinstance(_at(self.data, above + tuple(keys)), dict) and _at(self.data, above + tuple(keys)):
            return False
        while len(keys) > 1 and len(_at(self.data, above + tuple(keys[:-1]))) == 1:
            keys = keys[:-1]
            if _in(want, keys):  # wanted, though empty: written anew, since a table may exist by its keys alone
                self._put(above + tuple(keys), {})
                return True
        path = above + tuple(keys)
        self.edits.append(Drop(path))
        del _at(self.data, path[:-1])[path[-1]]
        return True


def make_plan(
    data: Table,
    top: Mapping[str, Any],
    runners: Sequence[WantedRunner],
    owned_top: Collection[str],
    dropped: Sequence[RunnerId],
    owned_keys: Mapping[str, Collection[str]],
) -> Plan:
    """All that must happen to `data`. Raises Refused for what cannot or must not be done."""
    plan = Plan(copy.deepcopy(data))
    top = plain(top)
    if "runners" in top:
        raise ValueError("runners are given as WantedRunner, not among the top-level keys")
    if done := plan.merge((), top, owned_top):
        plan.actions.append(Action("update", "", ", ".join(done)))
    found = entries_in(data)
    matches = match(found, runners, dropped)
    new: list[Table] = []
    for want, index in zip(runners, matches.of, strict=True):
        if index is None:
            new.append(_fresh(want))
            plan.actions.append(Action("create", want.name, f"add runner {want.name} ({want.url})"))
            continue
        was = found[index]
        target: Table = {"name": want.name}
        if not same_url(was.url, want.url):
            target["url"] = want.url
        if want.id is not None:
            target["id"] = want.id
        if want.token is not None:
            target["token"] = want.token
        target |= plain(want.settings)
        if done := plan.merge(("runners", index), target, owned_keys.get(want.name, ())):
            plan.actions.append(Action("update", want.name, f"{want.name}: {', '.join(done)}"))
    for index in sorted(matches.surplus, reverse=True):
        plan.edits.append(Drop(("runners", index)))
        del plan.data["runners"][index]
        entry = found[index]
        plan.actions.append(
            Action("delete", entry.name, f"remove runner {entry.name} ({entry.url}): {matches.surplus[index]}")
        )
    for entry_data in new:
        plan.edits.append(Append(entry_data))
        plan.data.setdefault("runners", []).append(entry_data)
    return plan


def same(one: Any, other: Any) -> bool:
    """Equal in value and in TOML type: `1`, `1.0` and `true` differ, two nan do not."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and (one == other or (one != one and other != other))


def plain(value: Any) -> Any:
    """Mappings as dicts, sequences as lists. Raises TypeError for what TOML cannot say: None, a Secret left wrapped."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if not isinstance(value, str | bool | int | float | datetime.date | datetime.time):
        raise TypeError(f"{type(value).__name__} cannot stand in TOML")
    return value


def _fresh(want: WantedRunner) -> Table:
    if want.token is None:
        raise Refused(
            f"runner {want.name} has no entry in config.toml, and its token is not known",
            hint="give its token in the inventory, or let it be created anew through the API",
        )
    entry: Table = {"name": want.name, "url": want.url}
    if want.id is not None:
        entry["id"] = want.id
    entry |= {"token": want.token} | plain(want.settings)
    return entry


def _differences(above: Path, have: Table, want: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
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


def _in(table: Mapping[str, Any], keys: Sequence[Any]) -> bool:
    node: Any = table
    for key in keys:
        if not isinstance(node, Mapping) or key not in node:
            return False
        node = node[key]
    return True


_PLACE = re.compile(r"^(?P<what>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$", re.DOTALL)


def reconcile(
    text: str,
    *,
    top: Mapping[str, Any],
    runners: Sequence[WantedRunner],
    owned_top: Collection[str] = (),
    dropped: Sequence[RunnerId] = (),
    owned_keys: Mapping[str, Collection[str]] | None = None,
) -> Reconciled:
    """The file with `top` and `runners` in it, and nothing else changed.

    text        the file as it is; "" when there is none
    top         top-level keys and tables (`concurrent`, `session_server`), without `runners`
    owned_top   dotted keys that we once set at the top: those that `top` no longer has go
    dropped     entries that we once wrote and that are no longer wanted
    owned_keys  by runner name, dotted keys that we once set in its entry: those no longer wanted go

    An entry is known by its token and server; or by the fingerprint of a token we wrote before, or by its number in
    GitLab: then its token is swapped. A second entry of the same runner goes. Arrays are replaced whole.

    Raises Refused: the text is no TOML (line and column are named), two wanted runners are one, a runner without a
    known token has no entry, or the result would not read back as planned.
    """
    data = _load(text)
    plan = make_plan(data, top, runners, owned_top, dropped, owned_keys or {})
    if not plan.edits:
        return Reconciled(text, False)
    from provision.editing.toml.edit import edited

    try:
        new = edited(text, plan.edits)
    except (LookupError, TypeError, ValueError) as error:  # tomlkit lost its way in a statement
        raise _not_edited(f": {type(error).__name__}") from None
    _verify(new, plan.data)
    return Reconciled(new, new != text, tuple(plan.actions))


def entries(text: str) -> list[Entry]:
    """The `[[runners]]` that stand in a file, tokens in the clear. Raises Refused for what is no TOML."""
    return entries_in(_load(text))


def _load(text: str) -> Table:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _PLACE.match(str(error))
        line = (found and found["line"]) or str(text.count("\n") + 1)
        column = (found and found["column"]) or str(len(text.rpartition("\n")[2]) + 1)
        what = found["what"] if found else str(error)
        raise Refused(
            f"config.toml is not valid TOML: line {line}, column {column}: {what}",
            hint="mend that line on the host; the runner itself goes on with what it loaded before",
        ) from None


def _verify(text: str, planned: Table) -> None:
    """What was written is read by another parser, and must be exactly what was planned."""
    try:
        seen = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        seen, why = {}, f": {error}"
    else:
        why = ""
    if why or not same(_without_empty(seen), _without_empty(planned)):
        raise _not_edited(why)


def _not_edited(why: str) -> Refused:
    return Refused(
        f"config.toml could not be edited: the result would not read back as planned{why}",
        hint="nothing was changed; write the tables concerned in the usual form ([[runners]], [runners.docker])",
    )


def _without_empty(data: Table) -> Table:
    return {key: value for key, value in data.items() if not (key == "runners" and value == [])}
