"""What nobody uses any more, found and removed by one script: for a look, for a run, and for the hosts' own timer.

Stopped containers and images that nobody uses any more are gone; or the host's own timer sees to it.

Apps' containers and images stay, whatever their age, and so do GitLab Runner's containers and helper images, and all
volumes, its caches among them. Sources: docker-ps(1), docker-image(1), systemd.timer(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from provision.errors import ProbeFailed
from provision.host.scripts import script
from provision.resources.base import Change, Note, Observation, Probe, Resource
from provision.shell import Command

_UNITS: Final = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_NAMES: Final = 10  # how many are named in one line


@dataclass(frozen=True)
class UnusedImages(Resource):
    """Those older than `days`, but for the images `keep`."""

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
                f"Docker does not say what it has: {seen.only.errors.strip()[-300:]}", hint="provision docker"
            )
        lines = [line.split("|") for line in seen.text.splitlines() if line.count("|") == 3]
        if not lines:
            return
        parts = [_named(kind, [line for line in lines if line[0] == kind]) for kind in ("container", "image")]
        freed = sum(map(bytes_of, (line[2] for line in lines)))
        yield Change(
            f"remove {' and '.join(filter(None, parts))}: frees {human(freed)} at least",
            self._script("remove"),
            "delete",
            diff="".join(f"-{kind} {names.strip() or identity[:19]} {size}\n" for kind, identity, size, names in lines),
            deadline=1800,
        )

    def _script(self, mode: str) -> Command:
        return script("prune_docker", mode, self.days, self.keep)


def bytes_of(size: str) -> float:
    """`41.06MB` as a number; 0 for what is none."""
    parts = re.match(r"([0-9.]+)([kMGT]?B)", size)
    return float(parts[1]) * _UNITS[parts[2]] if parts else 0


def human(size: float) -> str:
    """A number of bytes as Docker writes it."""
    unit = next(unit for unit, factor in reversed(_UNITS.items()) if size >= factor or factor == 1)
    return f"{size / _UNITS[unit]:.3g} {unit}"


def _named(kind: str, lines: list[list[str]]) -> str:
    if not lines:
        return ""
    names = [line[3].strip() or line[1].removeprefix("sha256:")[:12] for line in lines]
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    word = (
        f"unused image{'s' if len(names) > 1 else ''}"
        if kind == "image"
        else f"stopped container{'s' if len(names) > 1 else ''}"
    )
    return f"{len(names)} {word} ({', '.join(names[:_NAMES])}{more})"
