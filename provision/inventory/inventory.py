"""The inventory: hosts in their order, groups, and what `--limit` chooses of them."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from provision.inventory.host import Host
from provision.inventory.select import select
from provision.values import dataclass


@dataclass(frozen=True)
class Inventory:
    """What the files and `--set` say, resolved. Build it with `load`."""

    hosts: tuple[Host, ...]
    groups: dict[str, tuple[Host, ...]]
    warnings: tuple[str, ...] = ()
    files: tuple[str, ...] = field(default=())

    def select(self, pattern: str | None) -> list[Host]:
        """The hosts that a `--limit` pattern names, in order; all for None. Raises UsageError when it names none."""
        if pattern is None:
            return list(self.hosts)
        by_name = {host.name: host for host in self.hosts}
        groups = {group: [host.name for host in members] for group, members in self.groups.items()}
        return [by_name[name] for name in select(pattern, list(by_name), groups)]

    def as_dict(self, masked: bool = True) -> dict[str, Any]:
        """Hosts, groups and settings as plain data. `masked`: secrets as `***`, ready for JSON; else SecretSource."""
        from provision.inventory.show import as_dict

        return as_dict(self, masked=masked)

    def as_text(self) -> str:
        """The same for people: tables of key and value; settings that all hosts share stand once."""
        from provision.inventory.show import as_text

        return as_text(self)
