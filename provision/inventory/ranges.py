"""Ranges in host names and addresses, and the hosts that `--limit` selects.

`runner-[01:20]` stands for twenty hosts.

A start with leading zeros pads all numbers (`[01:20]` → 01 … 20). Several ranges in one name are combined; the last
one varies fastest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import product

from provision.errors import UsageError, did_you_mean

LIMIT = 10_000
_RANGE = re.compile(r"\[(\d+):(\d+)\]")


def has_range(text: str) -> bool:
    """Whether `text` contains a `[START:END]`."""
    return _RANGE.search(text) is not None


def expand(text: str) -> list[str]:
    """The names that `text` means; `text` itself if it has no range.

    Raises ValueError for a range that ends before it starts, or for more than 10,000 names.
    """
    pieces = _RANGE.split(text)  # text, start, end, text, start, end, …, text
    steps = [_numbers(start, end) for start, end in zip(pieces[1::3], pieces[2::3], strict=True)]
    total = 1
    for step in steps:
        total *= len(step)
    if total > LIMIT:
        raise ValueError(f"{text!r} means {total} names; at most {LIMIT} are allowed")
    return ["".join(_weave(pieces[0::3], numbers)) for numbers in product(*steps)]


def expand_pair(name: str, address: str | None) -> list[tuple[str, str]]:
    """Pairs of names and addresses. Without an address, a host's name is its address.

    Raises ValueError when there are more names than addresses, or fewer.
    """
    names = expand(name)
    if address is None:
        return [(one, one) for one in names]
    addresses = expand(address)
    if len(addresses) != len(names):
        raise ValueError(
            f"the name {name!r} means {_hosts(len(names))} and the address {address!r} {len(addresses)}: "
            "give both the same ranges"
        )
    return list(zip(names, addresses, strict=True))


def _numbers(start: str, end: str) -> list[str]:
    if int(end) < int(start):
        raise ValueError(f"the range [{start}:{end}] ends before it starts")
    if int(end) - int(start) >= LIMIT:
        raise ValueError(f"the range [{start}:{end}] is longer than {LIMIT}")
    return [str(number).zfill(len(start)) for number in range(int(start), int(end) + 1)]


def _weave(texts: list[str], numbers: tuple[str, ...]) -> list[str]:
    woven = [texts[0]]
    for number, text in zip(numbers, texts[1:], strict=True):
        woven += (number, text)
    return woven


def _hosts(count: int) -> str:
    return "1 host" if count == 1 else f"{count} hosts"


_GLOB = frozenset("*?[")


def select(pattern: str, hosts: Sequence[str], groups: Mapping[str, Sequence[str]]) -> list[str]:
    """The host names that `pattern` selects, in the inventory's order.

    Parts are separated by commas: names of hosts and groups, globs, ranges, `all`; `!` in front excludes.
    With only such parts, all others are selected. Raises UsageError when a part names nothing, or nothing is left.
    """
    parts = [part.strip() for part in pattern.split(",") if part.strip()]
    wanted = [part for part in parts if not part.startswith("!")]
    unwanted = [part[1:].strip() for part in parts if part.startswith("!")]
    chosen: set[str] = set() if wanted else set(hosts)
    for part in wanted:
        chosen |= _named(part, hosts, groups, must=True)
    for part in unwanted:
        # a misspelt exclusion would run on the excluded host; a glob may match nothing
        chosen -= _named(part, hosts, groups, must=not _GLOB & set(part))
    if not chosen or not parts:
        raise UsageError(f"--limit {pattern}: it selects no host", hint="`provision inventory` prints hosts and groups")
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
            f"--limit: no host and no group has the name {part!r}{near}",
            hint="`provision inventory` prints hosts and groups",
        )
    return found


def _expand(part: str) -> list[str]:
    if not has_range(part):
        return [part]
    try:
        return expand(part)
    except ValueError as error:
        raise UsageError(f"--limit: {error}", hint="ranges are written name-[01:20]") from None
