"""Building an inventory from files and `--set`. No host is contacted, and no secret is fetched.

A host's own settings beat those of its groups (the last one listed wins), and these beat the top level's. `--set`
gives a second stack of such layers, above the files. All problems are collected and reported at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from provision.errors import InventoryError, UsageError, did_you_mean, together
from provision.inventory.inventory import Estate, Host, Inventory, Member
from provision.inventory.problems import Problem, Source, problems_in, refuse
from provision.inventory.ranges import expand, expand_pair
from provision.inventory.reading import read_file, read_overrides
from provision.inventory.settings import HOST_KEYS, STRUCTURE, KnownTables, Settings, Tables
from provision.inventory.tables.base import describe
from provision.inventory.tables.host import HostTable, check_address, check_name
from provision.inventory.tree import KeyPath, Tree, dotted, merge, merge_all


def load(paths: Sequence[Path], overrides: Sequence[str] = (), tables: Tables | None = None) -> Inventory:
    """The inventory that `paths` (later files over earlier ones) and `overrides` (`KEY=VALUE`) describe.

    `tables` are the tables that it may have, see `Catalogue.tables`.

    Raises InventoryError, which names file, line, key and what is expected (up to fifty problems at once, in
    file order), and UsageError for a malformed override.
    """
    if not paths:
        raise UsageError("no inventory is given", hint="give one: -i inventory.toml; `provision init` writes one")
    tables = tables or Tables()
    read: list[tuple[Source, list[str]]] = []
    unreadable: list[UsageError] = []
    for path in paths:
        try:
            read.append(read_file(path, tables))
        except InventoryError as error:
            unreadable.append(error)
    files = [source for source, _ in read]
    given, warnings = read_overrides(overrides, tables)
    if unreadable and not files:
        raise together(unreadable)

    problems: list[Problem] = []
    below = _layers(merge_all(source.tree for source in files), problems)
    above = _expanded_overrides(_layers(given.tree, problems), below, problems)
    declared = _declared_hosts(below, above, problems)
    settings = _all_settings(declared, below, above, tables, problems)
    for layers in (below, above):
        _check_groups(layers, declared, problems, known=not unreadable)
    _check_unused_settings(below, declared, tables, problems)
    if not below.hosts and not problems and not unreadable:
        problems.append(Problem((), 'has no host: write a table such as [hosts.web1] with address = "203.0.113.10"'))
    refuse(problems, [*files, given] if overrides else files, [str(one) for one in unreadable])

    hosts = _with_estate(declared, settings)
    groups: dict[str, list[Host]] = {}
    for host in hosts:
        for group in host.groups:
            groups.setdefault(group, []).append(host)
    return Inventory(
        tuple(hosts),
        {group: tuple(members) for group, members in groups.items()},
        tuple(warning for _, these in [*read, (given, warnings)] for warning in these),
        tuple(source.name for source in files),
    )


@dataclass(frozen=True)
class _Layers:
    """The tables of the files, or those of the command line, by level."""

    top: Tree
    groups: dict[str, Tree] = field(default_factory=dict)
    hosts: dict[str, Tree] = field(default_factory=dict)  # by their keys in the file

    def of(self, host: str, groups: Sequence[str]) -> list[Tree]:
        """The layers that apply to a host, weakest first."""
        own = {key: value for key, value in self.hosts.get(host, {}).items() if key not in HOST_KEYS}
        layers = [self.top, *(self.groups[group] for group in groups if group in self.groups), own]
        return [layer for layer in layers if layer]


class _DeclaredHost(NamedTuple):
    """One declared host. `key` is its key in the file, with ranges."""

    name: str
    key: str
    address: str
    groups: tuple[str, ...]
    host_key: str | None
    groups_unknown: bool = False  # a key of [hosts.NAME] is wrong, perhaps `groups`

    def paths(self, path: KeyPath) -> tuple[KeyPath, ...]:
        """The key paths that may set this setting, the strongest first."""
        names = dict.fromkeys((self.name, self.key))
        hosts = (("hosts", name, *path) for name in names)
        groups = (("groups", group, *path) for group in reversed(self.groups))
        return (*hosts, *groups, path)


def _layers(tree: Tree, problems: list[Problem]) -> _Layers:
    """A tree, split into top level, groups and hosts."""
    parts: dict[str, dict[str, Tree]] = {}
    for part in ("groups", "hosts"):
        tables = tree.get(part, {})
        if not isinstance(tables, dict):
            problems.append(Problem(((part,),), f"expected tables [{part}.NAME], got {describe(tables)}"))
            tables = {}
        parts[part] = {}
        for name, table in tables.items():
            if isinstance(table, dict):
                parts[part][name] = _without_misplaced(table, (part, name), problems)
            else:
                problems.append(Problem(((part, name),), f"expected a table [{part}.{name}], got {describe(table)}"))
    top = {key: value for key, value in tree.items() if key not in STRUCTURE}
    return _Layers(_without_misplaced(top, (), problems), parts["groups"], parts["hosts"])


def _without_misplaced(table: Tree, path: KeyPath, problems: list[Problem]) -> Tree:
    """The table without misplaced keys: after merging, their wrong place would not be visible."""
    level = str(path[0]) if path else ""
    misplaced = {"hosts": {"hosts"}, "groups": HOST_KEYS | STRUCTURE}.get(level, HOST_KEYS - STRUCTURE) & table.keys()
    for key in misplaced:
        where = "[hosts.NAME]" if key in HOST_KEYS else "the top level"
        problems.append(Problem(((*path, key),), f"unknown key here: it belongs to {where}"))
    return {key: value for key, value in table.items() if key not in misplaced}


def _expanded_overrides(overrides: _Layers, files: _Layers, problems: list[Problem]) -> _Layers:
    """The command line's layers, with single, known hosts as their keys."""
    known = {name for key in files.hosts for name in _names(key)}
    hosts: dict[str, Tree] = {}
    for key, table in overrides.hosts.items():
        for name in _names(key):
            if name in known:
                hosts[name] = merge(hosts.get(name, {}), table)
            else:
                text = f"no host has the name {name!r}{did_you_mean(name, known)}"
                problems.append(Problem((("hosts", key),), text))
    return _Layers(overrides.top, overrides.groups, hosts)


def _declared_hosts(files: _Layers, overrides: _Layers, problems: list[Problem]) -> list[_DeclaredHost]:
    """The hosts in the files' order."""
    found: dict[str, _DeclaredHost] = {}
    for key, table in files.hosts.items():
        for host in _expanded(key, table, overrides, problems):
            if host.name in found:
                other = dotted(("hosts", found[host.name].key))
                problems.append(Problem((("hosts", key),), f"{other} declares the host {host.name!r}, too"))
            else:
                found[host.name] = host
    return list(found.values())


def _check_unused_settings(below: _Layers, hosts: list[_DeclaredHost], tables: Tables, problems: list[Problem]) -> None:
    """Checks the settings of groups that no host lists, and the top level if there is no host."""
    for group in below.groups.keys() - _listed(hosts):
        places = partial(_paths_of_group, group)
        problems += tables.settings(merge_all(below.of("", [group])), places)[1]
    if not hosts and not below.groups:
        problems += tables.settings(below.top)[1]


def _paths_of_group(group: str, path: KeyPath) -> tuple[KeyPath, ...]:
    return ("groups", group, *path), path


def _listed(hosts: list[_DeclaredHost]) -> set[str]:
    """The groups of all hosts."""
    return {group for host in hosts for group in host.groups}


def _check_groups(layers: _Layers, hosts: list[_DeclaredHost], problems: list[Problem], *, known: bool) -> None:
    """Refuses settings of a group that no host lists: they would have no effect. `known`: all hosts are known."""
    if not known or any(host.groups_unknown for host in hosts):
        return
    listed = _listed(hosts)
    for group in layers.groups.keys() - listed:
        text = f"no host lists the group {group!r}{did_you_mean(group, listed)}"
        problems.append(Problem((("groups", group),), text))


def _expanded(key: str, table: Tree, overrides: _Layers, problems: list[Problem]) -> Iterator[_DeclaredHost]:
    at: KeyPath = ("hosts", key)
    own = _host_table(table, at, problems)
    # The settings of a host are checked even if its own keys are wrong: all mistakes are reported at once.
    groups = own.groups if own else _readable_groups(table)
    pairs: list[tuple[str, str]] = []
    try:
        for name in expand(key):
            check_name(name, "host name")
            pairs.append((name, name))
        at = ("hosts", key, "address")
        pairs = expand_pair(key, own.address) if own else pairs
    except ValueError as error:
        problems.append(Problem((at,), str(error)))
        pairs = pairs or [(key, "unknown")]  # an address that needs no check: the run ends
    for name, address in pairs:
        host = _DeclaredHost(name, key, address, groups, own.host_key if own else None, own is None)
        if name in overrides.hosts:
            host = _overridden(host, overrides.hosts[name], problems)
        _check_address(host, problems)
        yield host


def _readable_groups(table: Tree) -> tuple[str, ...]:
    """The groups of a host whose keys are wrong: `groups = "web"` stands for ["web"]."""
    groups = table.get("groups", ())
    groups = [groups] if isinstance(groups, str) else groups
    return tuple(one for one in groups if isinstance(one, str)) if isinstance(groups, list) else ()


def _overridden(host: _DeclaredHost, table: Tree, problems: list[Problem]) -> _DeclaredHost:
    """The host with its own keys replaced by those of the command line."""
    own = _host_table(table, ("hosts", host.name), problems)
    return host._replace(**own.model_dump(exclude_unset=True)) if own else host


def _check_address(host: _DeclaredHost, problems: list[Problem]) -> None:
    try:
        check_address(host.address)
    except ValueError as error:
        problems.append(Problem((("hosts", host.name, "address"), ("hosts", host.key, "address")), str(error)))


def _host_table(table: dict[str, Any], path: KeyPath, problems: list[Problem]) -> HostTable | None:
    try:
        return HostTable.model_validate({key: value for key, value in table.items() if key in HOST_KEYS})
    except ValidationError as error:
        problems.extend(problems_in(error, HostTable, lambda loc: ((*path, *loc),)))
        return None


def _names(key: str) -> list[str]:
    try:
        return expand(key)
    except ValueError:
        return [key]


def _all_settings(
    hosts: list[_DeclaredHost], below: _Layers, above: _Layers, tables: Tables, problems: list[Problem]
) -> dict[str, Settings]:
    """The settings by host. Hosts with the same layers share one object. Other hosts share the tables that are the same."""
    known: dict[Any, Settings] = {}
    known_tables: KnownTables = {}
    found = {}
    for host in hosts:
        key = _sharing_key(host, below, above)
        if key not in known:
            layers = [*below.of(host.key, host.groups), *above.of(host.name, host.groups)]
            known[key], wrong = tables.settings(merge_all(layers), host.paths, known_tables)
            problems += wrong
        found[host.name] = known[key]
    return found


def _sharing_key(host: _DeclaredHost, below: _Layers, above: _Layers) -> Any:
    """A key that is equal for hosts with the same layers."""
    groups = tuple(group for group in host.groups if group in below.groups or group in above.groups)
    own = host.key if below.hosts.get(host.key, {}).keys() - HOST_KEYS else ""
    overridden = host.name if above.hosts.get(host.name, {}).keys() - HOST_KEYS else ""
    return groups, own, overridden


def _with_estate(declared: list[_DeclaredHost], settings: dict[str, Settings]) -> list[Host]:
    groups: dict[str, list[Member]] = {}
    for one in declared:
        for group in dict.fromkeys((*one.groups, "all")):
            groups.setdefault(group, []).append(Member(one.name, one.address))
    estate = Estate({group: tuple(members) for group, members in groups.items()}, settings)
    return [Host(one.name, one.address, one.groups, one.host_key, settings[one.name], estate) for one in declared]
