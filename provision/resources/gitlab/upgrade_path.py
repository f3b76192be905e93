"""Which version of GitLab may follow the installed one.

GitLab has required upgrade stops: x.2, x.5, x.8 and x.11 of each major version since 17.5. Its package refuses an upgrade
that skips one, after it was downloaded (1.4 GB), and apt refuses an older version.

From 19.0 on the registry prefers a database for the names of images. It keeps images from before where a file in its storage
says so, and writes that file when it starts, not when an image is pushed: without a start since the first push, an upgrade would
hide all images. So it is restarted before.
Sources: docs.gitlab.com/update/upgrade_paths; omnibus-gitlab, config/templates/package-scripts/preinst.erb; GitLab's container
registry, registry/handlers/app.go, handleFilesystemLockFile.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from provision.errors import Refused
from provision.host.releases import ASK_PACKAGES, read_packages
from provision.host.scripts import script
from provision.resources.base import Change, Note, Observation, Probe, Resource
from provision.resources.gitlab.gitlab_rb import gitlab_version
from provision.resources.gitlab.registry import CONFIG, RAILS
from provision.shell import sh

_STOPS: Final = (2, 5, 8, 11)
_FIRST_STOP: Final = (17, 5)  # earlier ones do not follow this rule
_DATABASE: Final = (19,)  # from this major version on the registry prefers its database
_REGISTRY: Final = "/opt/gitlab/service/registry"


@dataclass(frozen=True)
class UpgradePath(Resource):
    """The wanted version of GitLab may follow the installed one, and the registry is ready for it.

    version  a glob of the package's version, such as `19.3.0-*`; one without a minor version is not compared
    """

    version: str

    @property
    def label(self) -> str:
        return f"UpgradePath {self.version}"

    def probe(self) -> Probe:
        return Probe({"packages": ASK_PACKAGES, "registry": sh("[ ! -e %s ] || echo enabled", _REGISTRY)})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        self.refuse_early(seen)
        now = _numbers(gitlab_version(read_packages(seen["packages"])))
        if (0,) < now[:1] < _DATABASE <= _numbers(self.version)[:1] and seen["registry"].text.strip():
            yield Change(
                f"restart the registry: it marks images from before GitLab {_DATABASE[0]} in its storage, so that they stay",
                script("restart_registry", CONFIG, RAILS),
                "run",
                deadline=120,
            )

    def refuse_early(self, seen: Observation) -> None:
        installed = gitlab_version(read_packages(seen["packages"]))
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
