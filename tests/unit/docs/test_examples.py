"""examples/: their inventories are valid, their tests pass, and the lab's images offer what their Dockerfiles install."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest

from provision.engine.catalogue import Catalogue
from provision.engine.catalogue import load_inventory as load
from provision.inventory.reference import schema
from provision.inventory.tables.apps import App
from provision.inventory.tables.images import Image
from provision.inventory.tables.projects import Project
from provision_lab import container_images
from provision_lab.container_images import BASES
from tests.support.pages import DOCS

ROOT = DOCS.parent
EXAMPLES = ROOT / "examples"
OFFERED = Path(container_images.__file__).with_name("offered")
FOLDERS = sorted(path for path in EXAMPLES.iterdir() if path.is_dir())
INVENTORIES = sorted(EXAMPLES.glob("*/*.toml"))
TESTED = sorted(path.parent for path in EXAMPLES.glob("*/test_*.py"))
SCHEMA = jsonschema.Draft202012Validator(schema(Catalogue.of().tables))
ESTATE = """
[hosts.gitlab]
groups = ["gitlab"]
[hosts.runner-1]
groups = ["runners"]
[gitlab]
external_url = "https://gitlab.example.com"
[registry]
external_url = "https://gitlab.example.com:5555"
"""


def name_of(path: Path) -> str:
    """A path as the id of a test."""
    return path.relative_to(EXAMPLES).as_posix()


def test_the_page_lists_the_folders() -> None:
    """Each folder is a row, with the ports of its app."""
    rows = re.findall(r"^\| \[(\w+)\]\((\w+)\) \|", (EXAMPLES / "README.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(rows) == [(path.name, path.name) for path in FOLDERS]
    assert all((path / "Dockerfile").is_file() and (path / "inventory.toml").is_file() for path in FOLDERS)


@pytest.mark.parametrize("path", INVENTORIES, ids=name_of)
def test_a_further_inventory(path: Path, tmp_path: Path) -> None:
    """Beside one with the hosts it is valid; its image is built from its folder, and its app runs that image."""
    tables = tomllib.loads(path.read_text("utf-8"))
    assert [one.message for one in SCHEMA.iter_errors(tables)] == []
    (tmp_path / "inventory.toml").write_text(ESTATE)
    inventory = load([tmp_path / "inventory.toml", path])
    assert inventory.warnings == ()
    settings = inventory.hosts[0].settings
    (project,) = settings.named(Project).items()
    images, apps = settings.all(Image), settings.all(App)
    assert [(one.name, one.context) for one in images] == (
        [(project[0], path.parent)] if path.stem == "inventory" else []
    )
    assert all(one.image.removeprefix("docker.io/").partition(":")[0] == project[0] for one in apps)
    assert project[1].source == (path.parent if path.stem == "pipeline" else None)


@pytest.mark.parametrize("folder", TESTED, ids=name_of)
def test_the_tests_of_a_python_example(folder: Path, tmp_path: Path) -> None:
    """They pass, and run every line."""
    coverage = [sys.executable, "-B", "-m", "coverage"]
    data = f"--data-file={tmp_path / 'coverage'}"
    for words in (["run", data, "-m", "unittest"], ["report", data, "--fail-under=100"]):
        done = subprocess.run([*coverage, *words], cwd=folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_the_lab_has_what_a_dockerfile_needs(folder: Path) -> None:
    """Its bases by their names, packages for apt and pip, and for npm the same lock file."""
    text = (folder / "Dockerfile").read_text("utf-8").replace("\\\n", "")
    stages = re.findall(r"(?m)^FROM (\S+)(?: AS (\S+))?", text)
    assert {base for base, _ in stages} <= {*BASES}
    assert {*re.findall(r"--from=(\S+)", text)} <= {stage for _, stage in stages if stage}
    for packages in re.findall(r"apt-get install -y --no-install-recommends ([^&]+)", text):
        assert {*packages.split()} <= {*BASES[stages[-1][0]].debs}
    if (folder / "requirements.txt").is_file():
        wheels = (OFFERED / "wheels.txt").read_text()
        assert {*(folder / "requirements.txt").read_text().split()} <= {*re.findall(r"(?m)^[\w.-]+==[\w.]+", wheels)}
        assert BASES[stages[-1][0]].wheels
    if (folder / "package-lock.json").is_file():
        for name in ("package.json", "package-lock.json"):
            assert (folder / name).read_bytes() == (OFFERED / name).read_bytes()
        assert BASES[stages[-1][0]].node


def test_the_lab_locks_what_it_downloads() -> None:
    """Each package that pip or npm downloads is pinned by a hash."""
    for name in ("wheels.txt", "node.txt"):
        for one in re.split(r"(?m)^(?=[a-z])", (OFFERED / name).read_text())[1:]:
            assert re.fullmatch(r"[\w.-]+==[\w.]+( \\\n    --hash=sha256:[0-9a-f]{64})+\n", one)
    lock = (OFFERED / "package-lock.json").read_text()
    assert lock.count('"node_modules/') == lock.count('"integrity": "sha512-') > 20
