"""What the file comes to for one setting: its places, applied in order. The last assignment counts."""

from __future__ import annotations

from collections.abc import Iterable

from provision.resources.gitlab_rb.locate import Place, places
from provision.resources.gitlab_rb.paths import Path, covers
from provision.resources.gitlab_rb.syntax import valid
from provision.resources.gitlab_rb.values import MISSING, Missing, NotLiteral, Plain, lookup, same


def effective(text: bytes, path: Path) -> Plain | NotLiteral | Missing:
    """The value that `path` has once Ruby has read the file; MISSING when nothing sets it, NotLiteral (with its line)
    when only Ruby knows. Hashes are whole; inside them single values may be NotLiteral. Symbols read as text.

    Raises Refused for a file that is not sound Ruby.
    """
    return fold(places(valid(text), path[:1]).near(path), path)


def fold(found: Iterable[Place], path: Path) -> Plain:
    """The value at `path` after all `found` places, which are related to it and in order."""
    value: Plain = MISSING
    for place in found:
        if place.kind == "variable" and len(path) > 1:
            return NotLiteral(place.line, f"{path[0]} is a local variable from there on")
        if place.kind == "change":
            value = NotLiteral(place.line, "changed in place")
        elif place.kind == "set":
            applied = apply(value, place.path, place.literal, path, place.line)
            if place.how != "conditional":
                value = applied
            elif not same(applied, value):
                value = NotLiteral(place.line, f"depends on {place.context}")
    return value


def apply(value: Plain, at: Path, new: Plain, path: Path, line: int) -> Plain:
    """`value` of `path` after `at` was assigned `new`."""
    if covers(at, path):
        return lookup(new, path[len(at) :])
    return put(value, at[len(path) :], new, line)


def put(value: Plain, keys: Path, new: Plain, line: int) -> Plain:
    """A copy of `value` with `new` under `keys`; what is missing on the way springs up as hashes."""
    if not keys:
        return new
    if isinstance(value, NotLiteral):
        return value
    if isinstance(value, Missing):
        value = {}
    if not isinstance(value, dict):
        return NotLiteral(line, "set inside something that is no hash")
    return {**value, keys[0]: put(value.get(keys[0], MISSING), keys[1:], new, line)}
