"""The packages of the lab's gitlab-runner, read by dpkg."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from provision_lab.standins.gitlab_runner.build import build

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The .deb files, by `name_version`."""
    return {path.name.rpartition("_")[0]: path for path in build(tmp_path_factory.mktemp("debs"))}


def _field(deb: Path, name: str) -> str:
    return subprocess.run(["dpkg-deb", "-f", deb, name], capture_output=True, text=True, check=True).stdout.strip()


def test_two_versions_of_both(packages: dict[str, Path]) -> None:
    """The runner and its helper images, in two versions."""
    assert sorted(packages) == [
        "gitlab-runner-helper-images_19.2.0-1",
        "gitlab-runner-helper-images_19.3.0-1",
        "gitlab-runner_19.2.0-1",
        "gitlab-runner_19.3.0-1",
    ]


@pytest.mark.parametrize("version", ["19.2.0-1", "19.3.0-1"])
def test_runner_wants_its_own_helper_images(packages: dict[str, Path], version: str) -> None:
    """The same version, so both must be pinned and upgraded together."""
    assert f"gitlab-runner-helper-images (= {version})" in _field(packages[f"gitlab-runner_{version}"], "Depends")


def test_unpacked_program_says_its_version(packages: dict[str, Path], tmp_path: Path) -> None:
    """The unpacked program runs and has the package's version; 19.2 has no `lint`."""
    subprocess.run(["dpkg-deb", "-x", packages["gitlab-runner_19.2.0-1"], tmp_path], check=True)
    share = tmp_path / "usr/share/gitlab-runner"
    assert (tmp_path / "usr/bin/gitlab-runner").stat().st_mode & 0o777 == 0o755
    program = ["/usr/bin/env", "python3", "-c", "from standin.cli import main; main()"]
    version = subprocess.run([*program, "--version"], cwd=share, capture_output=True, text=True, check=True)
    assert version.stdout.startswith("Version:      19.2.0\n")
    lint = subprocess.run([*program, "lint"], cwd=share, capture_output=True, text=True)
    assert lint.returncode == 1
    assert "FATAL: Command lint not found." in lint.stderr


@pytest.mark.parametrize("script", ["postinst", "prerm"])
def test_maintainer_scripts_parse(packages: dict[str, Path], tmp_path: Path, script: str) -> None:
    """sh can parse them."""
    subprocess.run(["dpkg-deb", "-e", packages["gitlab-runner_19.3.0-1"], tmp_path], check=True)
    subprocess.run(["sh", "-n", tmp_path / script], check=True)
    assert (tmp_path / script).stat().st_mode & 0o111
