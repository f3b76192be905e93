"""Ubuntu's releases that lab hosts can be made like, as data. All are built from Debian's packages."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from provision_lab.run import LabError


@dataclass(frozen=True)
class OsRelease:
    """What os-release and lsb-release say about a host."""

    version: str
    full_version: str
    codename: str
    name: str

    @property
    def files(self) -> dict[str, str]:
        """The text of each file by its path, without the leading slash. Format: os-release(5)."""
        pretty = f"Ubuntu {self.full_version}"
        os_release = {
            "PRETTY_NAME": f'"{pretty}"',
            "NAME": '"Ubuntu"',
            "VERSION_ID": f'"{self.version}"',
            "VERSION": f'"{self.full_version} ({self.name})"',
            "VERSION_CODENAME": self.codename,
            "ID": "ubuntu",
            "ID_LIKE": "debian",
            "HOME_URL": '"https://www.ubuntu.com/"',
            "UBUNTU_CODENAME": self.codename,
        }
        lsb_release = {
            "DISTRIB_ID": "Ubuntu",
            "DISTRIB_RELEASE": self.version,
            "DISTRIB_CODENAME": self.codename,
            "DISTRIB_DESCRIPTION": f'"{pretty}"',
        }
        return {"usr/lib/os-release": _assignments(os_release), "etc/lsb-release": _assignments(lsb_release)}


def _assignments(values: dict[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in values.items())


@dataclass(frozen=True)
class Flavour:
    """A system that the base image is made like.

    suite        the suite of Debian that it is built from
    os_release   what its hosts say they are
    packages     packages that Debian's own hosts do not have
    links        path of a program: the program that takes its place
    folder       a folder of programs that take the places of those of the same name
    kept         programs that are not replaced
    """

    suite: str
    os_release: OsRelease
    packages: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    folder: str = ""
    kept: tuple[str, ...] = ()

    def apply(self, root: Path) -> None:
        """Puts the programs below `root` into their places. Raises LabError when one is missing."""
        links = dict(self.links)
        for program in sorted((root / self.folder).iterdir()) if self.folder else ():
            for path in (f"{place}/{program.name}" for place in ("usr/bin", "usr/sbin")):
                if (root / path).exists() and program.name not in self.kept:
                    links[path] = f"{self.folder}/{program.name}"
        for path, replacement in links.items():
            if not os.path.lexists(root / replacement):
                raise LabError(f"the base image has no /{replacement}", hint="the package has another layout now")
            (root / path).unlink(missing_ok=True)
            (root / path).symlink_to(f"/{replacement}")


UBUNTU_24_04: Final = OsRelease("24.04", "24.04.3 LTS", "noble", "Noble Numbat")
_UBUNTU_26_04 = OsRelease("26.04", "26.04.1 LTS", "resolute", "Resolute Raccoon")
FLAVOURS: Final = {
    # Ubuntu 26.04 has sudo-rs and the uutils; its cp, mv and rm are still those of GNU.
    "ubuntu-26.04": Flavour(
        "sid",
        _UBUNTU_26_04,
        packages=("sudo-rs", "rust-coreutils", "tini-static"),  # the last one for sid's docker.io
        links=(("usr/bin/sudo", "usr/bin/sudo-rs"), ("usr/sbin/visudo", "usr/bin/visudo-rs")),
        folder="usr/lib/cargo/bin/coreutils",
        kept=("cp", "mv", "rm"),
    )
}
