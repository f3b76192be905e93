"""Debian packages, at a version and from a given repository.  Sources: apt-get(8), apt-mark(8), dpkg-query(1)."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Final

from provision.host.docker import CI_JOBS_LIMIT_SECONDS
from provision.host.pending import Handler
from provision.host.releases import ASK_PACKAGES, Installed, read_packages
from provision.host.scripts import script
from provision.host.state import strings
from provision.inventory import Settings
from provision.inventory.tables.apt import LOCK_SECONDS, Apt
from provision.inventory.tables.proxy import Proxy
from provision.resources.base import Change, Note, Observation, Probe, Resource
from provision.shell import Command, sh

STALL_SECONDS: Final = 60
"""A download ends when nothing arrives for so long."""
SLOW_DOWNLOAD: Final = 24 * 3600.0
"""Seconds for a change that downloads. Downloads that stall end by themselves, long before; slow ones may continue."""
_INSTALLATION_SECONDS: Final = 1800  # without the download; a package's own scripts may take minutes


def install(
    packages: Sequence[str],
    *,
    lock_timeout: int,
    origin: str = "",
    environment: Sequence[str] = (),
    downgrade: bool = False,
    first: str = "",
    last: str = "",
) -> Command:
    """A command that installs packages, `NAME` or `NAME=VERSION`, in one transaction; arguments as for `Packages`."""
    limits = (lock_timeout, STALL_SECONDS, _INSTALLATION_SECONDS)
    options = (origin, sh("%s", list(environment)).script, "yes" if downgrade else "no", first, last)
    return script("install_packages", *limits, *options, list(packages))


def install_tools(packages: Sequence[str], lock_timeout: int) -> Change:
    """The installation of what a download needs."""
    command = install(packages, lock_timeout=lock_timeout)
    return Change(f"install {', '.join(packages)}", command, "create", deadline=SLOW_DOWNLOAD)


def download_settings(settings: Settings, scheme: str) -> dict[str, Any]:
    """The fields `lock_timeout` and `proxy` of a resource that downloads by curl, as far as the inventory has them."""
    found: dict[str, Any] = {"lock_timeout": settings[Apt].lock_timeout} if Apt in settings else {}
    proxy = settings.get(Proxy) if Proxy in settings else None
    return {**found, "proxy": proxy.for_curl(scheme)} if proxy else found


@dataclass(frozen=True)
class Packages(Resource):
    """Packages are installed, all in one transaction: `Packages(["ufw", "htop"])`.

    names        one name, or several
    version      a glob that the installed version matches (`5:29.*`); "" for any
    versioned    the packages that `version` and `hold` are about; all by default
    hold         apt does not upgrade them; our hold is removed when `hold` is no longer set
    conflicting  packages that are removed first
    origin       the beginning of the address that each package must come from; "" for any
    environment  for apt, `NAME=value`
    downgrade    allow an older version to replace a newer one
    first        shell text that runs before an installed package is replaced or removed: after the download
    last         shell text that runs after it was replaced, also if that failed
    notify       handlers that must run after an installed package was replaced
    lock_timeout seconds to wait for other package managers; None: [apt] lock_timeout, 900 by default
    """

    names: Sequence[str]
    version: str = ""
    versioned: tuple[str, ...] = ()
    hold: bool = False
    conflicting: tuple[str, ...] = ()
    origin: str = ""
    environment: tuple[str, ...] = ()
    downgrade: bool = False
    first: str = ""
    lock_timeout: int | None = None
    last: str = ""
    notify: tuple[Handler, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", (self.names,) if isinstance(self.names, str) else tuple(self.names))

    def with_settings(self, settings: Settings) -> Packages:
        if self.lock_timeout is not None or Apt not in settings:
            return self
        return replace(self, lock_timeout=settings[Apt].lock_timeout)

    @property
    def label(self) -> str:
        return f"Packages {self.names[0]}" + (f" +{len(self.names) - 1}" if len(self.names) > 1 else "")

    @property
    def record_key(self) -> str:
        return f"held {self.names[0]}"

    def claims(self) -> Mapping[str, Hashable]:
        return {f"version of package {name}": self.version for name in self._pinned()} if self.version else {}

    def probe(self) -> Probe:
        return Probe.of(ASK_PACKAGES)

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        installed = read_packages(seen.only)
        unwanted = [name for name in self.conflicting if name in installed]
        if unwanted:
            yield Change(
                f"remove {', '.join(unwanted)}: in conflict with {self.names[0]}",
                Command(self.first + script("remove_packages", self._lock_timeout, unwanted).script),
                "delete",
                deadline=self._deadline,
            )
        wrong = [name for name in self.names if not self._fits(name, installed.get(name))]
        if wrong:
            yield self._install(wrong, installed)
        # Installing removes the hold of the packages that change: they are held again.
        held = [name for name, one in installed.items() if one.held and not wrong]
        to_hold = [name for name in self._pinned() if self.hold and name not in held]
        if to_hold:
            yield Change(
                f"hold {', '.join(to_hold)}", sh("apt-mark hold -- %s", to_hold), record=sorted(self._pinned())
            )
        # Only our own hold is removed: others hold a package for reasons of their own.
        ours = set(strings(seen.record)) - {name for names in seen.others.values() for name in strings(names)}
        to_unhold = [name for name in held if name in ours] if not self.hold else []
        if to_unhold:
            yield Change(f"unhold {', '.join(to_unhold)}", sh("apt-mark unhold -- %s", to_unhold), record=None)

    def _pinned(self) -> Sequence[str]:
        return self.versioned or self.names

    def _fits(self, name: str, found: Installed | None) -> bool:
        if found is None:
            return False
        return not self.version or name not in self._pinned() or fnmatchcase(found.version, self.version)

    def _install(self, wrong: list[str], installed: Mapping[str, Installed]) -> Change:
        # All pinned packages change in one step: apt may find no solution otherwise. Others stay as they are.
        together = self._pinned() if self.version or not self.versioned else ()
        to_install = [name for name in self.names if name in wrong or name in together]
        arguments = [
            f"{name}={self.version}" if self.version and name in self._pinned() else name for name in to_install
        ]
        replaces = any(name in installed for name in to_install)
        command = install(
            arguments,
            lock_timeout=self._lock_timeout,
            origin=self.origin,
            environment=self.environment,
            downgrade=self.downgrade,
            first=self.first if replaces else "",
            last=self.last if replaces else "",
        )
        now = [f"{name} {installed[name].version}" for name in wrong if name in installed]
        verb = "replace" if now else "install"
        text = f"{verb} {', '.join(now or wrong)}" + (f" by version {self.version}" if now else "")
        if not now and self.version:
            text += f" (version {self.version})"
        notify = self.notify if now else ()
        return Change(text, command, "update" if now else "create", notify=notify, deadline=self._deadline)

    @property
    def _lock_timeout(self) -> int:
        return LOCK_SECONDS if self.lock_timeout is None else self.lock_timeout

    @property
    def _deadline(self) -> float:
        return SLOW_DOWNLOAD + 3 * self._lock_timeout + (CI_JOBS_LIMIT_SECONDS if self.first else 0)
