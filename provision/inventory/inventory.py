"""A host of the inventory, with the settings that hold for it.

The inventory: hosts in their order, groups, and what `--limit` chooses of them.

The inventory as people and programs see it: secrets masked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provision.inventory.secrets import SecretSource
from provision.inventory.select import select
from provision.inventory.tables.base import Table
from provision.inventory.tables.firewall import Allow
from provision.inventory.tree import dotted
from provision.secret import MASK, is_secret_name, mask_secret_values
from provision.url import Url

if TYPE_CHECKING:
    from provision.inventory.tables.settings import Settings


@dataclass(frozen=True, eq=False)
class Host:
    """One host. `settings` is shared by hosts for which the same settings hold. Names are unique."""

    name: str
    address: str
    groups: tuple[str, ...]
    host_key: str | None
    settings: Settings


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

        return as_dict(self, masked=masked)

    def as_text(self) -> str:
        """The same for people: tables of key and value; settings that all hosts share stand once."""

        return as_text(self)


def as_dict(inventory: Inventory, *, masked: bool = True) -> dict[str, Any]:
    """`{"hosts": {name: {address, groups, host_key, settings}}, "groups": {name: [host, …]}}`."""
    hosts = {}
    for host in inventory.hosts:
        hosts[host.name] = {
            "address": host.address,
            "groups": list(host.groups),
            **({"host_key": host.host_key} if host.host_key else {}),
            "settings": settings_dict(host.settings, masked=masked),
        }
    groups = {name: [host.name for host in members] for name, members in inventory.groups.items()}
    return {"hosts": hosts, "groups": groups}


def settings_dict(settings: Settings, *, masked: bool = True) -> dict[str, Any]:
    """Settings as plain data with the inventory's keys; what is not set and has no default is left out."""
    tree = _plain(settings)
    return {key: _masked(value) for key, value in _hidden(tree).items()} if masked else dict(tree)


def as_text(inventory: Inventory) -> str:
    """Hosts, groups, then each distinct group of settings with the hosts that it holds for."""
    lines = ["hosts"]
    width = max((len(host.name) for host in inventory.hosts), default=0)
    for host in inventory.hosts:
        address = host.address if host.address != host.name else ""
        lines.append(f"  {host.name:<{width}}  {address:<20} {' '.join(host.groups)}".rstrip())
    shared: dict[int, list[str]] = {}
    for host in inventory.hosts:
        shared.setdefault(id(host.settings), []).append(host.name)
    settings = {id(host.settings): host.settings for host in inventory.hosts}
    for key, names in shared.items():
        lines += ["", f"settings of {', '.join(names)}"]
        lines += [f"  {path} = {value}" for path, value in _leaves(_hidden(_plain(settings[key])))]
    return "\n".join(lines)


def _plain(value: Any) -> Any:
    """Tables as dicts, paths as strings; secrets stay what they are."""
    if isinstance(value, Table):
        fields = type(value).model_fields.items()
        found = {field.alias or name: getattr(value, name) for name, field in fields}
        return {key: _plain(one) for key, one in found.items() if one is not None}
    if isinstance(value, Allow):
        return {"port": str(value), "from": list(value.sources)} if value.sources else str(value)
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path | Url) else value


def _hidden(value: Any, secret: bool = False) -> Any:
    """Plain data under secret-looking keys as `***`, and the values of `NAME=value` with such a name."""
    if isinstance(value, dict):
        return {key: _hidden(one, secret or is_secret_name(str(key))) for key, one in value.items()}
    if isinstance(value, list):
        return [_hidden(one, secret) for one in value]
    if isinstance(value, str):
        return MASK if secret else mask_secret_values(value)
    return MASK if secret and isinstance(value, int | float) and not isinstance(value, bool) else value


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _masked(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_masked(one) for one in value]
    return MASK if isinstance(value, SecretSource) else value


def _leaves(tree: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str, str]]:
    if isinstance(tree, dict) and (tree or not path):
        return [leaf for key, value in tree.items() for leaf in _leaves(value, (*path, key))]
    if isinstance(tree, list) and any(isinstance(one, dict) for one in tree):
        return [leaf for place, value in enumerate(tree) for leaf in _leaves(value, (*path, place))]
    return [(dotted(path), _shown(tree))]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return "[" + ", ".join(_shown(one) for one in value) + "]"
    return "{}" if value == {} else str(value)
