"""Which version of GitLab may follow the installed one.

GitLab has required upgrade stops: x.2, x.5, x.8 and x.11 of each major version since 17.5. Its package refuses an upgrade
that skips one, after it was downloaded (1.4 GB), and apt refuses an older version.
Sources: docs.gitlab.com/update/upgrade_paths; omnibus-gitlab, config/templates/package-scripts/preinst.erb.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from provision.errors import Refused
from provision.host.facts import ASK_PACKAGES, read_packages
from provision.resources.base import Change, Note, Observation, Probe, Resource
from provision.resources.gitlab.gitlab_rb import gitlab_version

_STOPS: Final = (2, 5, 8, 11)
_FIRST_STOP: Final = (17, 5)  # earlier ones do not follow this rule


@dataclass(frozen=True)
class UpgradePath(Resource):
    """The wanted version of GitLab may follow the installed one. It changes nothing.

    version  a glob of the package's version, such as `19.3.0-*`; one without a minor version is not compared
    """

    version: str

    @property
    def label(self) -> str:
        return f"UpgradePath {self.version}"

    def probe(self) -> Probe:
        return Probe.of(ASK_PACKAGES)

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        self.refuse_early(seen)
        yield from ()

    def refuse_early(self, seen: Observation) -> None:
        installed = gitlab_version(read_packages(seen.only))
        now, wanted = _numbers(installed), _numbers(self.version)
        if len(now) < 2 or len(wanted) < 2:
            return
        if wanted < now[: len(wanted)]:
            raise Refused(
                f"GitLab {installed} is installed, and gitlab.version asks for an older one: {self._shown}",
                hint="GitLab's database cannot go back: change gitlab.version, or install the older version on a new host "
                "and restore a backup that it made",
            )
        stops = [
            f"{major}.{minor}"
            for major in range(now[0], wanted[0] + 1)
            for minor in _STOPS
            if max(now[:2], (_FIRST_STOP[0], _FIRST_STOP[1] - 1)) < (major, minor) < wanted[:2]
        ]
        if stops:
            earlier = ["the stops before 17.5 that GitLab's documentation names"] if now[:2] < _FIRST_STOP else []
            raise Refused(
                f"GitLab {installed} cannot be upgraded to {self._shown} at once: it must go through "
                f"{', '.join([*earlier, *stops])}",
                hint=f'set gitlab.version = "{stops[0]}.*" and run provision gitlab, wait until its background migrations are '
                "finished (Admin, Monitoring), and go on with the next one",
            )

    @property
    def _shown(self) -> str:
        return self.version.removesuffix("-*")


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with: `19.3.*` is (19, 3)."""
    found = re.match(r"\d+(?:\.\d+){0,2}(?=[.\-]|$)", version)
    return tuple(map(int, found[0].split("."))) if found else ()
