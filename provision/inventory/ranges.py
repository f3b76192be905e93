"""Ranges in host names and addresses: `runner-[01:20]` stands for twenty.

A start with leading zeros pads all (`[01:20]` → 01 … 20). Several ranges in one name multiply, the
last one counting fastest.
"""

from __future__ import annotations

import re
from itertools import product

LIMIT = 10_000
_RANGE = re.compile(r"\[(\d+):(\d+)\]")


def has_range(text: str) -> bool:
    """Whether `text` holds a `[START:END]`."""
    return _RANGE.search(text) is not None


def expand(text: str) -> list[str]:
    """The names that `text` stands for; itself when it holds no range.

    Raises ValueError for a range that runs backwards, or for more than 10,000 names.
    """
    pieces = _RANGE.split(text)  # text, start, end, text, start, end, …, text
    steps = [_numbers(start, end) for start, end in zip(pieces[1::3], pieces[2::3], strict=True)]
    total = 1
    for step in steps:
        total *= len(step)
    if total > LIMIT:
        raise ValueError(f"{text!r} stands for {total} names; at most {LIMIT} are allowed")
    return ["".join(_weave(pieces[0::3], numbers)) for numbers in product(*steps)]


def expand_pair(name: str, address: str | None) -> list[tuple[str, str]]:
    """Names with their addresses, in step; without an address a host's name is its address.

    Raises ValueError when the two stand for different numbers, or when several hosts would share one address.
    """
    names = expand(name)
    if address is None:
        return [(one, one) for one in names]
    addresses = expand(address)
    if len(addresses) != len(names):
        raise ValueError(
            f"the name {name!r} stands for {_hosts(len(names))} and the address {address!r} for {len(addresses)}: "
            "give both the same ranges"
        )
    return list(zip(names, addresses, strict=True))


def _numbers(start: str, end: str) -> list[str]:
    if int(end) < int(start):
        raise ValueError(f"the range [{start}:{end}] runs backwards")
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
