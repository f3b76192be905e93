"""Stopped containers, unused images and build cache on a host.  Sources: docker-ps(1), docker-image(1), docker-builder(1).

One script lists them, removes them, and is what the prune timer runs. Containers and images of apps stay, whatever their
age, and so do GitLab Runner's containers and helper images, and all volumes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from provision.errors import ProbeFailed
from provision.host.scripts import script
from provision.resources.base import Change, Note, Observation, Probe, Resource
from provision.secret import mask
from provision.shell import Command

_UNITS: Final = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_KINDS: Final = ("container", "image", "cache")
_NAMES: Final = 10  # the most names in one line


@dataclass(frozen=True)
class UnusedImages(Resource):
    """Stopped containers, unused images and build cache that are older than `days` are removed; the images `keep` stay."""

    days: int
    keep: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return "UnusedImages"

    def probe(self) -> Probe:
        return Probe.of(self._script("list"))

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        if seen.code != 0:
            raise ProbeFailed(
                f"Docker cannot list its containers and images: {mask(seen.only.errors.strip())[-300:]}",
                hint="run provision docker",
            )
        found = [line.split("|") for line in seen.text.splitlines() if line.count("|") == 3]
        lines = [line for line in found if line[0] in _KINDS]
        if not lines:
            return
        parts = [_named(kind, [line for line in lines if line[0] == kind]) for kind in _KINDS]
        freed = sum(map(bytes_of, (line[2] for line in lines)))
        *most, last = filter(None, parts)
        what = f"{', '.join(most)} and {last}" if most else last
        yield Change(
            f"remove {what}: frees at least {human(freed)}",
            self._script("remove"),
            "delete",
            diff="".join(f"-{kind} {names.strip() or identity[:19]} {size}\n" for kind, identity, size, names in lines),
            deadline=1800,
        )

    def _script(self, mode: str) -> Command:
        return script("prune_docker", mode, self.days, self.keep)


def bytes_of(size: str) -> float:
    """The bytes that Docker prints as `41.06MB`; 0 for other text."""
    parts = re.match(r"([0-9]{1,12}(?:\.[0-9]{0,12})?)([kMGT]?B)", size)
    return float(parts[1]) * _UNITS[parts[2]] if parts else 0


def human(size: float) -> str:
    """A number of bytes as Docker prints it, such as `41.1 MB`."""
    unit = next(unit for unit, factor in reversed(_UNITS.items()) if size >= factor or factor == 1)
    return f"{size / _UNITS[unit]:.3g} {unit}"


def _named(kind: str, lines: list[list[str]]) -> str:
    if not lines:
        return ""
    if kind == "cache":
        return f"{len(lines)} {'entries' if len(lines) > 1 else 'entry'} of the build cache"
    names = [line[3].strip() or line[1].removeprefix("sha256:")[:12] for line in lines]
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    word = (
        f"unused image{'s' if len(names) > 1 else ''}"
        if kind == "image"
        else f"stopped container{'s' if len(names) > 1 else ''}"
    )
    return f"{len(names)} {word} ({', '.join(names[:_NAMES])}{more})"
