"""The wheel: built from the checkout, installed into a clean environment outside it, and planned with from another folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, as `python -m build` makes it."""
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(CHECKOUT), cwd=out)
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`provision`, installed with all it needs, and nothing else, into an environment of its own."""
    home = tmp_path_factory.mktemp("clean")
    run(sys.executable, "-m", "venv", str(home / "venv"), cwd=home)
    pip = [str(home / "venv/bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run(*pip, "-c", str(CHECKOUT / "constraints.txt"), str(wheel), cwd=home)
    return home / "venv/bin/provision"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder that has nothing to do with the checkout."""
    return tmp_path


def run(*argv: str, cwd: Path) -> str:
    """What a program prints that must succeed, with nothing of this environment in its own."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(argv, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_it_holds_what_a_run_needs_and_no_more(wheel: Path) -> None:
    """Playbooks, templates, inventories, stand-ins of the lab and the mark of types; no tests, no benchmarks."""
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"provision"}
    data = {
        "provision/py.typed",
        "provision/_data/playbooks/all.py",
        "provision/_data/templates/apt.sources.j2",
        "provision/_data/templates/init/motd.py",
        "provision/_data/inventories/example.toml",
        "provision/_data/inventories/lab.toml",
    }
    assert data <= set(names)
    assert [name for name in names if name.endswith((".pyc", ".orig", ".rej"))] == []


def test_it_runs_from_its_own_place(program: Path, elsewhere: Path) -> None:
    """The installed package is what runs: not the checkout, which another folder does not even show."""
    python = program.with_name("python")
    place = run(str(python), "-c", "import provision; print(provision.__file__)", cwd=elsewhere)
    assert Path(place.strip()).is_relative_to(program.parents[1])
    assert not Path(place.strip()).is_relative_to(CHECKOUT)


def test_list_schema_and_version(program: Path, elsewhere: Path) -> None:
    """All that ships is listed with what it leaves; the schema is one."""
    listed = run(str(program), "list", cwd=elsewhere)
    for name in (
        *("all", "server", "runners"),
        *("docker", "runner", "register", "gitlab", "certificates", "registry", "firewall", "verify"),
    ):
        assert f"{name} " in listed
    assert json.loads(run(str(program), "schema", cwd=elsewhere))["type"] == "object"
    version = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"]
    assert version in run(str(program), "--version", cwd=elsewhere)


def test_init_starts_an_estate(program: Path, elsewhere: Path) -> None:
    """The example as inventory.toml, a playbook of one's own that is listed; a second init leaves both alone."""
    run(str(program), "init", "estate", cwd=elsewhere)
    inventory = elsewhere / "estate/inventory.toml"
    assert inventory.read_text() == (CHECKOUT / "inventories/example.toml").read_text()
    assert "motd " in run(str(program), "list", "-i", str(inventory), cwd=elsewhere)
    inventory.write_text("# mine\n")
    assert "kept" in run(str(program), "init", "estate", cwd=elsewhere)
    assert inventory.read_text() == "# mine\n"


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """Two bare hosts."""
    return harness_factory(LabHost("gitlab"), LabHost("runner-1"))


def test_it_plans_on_real_hosts(program: Path, harness: Harness, elsewhere: Path) -> None:
    """`provision all --check --diff` from a folder of one's own: a whole plan, with files rendered from shipped templates."""
    inventory = str(harness.write())
    text = run(str(program), "all", "--check", "--diff", "-i", inventory, cwd=elsewhere)
    for words in ("install gitlab-ce", "install docker-ce", "reconfigure GitLab", "+Types: deb"):
        assert words in text
    assert list(elsewhere.iterdir()) == []


def test_it_applies_and_is_the_same_as_the_checkout(program: Path, harness: Harness, elsewhere: Path) -> None:
    """A task is carried out with the installed program; the checkout's finds nothing left to do."""
    inventory = str(harness.write())
    first = run(str(program), "firewall", "--json", "-i", inventory, cwd=elsewhere)
    assert json.loads(first.splitlines()[-1])["changed"] > 0
    again = harness.run("firewall", "--json")
    assert (again.returncode, json.loads(again.stdout.splitlines()[-1])["changed"]) == (0, 0)
