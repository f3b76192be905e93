"""Container images of programs in Debian's packages, for hosts that reach no image registry.

An image has the name that it has in its own registry, and the content that Debian has for it. It is built once for each
machine and kept in the cache.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from provision_lab import cache
from provision_lab.lab import Lab
from provision_lab.run import LabError, LabUnavailable, run

_SUITE: Final = "trixie"
_LEFT_OUT: Final = ("man", "doc", "locale", "info")


@dataclass(frozen=True)
class ContainerImage:
    """An image that holds these packages of Debian.

    files    what the image's own authors add: text by path, without the leading slash
    changes  lines of a Dockerfile that `docker import --change` takes: ENV, CMD, VOLUME, WORKDIR
    """

    packages: tuple[str, ...]
    files: dict[str, str] = field(default_factory=dict)
    changes: tuple[str, ...] = ()

    def load(self, lab: Lab, host: str, name: str) -> None:
        """Creates the image on a host that has Docker, under this name with its tag."""
        tar = self.ensure() / "image.tar"
        there = lab.machine(host).root / "var/tmp/image.tar"
        shutil.copyfile(tar, there)
        try:
            changes = "".join(f"--change '{line}' " for line in self.changes)
            lab.inside(host, f"docker import {changes}/var/tmp/image.tar {name}", deadline=300)
        finally:
            there.unlink()

    def ensure(self) -> Path:
        """The folder with `image.tar`, built if it is not in the cache. Raises LabUnavailable."""
        return cache.ensure("container", cache.key_of(_SUITE, asdict(self)), self._make)

    def _make(self, draft: Path) -> None:
        added = draft / "added"
        for path, text in self.files.items():
            (added / path).parent.mkdir(parents=True, exist_ok=True)
            (added / path).write_text(text)
        options = [f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in _LEFT_OUT]
        options += [f"--customize-hook=copy-in {path} /" for path in sorted(added.glob("*"))]
        try:
            run(
                *("mmdebstrap", "--variant=minbase", f"--include={','.join(self.packages)}"),
                *("--aptopt=Acquire::Languages none", "--aptopt=Acquire::Retries 3", *options),
                *(_SUITE, str(draft / "image.tar")),
                deadline=600,
            )
        except LabError as error:
            what = f"the image of {', '.join(self.packages)} could not be built: {error.text}"
            raise LabUnavailable(what, hint="the first build needs Debian's archive") from error


# Like quay.io/buildah/stable: the program as root, its storage in a volume, and the settings that its Containerfile
# makes (github.com/containers/image_build, buildah/Containerfile). Its fuse-overlayfs is not used here.
BUILDAH: Final = ContainerImage(
    ("buildah", "netavark", "uidmap", "ca-certificates"),
    {
        "etc/containers/storage.conf": (
            '[storage]\ndriver = "overlay"\nrunroot = "/run/containers/storage"\ngraphroot = "/var/lib/containers/storage"\n'
            '[storage.options.overlay]\nmount_program = "/usr/bin/fuse-overlayfs"\nmountopt = "nodev,fsync=0"\n'
        )
    },
    ('ENV _CONTAINERS_USERNS_CONFIGURED=""', "ENV BUILDAH_ISOLATION=chroot", "VOLUME /var/lib/containers"),
)
