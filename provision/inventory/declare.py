"""From tables to hosts: shapes, names, ranges, groups. What is wrong is collected, not raised."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from provision.inventory.keys import KeyPath, dotted
from provision.inventory.layers import OWN, STRUCTURE, Declared, Pile
from provision.inventory.merge import Tree, merge
from provision.inventory.models.host import HostTable, check_address, check_name
from provision.inventory.nearest import did_you_mean
from provision.inventory.problems import Problem
from provision.inventory.ranges import expand, expand_pair
from provision.inventory.values import shown


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
        from provision.inventory.explain import problems_in  # errors only

        problems.extend(problems_in(error, HostTable, lambda loc: ((*path, *loc),)))
        return None


def _names(key: str) -> list[str]:
    try:
        return expand(key)
    except ValueError:
        return [key]
