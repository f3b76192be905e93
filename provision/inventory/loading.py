"""`load`: files and `--set` → Inventory. Nothing is contacted and no secret is fetched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from provision.errors import UsageError
from provision.inventory import declare
from provision.inventory.host import Host
from provision.inventory.inventory import Inventory
from provision.inventory.layers import OWN, STRUCTURE, Declared, Pile, settings_of
from provision.inventory.merge import merge_all
from provision.inventory.models.base import without_plugins
from provision.inventory.models.settings import Settings
from provision.inventory.problems import Problem, refuse
from provision.inventory.reading import read_file, read_overrides


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
    below = declare.pile(merge_all(source.tree for source in files), problems)
    above = declare.pile(given.tree, problems)
    above = declare.expanded_overrides(above, below, problems)
    with without_plugins():
        declared = declare.declared(below, above, problems)
        hosts = _with_settings(declared, below, above, problems)
    for pile in (below, above):
        declare.check_groups(pile, declared, problems)
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
        tuple(warning for _, found in [*read, (given, warnings)] for warning in found),
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
        from provision.inventory.explain import problems_in  # errors only

        problems.extend(problems_in(error, Settings, host.paths, also=tuple(STRUCTURE | OWN)))
        return None
