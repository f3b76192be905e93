"""Docker from the distribution's own repository, where its packages have other names in each release."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from provision.host.facts import ASK_PACKAGES, ASK_SYSTEM, read_packages, read_system
from provision.host.releases import distribution_docker
from provision.resources.base import Change, Note, Observation, Probe
from provision.resources.system.packages import Packages

_ENGINE = "docker.io"
_CLIENT = "docker-cli"  # a package of its own, of the same version, in some releases


@dataclass(frozen=True)
class DistributionDocker(Packages):
    """Packages with the release's own names of Docker's client, buildx and Compose besides docker.io.

    Of a host that has docker.io, the missing ones are added, and docker.io is not upgraded for that. Raises Refused on a
    release that is too old.
    """

    def probe(self) -> Probe:
        return Probe({Probe.ONLY: ASK_PACKAGES, "system": ASK_SYSTEM})

    def refuse_early(self, seen: Observation) -> None:
        self._packages(seen)

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        packages, note = self._packages(seen)
        if note:
            yield Note(note)
        yield from packages.plan(seen)

    def _packages(self, seen: Observation) -> tuple[Packages, str]:
        installed = _ENGINE in read_packages(seen.only)
        names, note = distribution_docker(read_system(seen["system"]), installed=installed)
        given = {one.name: getattr(self, one.name) for one in fields(Packages)}
        versioned = tuple(name for name in names if name in (_ENGINE, _CLIENT))
        return Packages(**{**given, "names": names, "versioned": versioned}), note
