"""The inventory as people and programs see it: secrets masked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from provision.inventory.keys import dotted
from provision.inventory.models.base import Table
from provision.inventory.models.firewall import Allow
from provision.inventory.secrets import SecretSource
from provision.secret import MASK

if TYPE_CHECKING:
    from provision.inventory.inventory import Inventory
    from provision.inventory.models.settings import Settings


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
    return {key: _masked(value) for key, value in tree.items()} if masked else dict(tree)


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
        lines += [f"  {path} = {value}" for path, value in _leaves(_plain(settings[key]))]
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
    return str(value) if isinstance(value, Path) else value


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
