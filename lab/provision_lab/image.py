"""The base image: one minimal Debian (or Ubuntu) tree that all hosts share, and packages kept beside it."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from provision_lab import cache, packages
from provision_lab.flavours import FLAVOURS, UBUNTU_24_04, Flavour
from provision_lab.run import LabError, LabUnavailable, require, run

DEFAULT_SUITE: Final = "trixie"
_RECIPE = 2  # raise it when `_finish` changes the tree in another way
_SYSTEM = (
    *("systemd", "systemd-sysv", "dbus", "openssh-server", "sudo", "ca-certificates", "iproute2", "iputils-ping"),
    *("procps", "curl", "gnupg", "ufw", "iptables", "python3", "busybox-static"),
)
# Dependencies of the stand-ins, Docker and certbot: lab hosts install those without Debian's archive.
_DEPENDENCIES = (
    *("git", "ruby", "nginx-light", "docker-registry", "python3-cryptography", "adduser", "libdevmapper1.02.1"),
    *("libseccomp2", "libsystemd0", "lsb-base", "tini", "openssl", "xz-utils"),
    *("python3-acme", "python3-configargparse", "python3-configobj", "python3-distro", "python3-parsedatetime"),
)
_TRAITS = ("fish", "csh", "libfaketime")  # what hosts with a trait need (traits.py)
_BARE = ("curl", "ca-certificates", "openssl", "ufw")  # what a bare host installs
_KEPT_DEBS = (*packages.ORIGINS, "certbot", "python3-certbot", *_BARE)
# Debian's archive may be a copy some weeks old, and its suites without a release expire. Hosts do not keep the setting.
_EXPIRED = 'Acquire::Check-Valid-Until "false"'
_DISABLED = ("nginx", "docker-registry", "ufw")
_MASKED = (
    *("console-getty.service", "getty@.service", "systemd-networkd-wait-online.service", "e2scrub_reap.service"),
    *("apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "dpkg-db-backup.timer"),
    *("fstrim.timer", "logrotate.timer"),
    "systemd-modules-load.service",  # modules are those of the machine; none of them can be loaded from a host
)


@dataclass(frozen=True)
class Image:
    """The system that hosts run.

    suite     the suite of the archive
    mirror    the archive; empty: Debian's own. With a mirror of Ubuntu, hosts are real Ubuntu
    flavour   the system that Debian is made like; a name in `FLAVOURS`
    """

    suite: str = DEFAULT_SUITE
    mirror: str = ""
    flavour: str = ""

    @classmethod
    def like(cls, flavour: str) -> Image:
        """The system that is made like this one of `FLAVOURS`."""
        return cls(FLAVOURS[flavour].suite, flavour=flavour)

    @property
    def made_like(self) -> Flavour | None:
        """How it is made like another system."""
        return FLAVOURS[self.flavour] if self.flavour else None

    @property
    def system(self) -> str:
        """What hosts say they are: debian or ubuntu."""
        return "ubuntu" if self.made_like or self._is_from_ubuntu else "debian"

    @property
    def _is_from_ubuntu(self) -> bool:
        return "ubuntu" in self.mirror

    @property
    def codenames(self) -> dict[str, str]:
        """The release of each system that the lab's repositories serve; for the image's own system, the image's release."""
        own = self.made_like.os_release.codename if self.made_like else self.suite
        return {"debian": DEFAULT_SUITE, "ubuntu": UBUNTU_24_04.codename} | {self.system: own}

    @property
    def source(self) -> str:
        """The image's own archive, in the format of a .sources file."""
        system = "ubuntu" if self._is_from_ubuntu else "debian"
        components = "main universe" if self._is_from_ubuntu else "main"
        keyring = f"/usr/share/keyrings/{system}-archive-keyring.gpg"
        url = self.mirror or "http://deb.debian.org/debian"
        return f"Types: deb\nURIs: {url}\nSuites: {self.suite}\nComponents: {components}\nSigned-By: {keyring}\n"

    @property
    def key(self) -> str:
        """The key of its cache entry."""
        return cache.key_of(
            *(_RECIPE, asdict(self), _SYSTEM, _DEPENDENCIES, _KEPT_DEBS, _DISABLED, _MASKED, os.uname().machine),
            *(packages.SPLIT_ORIGINS, _TRAITS, asdict(self.made_like) if self.made_like else None),
        )

    @property
    def is_built(self) -> bool:
        """Whether it is in the cache."""
        return cache.entry("base", self.key).is_dir()

    def ensure(self) -> Path:
        """The folder with `root/` (the tree) and `debs/` (packages for the lab's repository); built if it is not in the cache."""
        require(build=not self.is_built)
        return cache.ensure("base", self.key, self._make)

    def _make(self, draft: Path) -> None:
        root, debs = draft / "root", draft / "debs"
        debs.mkdir()
        os.chown(debs, _apt_uid(), 0)
        there = (
            f"$(apt-cache --generate pkgnames | grep -Fx {' '.join(f'-e {name}' for name in packages.SPLIT_ORIGINS)})"
        )
        download = f"apt-get download -q {' '.join(_KEPT_DEBS)} {there}"
        hook = f'set -e; cd {debs}; export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"; {download}'
        options = [f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("man", "doc", "locale", "info")]
        options += ["--aptopt=Acquire::Languages none", "--aptopt=Acquire::Retries 3", f"--customize-hook={hook}"]
        flavour = self.made_like
        options += [f"--aptopt={_EXPIRED}"] if flavour else []
        included = ",".join((*_SYSTEM, *_DEPENDENCIES, *_TRAITS, *(flavour.packages if flavour else ())))
        where = [self.suite, str(root), *([self.mirror] if self.mirror else [])]
        components = "main,universe" if self._is_from_ubuntu else "main"
        try:
            run(
                *("mmdebstrap", "--variant=minbase", f"--include={included}", f"--components={components}"),
                *options,
                *where,
                deadline=600,
            )
        except LabError as error:
            hint = "the first build needs Debian's archive; choose another one with --mirror and --suite"
            raise LabUnavailable(f"the base image could not be built: {error.text}", hint=hint) from error
        _finish(root)
        if flavour:
            settings = root / "etc/apt/apt.conf.d/99mmdebstrap"
            settings.write_text(settings.read_text().replace(f"{_EXPIRED};\n", ""))
            flavour.apply(root)


def _finish(root: Path) -> None:
    """Makes the tree a host: adds the user, disables what tasks enable, masks timers, removes what each host has its own of."""
    run("chroot", root, "useradd", "--create-home", "--shell", "/bin/bash", "ubuntu")
    run("chroot", root, "systemctl", "disable", "-q", *_DISABLED)
    run("chroot", root, "systemctl", "mask", "-q", *_MASKED)
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()  # each host has its own
    for path in ("etc/apt/sources.list", "etc/resolv.conf", "etc/hostname", "etc/machine-id"):
        (root / path).unlink(missing_ok=True)
    for folder in ("etc/apt/sources.list.d", "var/lib/apt/lists"):
        shutil.rmtree(root / folder, ignore_errors=True)
        (root / folder).mkdir(parents=True)
    (root / "var/lib/docker").mkdir(mode=0o710)


def _apt_uid() -> int:
    """The id of the user that apt downloads as, who must be able to write into the folder."""
    import pwd

    try:
        return pwd.getpwnam("_apt").pw_uid
    except KeyError:
        return 0
