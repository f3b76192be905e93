"""Many host names in few words: `runner-[01:20], gitlab`, the notation of the inventory."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

_NUMBER = re.compile(r"[0-9]+")
_Around = tuple[str, ...]  # what stands before and after the number; of a name without one, the name alone


def fold(names: Iterable[str], *, limit: int = 0) -> str:
    """Names with neighbouring numbers folded into ranges, in order of first appearance.

    `limit` > 0 shows at most so many pieces and counts the names in the rest: `a, b and 7 more`.
    """
    names = list(dict.fromkeys(names))
    groups: dict[_Around, dict[str, str]] = {}
    shared = Counter(around for name in names for around, _ in _readings(name))
    for name in names:
        readings = list(_readings(name))
        if not readings:
            groups[name,] = {name: ""}
            continue
        # A name with several numbers goes where most others go: web1.eu2 beside web2.eu2, not beside web1.eu3.
        around, number = max(readings, key=lambda one: shared[one[0]])
        groups.setdefault(around, {})[name] = number
    pieces = [(_piece(around, members), len(members)) for around, members in groups.items()]
    if limit and len(pieces) > limit:
        rest = sum(count for _, count in pieces[limit:])
        return ", ".join(text for text, _ in pieces[:limit]) + f" and {rest} more"
    return ", ".join(text for text, _ in pieces)


def _readings(name: str) -> Iterator[tuple[_Around, str]]:
    """Each number in a name, with what stands around it; the last number first."""
    for match in reversed(list(_NUMBER.finditer(name))):
        yield (name[: match.start()], name[match.end() :]), match.group()


def _piece(around: _Around, members: dict[str, str]) -> str:
    if len(members) == 1:
        return next(iter(members))
    before, after = around
    return f"{before}[{','.join(_ranges(list(members.values())))}]{after}"


def _ranges(numbers: list[str]) -> Iterator[str]:
    """`01`, `02`, `03`, `07` as `01:03`, `07`. Numbers of different width stand together only when unpadded."""
    widths = {len(one) for one in numbers if one.startswith("0") and len(one) > 1}
    padded = sorted(one for one in numbers if len(one) in widths)
    plain = sorted((one for one in numbers if len(one) not in widths), key=int)
    for batch in (padded, plain):
        start = 0
        for index, one in enumerate(batch):
            follower = batch[index + 1] if index + 1 < len(batch) else ""
            if not follower or int(follower) != int(one) + 1 or (batch is padded and len(follower) != len(one)):
                yield one if index == start else f"{batch[start]}:{one}"
                start = index + 1
