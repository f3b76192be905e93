"""Which settings hold: a host's own beat its groups' (the last one listed wins), and these beat the top level's.

What `--set` says is a second such pile on top of the first: the command line beats the files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Any

from provision.inventory.keys import KeyPath
from provision.inventory.merge import Tree, merge_all
from provision.values import dataclass

OWN = frozenset({"address", "groups", "host_key"})
STRUCTURE = frozenset({"hosts", "groups"})


@dataclass(frozen=True)
class Pile:
    """The tables of the files, or those of the command line, taken apart. Shapes are checked: all are tables."""

    top: Tree
    groups: dict[str, Tree] = field(default_factory=dict)
    hosts: dict[str, Tree] = field(default_factory=dict)  # by the key that stands in the file

    def over(self, host: str, groups: Sequence[str]) -> list[Tree]:
        """The layers that hold for a host, weakest first."""
        own = {key: value for key, value in self.hosts.get(host, {}).items() if key not in OWN}
        layers = [self.top, *(self.groups[group] for group in groups if group in self.groups), own]
        return [layer for layer in layers if layer]


@dataclass(frozen=True)
class Declared:
    """One host as declared: `key` is what stands in the file, with its ranges."""

    name: str
    key: str
    address: str
    groups: tuple[str, ...]
    host_key: str | None

    def paths(self, loc: KeyPath) -> tuple[KeyPath, ...]:
        """Where a setting of this host may come from, the strongest place first."""
        hosts = (("hosts", self.name, *loc), ("hosts", self.key, *loc)) if self.name != self.key else ()
        groups = (("groups", group, *loc) for group in reversed(self.groups))
        return (*(hosts or (("hosts", self.key, *loc),)), *groups, loc)


def settings_of(host: Declared, files: Pile, overrides: Pile) -> tuple[Any, Tree]:
    """A host's merged settings, and a key that is equal for hosts with the same ones."""
    below, above = files.over(host.key, host.groups), overrides.over(host.name, host.groups)
    groups = tuple(group for group in host.groups if group in files.groups or group in overrides.groups)
    own = host.key if files.hosts.get(host.key, {}).keys() - OWN else ""
    forced = host.name if overrides.hosts.get(host.name, {}).keys() - OWN else ""
    return (groups, own, forced), merge_all([*below, *above])
