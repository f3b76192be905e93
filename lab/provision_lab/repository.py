"""The lab's apt server: signed repositories of .deb files, laid out like Docker's, GitLab's and Debian's own.

/docker/linux/{debian,ubuntu}                    docker-ce and its companions in two revisions
/gitlab/gitlab-ce/{debian,ubuntu}/CODENAME       the stand-in gitlab-ce
/runner/gitlab-runner/{debian,ubuntu}            the stand-ins of gitlab-runner and its helper images
/debian                                          Debian's Docker, and the gitlab-runner 11.2.0 that Ubuntu has
/docker.asc, /gitlab.asc, /debian.asc            the keys that sign them
"""

from __future__ import annotations

import email.utils
import gzip
import hashlib
import importlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from provision_lab import cache, packages
from provision_lab.image import Image
from provision_lab.run import LabError, run

_HERE = Path(__file__).parent
_STANDINS = _HERE / "standins"
_MAINTAINER = "provision lab <lab@lab.test>"
# Packages that Ubuntu has under names of its own, and what they need on Debian. Ubuntu's docker.io contains the client.
_UBUNTU_NAMES = {"docker-compose-v2": "docker-cli, docker-compose"}


@dataclass(frozen=True)
class Suite:
    """One suite of the repository at `path` below the server's root: `deb URL/path name component` in a sources list."""

    path: str
    name: str
    component: str
    origin: str
    label: str


class Signer:
    """A signing key in a key ring of its own; `public` is the armoured public key, for the hosts."""

    def __init__(self, ring: Path, owner: str) -> None:
        self.ring = ring
        ring.mkdir(mode=0o700)
        self._gpg(
            "--passphrase", "", "--quick-generate-key", f"{owner} <{ring.name}@lab.test>", "ed25519", "sign", "never"
        )
        self.public = self._gpg("--armor", "--export")

    def clearsign(self, text: str) -> str:
        """The text with its signature around it: InRelease."""
        return self._gpg("--clearsign", stdin=text)

    def detach(self, text: str) -> str:
        """The signature alone: Release.gpg."""
        return self._gpg("--armor", "--detach-sign", stdin=text)

    def close(self) -> None:
        """Ends the agent that gpg started."""
        run("gpgconf", "--homedir", self.ring, "--kill", "all", check=False)

    def _gpg(self, *arguments: str, stdin: str = "") -> str:
        return run("gpg", "--homedir", self.ring, "--batch", "--quiet", *arguments, stdin=stdin).stdout


def write(server: Path, suite: Suite, debs: Iterable[Path], signer: Signer) -> None:
    """Writes pool, Packages and the signed Release of `suite` below the server's root."""
    base = server / suite.path
    pool = base / "pool" / suite.name
    pool.mkdir(parents=True, exist_ok=True)
    entries = []
    for deb in sorted(debs):
        placed = pool / deb.name
        if not placed.exists():
            placed.hardlink_to(deb)
        entries.append(_entry(placed, base))
    dist = base / "dists" / suite.name
    folder = dist / suite.component / f"binary-{architecture()}"
    folder.mkdir(parents=True)
    text = "\n".join(entries).encode()
    folder.joinpath("Packages").write_bytes(text)
    folder.joinpath("Packages.gz").write_bytes(gzip.compress(text, mtime=0))
    release = _release(suite, dist)
    dist.joinpath("Release").write_text(release)
    dist.joinpath("InRelease").write_text(signer.clearsign(release))
    dist.joinpath("Release.gpg").write_text(signer.detach(release))


def _entry(deb: Path, base: Path) -> str:
    fields = packages.fields_of(deb)
    content = deb.read_bytes()
    fields |= {
        "Filename": str(deb.relative_to(base)),
        "Size": str(len(content)),
        "MD5sum": hashlib.md5(content, usedforsecurity=False).hexdigest(),
        "SHA256": hashlib.sha256(content).hexdigest(),
    }
    return packages.paragraph(fields)


def _release(suite: Suite, dist: Path) -> str:
    sums = [""]
    for path in sorted(dist.glob(f"{suite.component}/**/Packages*")):
        content = path.read_bytes()
        sums.append(f" {hashlib.sha256(content).hexdigest()} {len(content)} {path.relative_to(dist)}")
    fields = {
        "Origin": suite.origin,
        "Label": suite.label,
        "Suite": suite.name,
        "Codename": suite.name,
        "Date": email.utils.formatdate(usegmt=True).replace("GMT", "UTC"),
        "Architectures": architecture(),
        "Components": suite.component,
        "SHA256": "\n".join(sums),
    }
    return packages.paragraph(fields)


def architecture() -> str:
    """This machine's architecture by Debian's name."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def signers(names: Iterable[str]) -> dict[str, Signer]:
    """A signing key for each name. Call `discard` when everything is signed."""
    return {
        name: Signer(Path(tempfile.mkdtemp(prefix="provision-lab-")) / name, f"provision lab: {name}") for name in names
    }


def discard(keys: dict[str, Signer], into: Path) -> None:
    """Writes the public keys as `into`/NAME.asc and deletes the private ones."""
    for name, signer in keys.items():
        into.joinpath(f"{name}.asc").write_text(signer.public)
        signer.close()
        shutil.rmtree(signer.ring.parent)


def ensure(image: Image) -> Path:
    """The server's root; built now if it is not in the cache for this image, these stand-ins and this code."""
    key = cache.key_of(image.key, _code("repository.py", "packages.py"), cache.hash_of_files(_STANDINS))
    return cache.ensure("apt", key, lambda draft: _build(draft, image))


def _docker(image: Image) -> Path:
    """Docker's packages, a folder for each system. They have a cache entry of their own, because they take longest."""
    key = cache.key_of(image.key, _code("packages.py"))
    return cache.ensure(
        "docker", key, lambda draft: packages.build_docker(image.ensure() / "debs", draft, image.codenames)
    )


def _code(*names: str) -> list[str]:
    return [_HERE.joinpath(name).read_text() for name in names]


def _build(draft: Path, image: Image) -> None:
    base = image.ensure()
    debs, work = base / "debs", draft / "work"
    built = work / "built"
    built.mkdir(parents=True)
    keys = signers(("docker", "gitlab", "debian"))
    try:
        for system, codename in image.codenames.items():
            suite = Suite(f"docker/linux/{system}", codename, "stable", "Docker", "Docker CE")
            write(draft, suite, (_docker(image) / system).glob("*.deb"), keys["docker"])
        for system, codename in image.codenames.items():
            _write_gitlab(draft, system, codename, built, base / "root", keys["gitlab"])
        local = [*debs.glob("*.deb"), _old_runner(work, built)]
        local += [_renamed(built, *names) for names in _UBUNTU_NAMES.items()] if image.made_like else []
        write(draft, Suite("debian", image.suite, "main", "Debian", "Debian"), local, keys["debian"])
    finally:
        discard(keys, draft)
    shutil.rmtree(work)


def _write_gitlab(draft: Path, system: str, codename: str, built: Path, base: Path, signer: Signer) -> None:
    server, runner = "gitlab/gitlab-ce", "runner/gitlab-runner"
    suite = Suite(f"{server}/{system}/{codename}", codename, "main", f"packages.gitlab.com/{server}", "gitlab-ce")
    write(draft, suite, _standin("gitlab_ce", built, base), signer)
    suite = Suite(f"{runner}/{system}", codename, "main", f"packages.gitlab.com/{runner}", "gitlab-runner")
    write(draft, suite, _standin("gitlab_runner", built, base), signer)


def _standin(name: str, built: Path, root: Path) -> list[Path]:
    """The packages of a stand-in, made by its `build.py` for the system at `root`."""
    out = built / name
    if not out.is_dir():
        out.mkdir()
        made = importlib.import_module(f"provision_lab.standins.{name}.build").build(out, root)
        if not made or not all(path.suffix == ".deb" and path.is_file() for path in made):
            raise LabError(f"the stand-in {name} built no packages: {made}")
    return sorted(out.glob("*.deb"))


def _old_runner(work: Path, built: Path) -> Path:
    """The distribution's own, very old gitlab-runner: real hosts offer it, so a task must not install it."""
    tree = work / "old-runner"
    program = tree / "usr/bin/gitlab-runner"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\necho "Version:      11.2.0"\n')
    program.chmod(0o755)
    fields = {"Package": "gitlab-runner", "Version": "11.2.0+dfsg-2", "Architecture": architecture()}
    fields |= {"Maintainer": _MAINTAINER, "Description": "GitLab Runner, as old as the distribution's"}
    return packages.write_deb(built, fields, {}, packages.pack(tree, work / "old-runner.tar.zst"))


def _renamed(built: Path, name: str, needs: str) -> Path:
    """An empty package with Ubuntu's name, which needs Debian's packages."""
    tree = built / name
    tree.mkdir()
    fields = {"Package": name, "Version": "1.0-1", "Architecture": "all", "Depends": needs}
    fields |= {"Maintainer": _MAINTAINER, "Description": f"Ubuntu's name for {needs}"}
    return packages.write_deb(built, fields, {}, packages.pack(tree, built / f"{name}.tar.zst"))
