"""Builds the stand-in's packages: gitlab-runner and gitlab-runner-helper-images, in two versions each."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from provision_lab import packages
from provision_lab.repository import architecture
from provision_lab.run import run

VERSIONS = ("19.2.0-1", "19.3.0-1")
_HERE = Path(__file__).parent
_COMMON = {"Maintainer": "GitLab Inc. <support@gitlab.com>", "Section": "admin", "Priority": "optional"}


_GIT = ("usr/bin/git", "usr/lib/git-core/git-remote-http")
_OF_EVERY_HOST = re.compile(r"lib(?:c|m|dl|rt|pthread|resolv)\.so|ld-linux")


def build(out: Path, root: Path | None = None) -> list[Path]:
    """Writes the .deb files into `out` and returns them. Raises OSError and LabError.

    root    the system whose git the helper package carries, as the real helper images do; without it, the host's is used
    """
    made = []
    with tempfile.TemporaryDirectory() as work:
        for version in VERSIONS:
            made += [_runner(out, Path(work) / version, version), _helper(out, Path(work) / version, version, root)]
    return made


def _runner(out: Path, work: Path, version: str) -> Path:
    tree = work / "runner"
    shutil.copytree(_HERE / "root", tree)
    program = tree / "usr/share/gitlab-runner/standin"
    shutil.copytree(_HERE / "host", program, ignore=shutil.ignore_patterns("__pycache__"))
    (program / "VERSION").write_text(version.partition("-")[0] + "\n")
    for script in ("usr/bin/gitlab-runner", "usr/share/gitlab-runner/post-install"):
        (tree / script).chmod(0o755)  # a wheel does not keep modes
    (tree / "usr/share/gitlab-runner/clear-docker-cache").chmod(0o755)
    fields = _COMMON | {
        "Package": "gitlab-runner",
        "Version": version,
        "Architecture": architecture(),
        "Depends": f"ca-certificates, curl, passwd, python3 (>= 3.11), gitlab-runner-helper-images (= {version})",
        "Provides": "gitlab-ci-multi-runner",
        "Conflicts": "gitlab-ci-multi-runner",
        "Replaces": "gitlab-ci-multi-runner",
        "Description": "GitLab Runner (the lab's stand-in)",
    }
    scripts = {name: (_HERE / "debian" / name).read_text() for name in ("postinst", "prerm")}
    return packages.write_deb(out, fields, scripts, packages.pack(tree, work / "runner.tar.zst"))


def _carry_git(root: Path, folder: Path) -> None:
    """Copies git with its libraries: a host may have none."""
    folder.mkdir(parents=True)
    for name in _GIT:
        shutil.copy(root / name, folder)
    (folder / "git-remote-https").symlink_to("git-remote-http")
    listed = run("chroot", root, "ldd", *(f"/{name}" for name in _GIT)).stdout
    for path in sorted(set(re.findall(r"=> (/\S+)", listed))):
        if not _OF_EVERY_HOST.match(Path(path).name):
            shutil.copy(root / path[1:], folder)


def _helper(out: Path, work: Path, version: str, root: Path | None) -> Path:
    tree = work / "helper"
    images = tree / "usr/lib/gitlab-runner/helper-images"
    images.mkdir(parents=True)
    (images / "README").write_text("The real package holds 500 MB of images here.\n")
    if root:
        _carry_git(root, images.parent / "git")
    fields = _COMMON | {
        "Package": "gitlab-runner-helper-images",
        "Version": version,
        "Architecture": architecture() if root else "all",
        "Description": "GitLab Runner's helper images (the lab's stand-in: git alone)",
    }
    return packages.write_deb(out, fields, {}, packages.pack(tree, work / "helper.tar.zst"))
