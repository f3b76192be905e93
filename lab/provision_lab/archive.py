"""The lab's whole apt server, built once: parts laid out like Docker's, GitLab's and Debian's own.

/docker/linux/{debian,ubuntu}                    docker-ce … in two revisions
/gitlab/gitlab-ce/{debian,ubuntu}/CODENAME       the stand-in gitlab-ce
/runner/gitlab-runner/{debian,ubuntu}            the stand-ins of gitlab-runner and its helper images
/debian                                          Debian's Docker, and the gitlab-runner 11.2.0 that Ubuntu has
/docker.asc, /gitlab.asc, /debian.asc            the keys that sign them
"""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

from provision_lab import cache, control, docker_debs
from provision_lab.image import Image
from provision_lab.repository import Signer, Suite, architecture, discard, signers, write
from provision_lab.run import LabError

_HERE = Path(__file__).parent
_STANDINS = _HERE / "standins"


def ensure(image: Image) -> Path:
    """The server's root, built now if it is not there for this image, these stand-ins and this code."""
    key = cache.key_of(image.key, _code("repository.py", "archive.py"), cache.hash_of_files(_STANDINS))
    return cache.ensure("apt", key, lambda draft: _make(draft, image))


def _docker(image: Image) -> Path:
    """Docker's packages, a folder for each system: apart, since they take the longest and change the least."""
    key = cache.key_of(image.key, _code("control.py", "docker_debs.py"))
    return cache.ensure("docker", key, lambda draft: docker_debs.build(image.ensure() / "debs", draft, image.codenames))


def _code(*names: str) -> list[str]:
    return [_HERE.joinpath(name).read_text() for name in names]


def _make(draft: Path, image: Image) -> None:
    debs = image.ensure() / "debs"
    work = draft / "work"
    built = work / "built"
    built.mkdir(parents=True)
    keys = signers(("docker", "gitlab", "debian"))
    try:
        for system, codename in image.codenames.items():
            packages = (_docker(image) / system).glob("*.deb")
            suite = Suite(f"docker/linux/{system}", codename, "stable", "Docker", "Docker CE")
            write(draft, suite, packages, keys["docker"])
        for system, codename in image.codenames.items():
            _gitlab(draft, system, codename, built, keys["gitlab"])
        local = [*debs.glob("*.deb"), _old_runner(work, built)]
        write(draft, Suite("debian", image.suite, "main", "Debian", "Debian"), local, keys["debian"])
    finally:
        discard(keys, draft)
    shutil.rmtree(work)


def _gitlab(draft: Path, system: str, codename: str, built: Path, signer: Signer) -> None:
    server, runner = "gitlab/gitlab-ce", "runner/gitlab-runner"
    suite = Suite(f"{server}/{system}/{codename}", codename, "main", f"packages.gitlab.com/{server}", "gitlab-ce")
    write(draft, suite, _standin("gitlab_ce", built), signer)
    suite = Suite(f"{runner}/{system}", codename, "main", f"packages.gitlab.com/{runner}", "gitlab-runner")
    write(draft, suite, _standin("gitlab_runner", built), signer)


def _standin(name: str, built: Path) -> list[Path]:
    """The stand-in's packages, from its `build.py`; none while it has no such file."""
    out = built / name
    if not out.is_dir() and (_STANDINS / name / "build.py").is_file():
        out.mkdir()
        module = importlib.import_module(f"provision_lab.standins.{name}.build")
        made = module.build(out)
        if not made or not all(path.suffix == ".deb" and path.is_file() for path in made):
            raise LabError(f"the stand-in {name} built no packages: {made}")
    return sorted(out.glob("*.deb"))


def _old_runner(work: Path, built: Path) -> Path:
    """A trap that is there on real hosts: the distribution's own, ancient gitlab-runner."""
    tree = work / "old-runner"
    program = tree / "usr/bin/gitlab-runner"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\necho "Version:      11.2.0"\n')
    program.chmod(0o755)
    fields = {"Package": "gitlab-runner", "Version": "11.2.0+dfsg-2", "Architecture": architecture()}
    fields |= {
        "Maintainer": "provision lab <lab@lab.test>",
        "Description": "GitLab Runner, as old as the distribution's",
    }
    return control.build(built, fields, {}, control.pack(tree, work / "old-runner.tar.gz"))
