"""Facts about a host that several resources need. The engine asks each question once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from provision.errors import ProbeFailed
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
