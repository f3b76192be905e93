"""`--limit`: which hosts a pattern names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from provision.errors import UsageError, did_you_mean
from provision.inventory.ranges import expand, has_range

_GLOB = frozenset("*?[")


def select(pattern: str, hosts: Sequence[str], groups: Mapping[str, Sequence[str]]) -> list[str]:
    """The host names that `pattern` chooses, in the inventory's order.

    Parts are separated by commas: names of hosts and groups, globs, ranges, `all`; `!` in front takes out again.
    With only such parts, all others are chosen. Raises UsageError when a part names nothing, or nothing is left.
    """
    parts = [part.strip() for part in pattern.split(",") if part.strip()]
    wanted = [part for part in parts if not part.startswith("!")]
    unwanted = [part[1:].strip() for part in parts if part.startswith("!")]
    chosen: set[str] = set() if wanted else set(hosts)
    for part in wanted:
        chosen |= _named(part, hosts, groups, must=True)
    for part in unwanted:
        # a misspelt exclusion would run where it must not; a glob may well match nothing
        chosen -= _named(part, hosts, groups, must=not _GLOB & set(part))
    if not chosen or not parts:
        raise UsageError(f"--limit {pattern}: no host is left", hint="`provision inventory` lists hosts and groups")
    return [host for host in hosts if host in chosen]


def _named(part: str, hosts: Sequence[str], groups: Mapping[str, Sequence[str]], *, must: bool) -> set[str]:
    found: set[str] = set()
    for one in _expand(part):
        found |= {host for host in hosts if fnmatchcase(host, one)}
        for group, members in groups.items():
            if fnmatchcase(group, one):
                found |= set(members)
    if not found and part == "all":
        found = set(hosts)
    if not found and must:
        near = did_you_mean(part, {*hosts, *groups})
        raise UsageError(
            f"--limit: no host and no group is called {part!r}{near}",
            hint="`provision inventory` lists hosts and groups",
        )
    return found


def _expand(part: str) -> list[str]:
    if not has_range(part):
        return [part]
    try:
        return expand(part)
    except ValueError as error:
        raise UsageError(f"--limit: {error}", hint="ranges are written name-[01:20]") from None
