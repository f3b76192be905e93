"""The loaded inventory: hosts with their settings, and groups. It can be printed as data or as text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from provision.inventory.ranges import select
from provision.inventory.secrets import SecretSource
from provision.inventory.settings import Settings
from provision.inventory.tables.base import Table, fields_of
from provision.inventory.tree import dotted
from provision.secret import MASK, is_secret_name, mask, mask_secret_values

T = TypeVar("T")


class Member(NamedTuple):
    """The name and address of a host in a group."""

    name: str
    address: str


@dataclass(frozen=True)
class Estate:
    """All hosts of the inventory, by group, in the inventory's order. Every host is in the group "all".

    settings  by host; hosts with equal settings share one object
    """

    groups: Mapping[str, tuple[Member, ...]] = field(default_factory=dict)
    settings: Mapping[str, Settings] = field(default_factory=dict, compare=False, repr=False)
    _facts: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    def names(self, group: str) -> tuple[str, ...]:
        """The names of a group's hosts; () for a group without any."""
        return tuple(one.name for one in self.groups.get(group, ()))

    def addresses(self, group: str) -> tuple[str, ...]:
        """The addresses of a group's hosts; () for a group without any."""
        return tuple(one.address for one in self.groups.get(group, ()))

    def distinct_settings(self, group: str) -> tuple[Settings, ...]:
        """The settings of a group's hosts, each object once."""
        known = (self.settings[name] for name in self.names(group) if name in self.settings)
        return tuple({id(one): one for one in known}.values())

    def once(self, name: str, compute: Callable[[], T]) -> T:
        """A fact about all hosts, by a name, that is computed once: every host asks, and there may be a thousand."""
        if name not in self._facts:
            self._facts[name] = compute()
        found: T = self._facts[name]
        return found

    def first(self, *groups: str) -> Member | None:
        """The first host of the first of these groups that is not empty."""
        return next((members[0] for group in groups if (members := self.groups.get(group))), None)


@dataclass(frozen=True, eq=False)
class Host:
    """A host of the inventory, the argument of task functions. Hosts with equal settings share one settings object.

    groups    in the order of the inventory; later ones win over earlier ones
    host_key  the pinned SSH host key, if any: "SHA256:…" or "ssh-ed25519 AAAA…"
    estate    all hosts of the inventory
    """

    name: str
    address: str
    groups: tuple[str, ...]
    host_key: str | None
    settings: Settings
    estate: Estate = field(default_factory=Estate)


class Inventory(NamedTuple):
    """What the files and `--set` describe. Build it with `load`."""

    hosts: tuple[Host, ...]
    groups: Mapping[str, tuple[Host, ...]]
    warnings: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    def select(self, pattern: str | None) -> list[Host]:
        """The hosts that a `--limit` pattern names, in order; all for None. Raises UsageError when it names none."""
        if pattern is None:
            return list(self.hosts)
        by_name = {host.name: host for host in self.hosts}
        groups = {group: [host.name for host in members] for group, members in self.groups.items()}
        return [by_name[name] for name in select(pattern, list(by_name), groups)]

    def as_dict(self) -> dict[str, Any]:
        """`{"hosts": {name: {address, groups, host_key, settings}}, "groups": {name: [host, …]}}`, secrets masked."""
        hosts = {
            host.name: {
                "address": host.address,
                "groups": list(host.groups),
                **({"host_key": host.host_key} if host.host_key else {}),
                "settings": _masked(_hidden(settings_dict(host.settings))),
            }
            for host in self.hosts
        }
        return {"hosts": hosts, "groups": {name: [host.name for host in found] for name, found in self.groups.items()}}

    def as_text(self) -> str:
        """The same as text. Settings that several hosts share are printed once."""
        lines = ["hosts"]
        width = max((len(host.name) for host in self.hosts), default=0)
        for host in self.hosts:
            address = host.address if host.address != host.name else ""
            lines.append(f"  {host.name:<{width}}  {address:<20} {' '.join(host.groups)}".rstrip())
        sharing: dict[Settings, list[str]] = {}
        for host in self.hosts:
            sharing.setdefault(host.settings, []).append(host.name)
        for settings, names in sharing.items():
            lines += ["", f"settings of {', '.join(names)}"]
            lines += [f"  {path} = {value}" for path, value in _leaves(_hidden(settings_dict(settings)))]
        return "\n".join(lines)


def settings_dict(settings: Settings) -> dict[str, Any]:
    """Settings as plain data with the inventory's keys; secrets are SecretSource. Absent keys are left out."""
    return {name: _plain(value) for name, value in settings.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, Table):
        found = {key: getattr(value, name) for name, key in _names(type(value))}
        return {key: _plain(one) for key, one in found.items() if one is not None}
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, str | int | float | SecretSource):
        return value
    return value.as_setting() if hasattr(value, "as_setting") else str(value)


def _names(table: type[Table]) -> list[tuple[str, str]]:
    """Attribute and key of each field."""
    return list(zip(table.model_fields, fields_of(table), strict=True))


def _hidden(value: Any, secret: bool = False) -> Any:
    """Replaces secrets in plain data by `***`: under secret-looking names, passwords in URLs, known ones."""
    if isinstance(value, dict):
        return {key: _hidden(one, secret or is_secret_name(str(key))) for key, one in value.items()}
    if isinstance(value, list):
        return [_hidden(one, secret) for one in value]
    if isinstance(value, str):
        return MASK if secret else mask(mask_secret_values(value))
    return MASK if secret and isinstance(value, int | float) and not isinstance(value, bool) else value


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _masked(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_masked(one) for one in value]
    return MASK if isinstance(value, SecretSource) else value


def _leaves(tree: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str, str]]:
    """`path = value` lines: tables and arrays of tables become several lines, anything else is a value."""
    if isinstance(tree, dict) and (tree or not path):
        return [leaf for key, value in tree.items() for leaf in _leaves(value, (*path, key))]
    if isinstance(tree, list) and any(isinstance(one, dict) for one in tree):
        return [leaf for place, value in enumerate(tree) for leaf in _leaves(value, (*path, place))]
    return [(dotted(path), toml_value(tree))]


def toml_value(value: Any) -> str:
    """A value as TOML writes it; a secret as its source."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(one) for one in value) + "]"
    return "{}" if value == {} else str(value)
