"""Which settings hold: a host's own beat its groups' (the last one listed wins), and these beat the top level's.

What `--set` says is a second such pile on top of the first: the command line beats the files.

From tables to hosts: shapes, names, ranges, groups. What is wrong is collected, not raised.

`load`: files and `--set` → Inventory. Nothing is contacted and no secret is fetched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from provision.errors import UsageError, did_you_mean
from provision.inventory.inventory import Host, Inventory
from provision.inventory.problems import Problem, refuse, shown
from provision.inventory.ranges import expand, expand_pair
from provision.inventory.reading import read_file, read_overrides
from provision.inventory.tables.host import HostTable, check_address, check_name
from provision.inventory.tables.settings import Settings
from provision.inventory.tree import KeyPath, Tree, dotted, merge, merge_all

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


def pile(tree: Tree, problems: list[Problem]) -> Pile:
    """A tree taken apart into top level, groups and hosts."""
    parts: dict[str, dict[str, Tree]] = {}
    for part in ("groups", "hosts"):
        tables = tree.get(part, {})
        if not isinstance(tables, dict):
            problems.append(Problem(((part,),), f"expected tables [{part}.NAME], got {shown(tables)}"))
            tables = {}
        parts[part] = {}
        for name, table in tables.items():
            if isinstance(table, dict):
                parts[part][name] = _in_place(table, (part, name), problems)
            else:
                problems.append(Problem(((part, name),), f"expected a table [{part}.{name}], got {shown(table)}"))
    top = {key: value for key, value in tree.items() if key not in STRUCTURE}
    return Pile(_in_place(top, (), problems), parts["groups"], parts["hosts"])


def _in_place(table: Tree, path: KeyPath, problems: list[Problem]) -> Tree:
    """The table without keys that belong elsewhere: merged, they would look as if they were in their place."""
    level = path[0] if path else ""
    wrong = {"hosts": {"hosts"}, "groups": OWN | STRUCTURE}.get(str(level), OWN - STRUCTURE) & table.keys()
    for key in wrong:
        where = "[hosts.NAME]" if key in OWN else "the top level"
        problems.append(Problem(((*path, key),), f"unknown key here: it belongs to {where}"))
    return {key: value for key, value in table.items() if key not in wrong}


def expanded_overrides(overrides: Pile, files: Pile, problems: list[Problem]) -> Pile:
    """The command line's pile with host keys that are single, known names."""
    known = {name for key in files.hosts for name in _names(key)}
    hosts: dict[str, Tree] = {}
    for key, table in overrides.hosts.items():
        for name in _names(key):
            if name in known:
                hosts[name] = merge(hosts.get(name, {}), table)
            else:
                problems.append(Problem((("hosts", key),), f"no host is called {name!r}" + did_you_mean(name, known)))
    return Pile(overrides.top, overrides.groups, hosts)


def declared(files: Pile, overrides: Pile, problems: list[Problem]) -> list[Declared]:
    """The hosts in the files' order."""
    found: dict[str, Declared] = {}
    for key, table in files.hosts.items():
        for host in _expanded(key, table, overrides, problems):
            if host.name in found:
                other = dotted(("hosts", found[host.name].key))
                problems.append(Problem((("hosts", key),), f"the host {host.name!r} is named by {other} already"))
            else:
                found[host.name] = host
    return list(found.values())


def check_groups(pile: Pile, hosts: list[Declared], problems: list[Problem]) -> None:
    """Overrides for a group that no host lists would silently do nothing."""
    listed = {group for host in hosts for group in host.groups}
    for group in pile.groups.keys() - listed:
        text = f"no host lists the group {group!r}" + did_you_mean(group, listed)
        problems.append(Problem((("groups", group),), text))


def _expanded(key: str, table: Tree, overrides: Pile, problems: list[Problem]) -> Iterator[Declared]:
    at: KeyPath = ("hosts", key)
    own = _own(table, at, problems)
    try:
        for name in expand(key):
            check_name(name, "host name")
        at = ("hosts", key, "address")
        pairs = expand_pair(key, own.address) if own else []
    except ValueError as error:
        problems.append(Problem((at,), str(error)))
        return
    for name, address in pairs:
        host = Declared(name, key, address, own.groups if own else (), own.host_key if own else None)
        if name in overrides.hosts:
            host = _forced(host, overrides.hosts[name], problems)
        _check_address(host, problems)
        yield host


def _forced(host: Declared, table: Tree, problems: list[Problem]) -> Declared:
    """The host with what the command line says of its own keys."""
    own = _own(table, ("hosts", host.name), problems)
    return replace(host, **own.model_dump(exclude_unset=True)) if own else host


def _check_address(host: Declared, problems: list[Problem]) -> None:
    try:
        check_address(host.address)
    except ValueError as error:
        problems.append(Problem((("hosts", host.name, "address"), ("hosts", host.key, "address")), str(error)))


def _own(table: dict[str, Any], path: KeyPath, problems: list[Problem]) -> HostTable | None:
    try:
        return HostTable.model_validate({key: value for key, value in table.items() if key in OWN})
    except ValidationError as error:
        from provision.inventory.problems import problems_in  # errors only

        problems.extend(problems_in(error, HostTable, lambda loc: ((*path, *loc),)))
        return None


def _names(key: str) -> list[str]:
    try:
        return expand(key)
    except ValueError:
        return [key]


def load(paths: Sequence[Path], overrides: Sequence[str] = ()) -> Inventory:
    """The inventory that `paths` (later files over earlier ones) and `overrides` (`KEY=VALUE`) describe.

    Raises InventoryError naming file, line, key and what is expected (up to ten problems together, in file order), and
    UsageError for a malformed override.
    """
    if not paths:
        raise UsageError("no inventory is named", hint="give one: -i inventory.toml; `provision init` writes one")
    read = [read_file(path) for path in paths]
    files = [source for source, _ in read]
    given, warnings = read_overrides(overrides)

    problems: list[Problem] = []
    below = pile(merge_all(source.tree for source in files), problems)
    above = pile(given.tree, problems)
    above = expanded_overrides(above, below, problems)
    found = declared(below, above, problems)
    hosts = _with_settings(found, below, above, problems)
    for given_tables in (below, above):
        check_groups(given_tables, found, problems)
    if not below.hosts and not problems:
        problems.append(Problem((), 'names no host: write a table such as [hosts.web1] with address = "203.0.113.10"'))
    refuse(problems, [*files, given] if overrides else files)

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


def _with_settings(declared: list[Declared], below: Pile, above: Pile, problems: list[Problem]) -> list[Host]:
    """Hosts with validated settings: each distinct set of settings is validated once and shared."""
    known: dict[Any, Settings | None] = {}
    hosts = []
    for one in declared:
        key, tree = settings_of(one, below, above)
        if key not in known:
            known[key] = _validated(one, tree, problems)
        settings = known[key]
        if settings is not None:
            hosts.append(Host(one.name, one.address, one.groups, one.host_key, settings))
    return hosts


def _validated(host: Declared, tree: dict[str, Any], problems: list[Problem]) -> Settings | None:
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        from provision.inventory.problems import problems_in  # errors only

        problems.extend(problems_in(error, Settings, host.paths, also=tuple(STRUCTURE | OWN)))
        return None
