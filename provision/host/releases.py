"""A host's release and its packages, and which packages exist for the releases of Debian and Ubuntu.

Releases as of 28 November 2026. Sources:

- End of free support (Debian LTS, Ubuntu's standard support): Debian's package distro-info-data 2026.10.12.
- Docker: docs.docker.com/engine/install/debian and /ubuntu, "OS requirements", read on 8 September 2026.
- GitLab: docs.gitlab.com/install/package, "Supported platforms" and "End-of-life versions", of GitLab 19.3. Its last
  version for Debian 12, "19.3.0", contradicts the date beside it (June 2028) and is left out.
- gitlab-runner: docs.gitlab.com/runner/install/linux-repository, "Supported distributions", of 22 August 2026.
- The distributions' own Docker: the package lists of their archives, with updates, read on 28 November 2026.

A release that is older than all of a publisher's, or between them, has no packages. A newer one gets those of the newest:
Docker's own installation script does the same for Debian 14.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from provision.errors import ProbeFailed, Refused
from provision.inventory.tables.apt import Mirror
from provision.shell import Result, sh

# All packages at once: one process, however many resources need it.
ASK_PACKAGES: Final = sh(r"dpkg-query -W -f='${Package}\t${Version}\t${db:Status-Abbrev}\n'")
ASK_SYSTEM: Final = sh(
    '. /etc/os-release && printf "%%s\\n" "$ID" "${VERSION_CODENAME:-$UBUNTU_CODENAME}" "$VERSION_ID" && dpkg --print-architecture'
)
# What a download over HTTPS needs, by package: curl may have come another way, and apt itself needs the CAs.
ASK_DOWNLOAD_TOOLS: Final = sh(
    "command -v curl >/dev/null || echo curl; [ -e /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates"
)


class Installed(NamedTuple):
    """An installed package. `held`: apt does not change it."""

    version: str
    held: bool


class System(NamedTuple):
    """What the host runs: `ubuntu` or `debian`, its codename and version, dpkg's architecture."""

    id: str
    codename: str
    version: str
    architecture: str


@lru_cache(maxsize=256)
def read_packages(result: Result) -> Mapping[str, Installed]:
    """Installed packages by name. Source: dpkg-query(1), db:Status-Abbrev: wanted, state, error."""
    if result.code != 0:
        raise ProbeFailed(
            f"dpkg-query: {result.errors.strip()}", hint="the host must be a Debian or Ubuntu with a working dpkg"
        )
    packages = {}
    for line in result.text.splitlines():
        name, version, status, *rest = [*line.split("\t"), "", ""]
        if not name or not status or len(rest) != 2:
            raise ProbeFailed(f"dpkg-query printed: {line[:200]!r}", hint="try dpkg-query -W on the host")
        if status[1:2] == "i":
            packages[name] = Installed(version, status[0] == "h")
    return packages


def read_system(result: Result) -> System:
    """The answer to ASK_SYSTEM."""
    lines = result.text.splitlines()
    if result.code != 0 or len(lines) != 4 or lines[0] not in ("ubuntu", "debian"):
        raise ProbeFailed(
            f"not Debian or Ubuntu: {' '.join(lines) or result.errors.strip()}",
            hint="only Debian and Ubuntu hosts can be provisioned",
        )
    return System(*lines)


_NEWEST_KNOWN: Final = "the newest that are known to this version of provision"


class Release(NamedTuple):
    """A release: its distribution, its version, and the end of its free support."""

    id: str
    version: str
    end: datetime.date | None = None


RELEASES: Final[Mapping[str, Release]] = {
    "bullseye": Release("debian", "11", datetime.date(2026, 8, 31)),
    "bookworm": Release("debian", "12", datetime.date(2028, 6, 30)),
    "trixie": Release("debian", "13", datetime.date(2030, 6, 30)),
    "forky": Release("debian", "14"),
    "bionic": Release("ubuntu", "18.04", datetime.date(2023, 5, 31)),
    "focal": Release("ubuntu", "20.04", datetime.date(2025, 5, 29)),
    "jammy": Release("ubuntu", "22.04", datetime.date(2027, 6, 1)),
    "noble": Release("ubuntu", "24.04", datetime.date(2029, 5, 31)),
    "questing": Release("ubuntu", "25.10", datetime.date(2026, 7, 9)),
    "resolute": Release("ubuntu", "26.04", datetime.date(2031, 5, 29)),
    "stonking": Release("ubuntu", "26.10", datetime.date(2027, 7, 15)),
}


class Versions(NamedTuple):
    """The first and the last version that has packages for a release; "" for no limit."""

    first: str = ""
    last: str = ""


ANY: Final = Versions()


class Publisher(NamedTuple):
    """Who publishes packages, and for which releases: by distribution and code name, the newest last.

    package  a host that has it is set up: it is not refused for its release
    setting  the key of [apt] for another repository
    pinned   the version that the inventory asks for; "" for the newest
    strict   a release without packages is refused; not for a mirror, which may have kept what its publisher removed
    """

    name: str
    package: str
    setting: str
    releases: Mapping[str, Mapping[str, Versions]]
    pinned: str = ""
    strict: bool = True

    def behind(self, mirror: Mirror | None) -> Publisher | None:
        """The publisher as it counts for a mirror of it; None where the inventory names the suite itself."""
        if mirror is None:
            return self
        return None if mirror.suite else self._replace(strict=False)

    def choose(self, system: System, *, installed: bool) -> tuple[System, str]:
        """The release whose packages a host gets, and a note for the user, "" for none.

        installed  the host has the package. Raises Refused for a release without packages, unless it is installed
        """
        known = self.releases.get(system.id, {})
        newest = list(known)[-1]
        used, notes = system, []
        if system.codename not in known and _is_newer(system, newest):
            used = system._replace(codename=newest, version=RELEASES[newest].version)
            notes.append(f"{title(system)} gets {self.name}'s packages for {title(used)}, {_NEWEST_KNOWN}")
        problem, hint = self._problem(used, known)
        notes += filter(None, (problem, _ended(system)))
        if problem and self.strict and not installed:
            raise Refused(
                "; ".join(notes),
                hint=f"{hint}; or name a repository that has packages: "
                f'[apt] {self.setting} = {{ url = "https://…", suite = "{system.codename}" }}',
            )
        return used, "; ".join(notes)

    def _problem(self, system: System, known: Mapping[str, Versions]) -> tuple[str, str]:
        """Why there are no packages for the host, and what to do; "" if there are."""
        if system.codename not in known:
            others = ", ".join(RELEASES[one].version for one in known)
            return (
                f"{self.name} has no packages for {title(system)}",
                f"use a release that it has packages for: {system.id.capitalize()} {others}",
            )
        first, last = known[system.codename]
        wanted = _numbers(self.pinned)
        if wanted and first and not _numbers(first) <= wanted <= (_numbers(last) or wanted):
            limits = f"the first is {first}" + (f", the last {last}" if last else "")
            return (
                f"{self.package} {self.pinned} has no package for {title(system)}: {limits}",
                "ask for another version",
            )
        if last and not wanted:
            text = f"{self.package} {last} is the last version with packages for {title(system)}"
            return text, f'use a newer release, or ask for that version: "{last}.*"'
        return "", ""


def title(system: System) -> str:
    """A release for people: "Debian 13 (trixie)"."""
    return " ".join(filter(None, (system.id.capitalize(), system.version, f"({system.codename})")))


def distribution_docker(system: System, *, installed: bool) -> tuple[tuple[str, ...], str]:
    """The distribution's own packages of Docker with client, buildx and Compose, and a note, "" for none.

    Each is named: most are only recommended or suggested by docker.io, and hosts may be configured to leave those out.
    installed  the host has docker.io. Raises Refused for a release that is too old, unless it is installed
    """
    known = {name: packages for name, packages in _DISTRIBUTION_DOCKER.items() if RELEASES[name].id == system.id}
    newest = list(known)[-1]
    if system.codename in known:
        return known[system.codename], _ended(system)
    if _is_newer(system, newest):
        names = known[newest]
        return names, f"{title(system)} gets the Docker packages {', '.join(names)}, {_NEWEST_KNOWN}"
    problem = f"the Docker packages of {title(system)} are too old"
    if not installed:
        others = ", ".join(RELEASES[one].version for one in known)
        raise Refused(problem, hint=f"use a newer release: {system.id.capitalize()} {others}")
    return ("docker.io",), problem


def _is_newer(system: System, codename: str) -> bool:
    """Whether a host's release is newer than a known one. One without a number is: testing and unstable have none."""
    release = RELEASES.get(system.codename)
    version = _numbers(release.version if release else system.version)
    return not version or version > _numbers(RELEASES[codename].version)


def _numbers(version: str) -> tuple[int, ...]:
    """The first two numbers of a version; () for a pattern that does not begin with them."""
    found = re.match(r"(\d+)(?:\.(\d+)(?![\d*?[])|$)", version)
    return (int(found[1]), int(found[2] or 0)) if found else ()


def _ended(system: System) -> str:
    """That the release's free support has ended, since when; "" before that, and if it is not known."""
    release = RELEASES.get(system.codename)
    if release is None or release.end is None or release.end >= datetime.datetime.now(datetime.UTC).date():
        return ""
    return f"free support for {title(system)} ended on {release.end}"


DOCKER: Final = Publisher(
    "Docker",
    "docker-ce",
    "docker",
    {
        "debian": {"bullseye": ANY, "bookworm": ANY, "trixie": ANY},
        "ubuntu": {"jammy": ANY, "noble": ANY, "resolute": ANY},
    },
)
GITLAB: Final = Publisher(
    "GitLab",
    "gitlab-ce",
    "gitlab",
    {
        "debian": {
            "bullseye": Versions("14.6", "19.3"),
            "bookworm": Versions("16.1"),
            "trixie": Versions("18.5"),
        },
        "ubuntu": {
            "bionic": Versions("10.7", "16.11"),
            "focal": Versions("13.2", "18.11"),
            "jammy": Versions("15.5"),
            "noble": Versions("17.1"),
            "resolute": Versions("19.3"),
        },
    },
)
RUNNER: Final = Publisher(
    "GitLab Runner",
    "gitlab-runner",
    "runner",
    {
        "debian": {"bullseye": ANY, "bookworm": ANY, "trixie": ANY, "forky": ANY},
        "ubuntu": {"bionic": ANY, "focal": ANY, "jammy": ANY, "noble": ANY, "questing": ANY, "resolute": ANY},
    },
)

_CLIENT_INSIDE = ("docker.io", "docker-buildx", "docker-compose-v2")
_CLIENT_APART = ("docker.io", "docker-cli", "docker-buildx", "docker-compose")
_DISTRIBUTION_DOCKER: Final[Mapping[str, tuple[str, ...]]] = {
    # buildx and the Compose plug-in are not in these three: docker-compose is Compose 1 there.
    "bullseye": ("docker.io",),
    "bookworm": ("docker.io",),
    "focal": ("docker.io",),
    "trixie": _CLIENT_APART,
    "forky": _CLIENT_APART,
    "jammy": _CLIENT_INSIDE,
    "noble": _CLIENT_INSIDE,
    "questing": _CLIENT_INSIDE,
    "resolute": _CLIENT_INSIDE,
    "stonking": _CLIENT_INSIDE,
}
