"""A runner that has no token in the inventory is known there by its name alone: one that got another name is found again.

One that we made has left the inventory, and one came that differs in nothing else that we know of it: it is the same.
Where more than one could be meant, nothing is guessed: the old one is dropped, and a new one is made.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from provision.values import dataclass

Records = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Sought:
    """A runner of the inventory without a token. `keys`: those of config.toml that it sets; `scope`: whose it is."""

    name: str
    url: str
    keys: tuple[str, ...]
    scope: str = ""

    @property
    def kind(self) -> tuple[str, tuple[str, ...], str]:
        """All but the name."""
        return self.url, self.keys, self.scope


def follow(records: Records, names: Collection[str], sought: Sequence[Sought]) -> dict[str, Mapping[str, Any]]:
    """What is on record of our runners, by the names that they have now in the inventory (`names` are all of it)."""
    new = [one for one in sought if one.name not in records]
    gone = {name: _kind(name, one) for name, one in records.items() if name not in names and one.get("made")}
    found = {}
    for one in new:
        before = [name for name, kind in gone.items() if kind == one.kind]
        if len(before) == 1 and [other.kind for other in new].count(one.kind) == 1:
            found[before[0]] = one.name
    return {found.get(name, name): one for name, one in records.items()}


def _kind(name: str, record: Mapping[str, Any]) -> tuple[str, tuple[str, ...], str]:
    return Sought(name, str(record.get("url", "")), tuple(record.get("keys", ())), str(record.get("scope", ""))).kind
