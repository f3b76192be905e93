"""The project's own environment: every package that it installs is known by its hash."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).parents[2]
OWN = {"provision", "provision-lab"}


def locked() -> dict[str, tuple[str, list[str]]]:
    """The version and the hashes of each package in constraints.txt."""
    text = (CHECKOUT / "constraints.txt").read_text().replace("\\\n", " ")
    entries = (line.split() for line in text.splitlines() if line and not line.startswith("#"))
    found = {}
    for words in entries:
        name, _, version = words[0].partition("==")
        found[canonicalize_name(name)] = version, [word for word in words if word.startswith("--hash=sha256:")]
    return found


def test_every_package_has_hashes_and_no_address() -> None:
    """The registry is that of pip's configuration, here and in CI."""
    assert [name for name, (version, hashes) in locked().items() if not version or not hashes] == []
    assert re.findall(r"://|--index-url|--find-links", (CHECKOUT / "constraints.txt").read_text()) == []


@pytest.mark.parametrize("project", ["pyproject.toml", "lab/pyproject.toml"])
def test_the_lock_has_what_the_projects_need(project: str) -> None:
    """Each dependency is in it at a version in its range, the build backend too: `make lock` was not forgotten."""
    table = tomllib.loads((CHECKOUT / project).read_text())
    extras = table["project"].get("optional-dependencies", {}).get("dev", [])
    needed = [
        Requirement(one) for one in [*table["project"]["dependencies"], *extras, *table["build-system"]["requires"]]
    ]
    versions = {name: version for name, (version, _) in locked().items()}
    outside = [str(one) for one in needed if one.name not in OWN
               and not one.specifier.contains(versions.get(canonicalize_name(one.name), "0.dev0"))]  # fmt: skip
    assert outside == []


def wheel(folder: Path, name: str) -> Path:
    """A wheel of an empty package, version 1.0."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def test_a_package_with_another_hash_is_not_installed(tmp_path: Path) -> None:
    """The environment's script, with a registry that serves another file under a locked version."""
    registry = tmp_path / "registry"
    registry.mkdir()
    served = wheel(registry, "canary")
    other = hashlib.sha256(b"the file that was locked").hexdigest()
    (tmp_path / "constraints.txt").write_text(f"canary==1.0 --hash=sha256:{other}\n")
    shutil.copy(CHECKOUT / "scripts/environment.sh", tmp_path)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "PYTHON"))}
    environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(registry), "PIP_CONFIG_FILE": os.devnull}
    argv = ["sh", "environment.sh", sys.executable, "venv"]
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert hashlib.sha256(served.read_bytes()).hexdigest() in done.stderr
    assert list((tmp_path / "venv").glob("lib/*/site-packages/canary*")) == []
