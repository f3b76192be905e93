"""Both wheels: built from the checkout, installed into a clean environment, and used from another folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels of both distributions by package name, built with `python -m build`."""
    out = tmp_path_factory.mktemp("wheels")
    for folder in (CHECKOUT, CHECKOUT / "lab"):
        # The environment has the build backend, at a version with hashes; an isolated build would fetch another one.
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(folder), cwd=out)
    return {path.name.partition("-")[0]: path for path in out.glob("*.whl")}


@pytest.fixture(scope="module")
def program(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`provision` in a clean environment: the core's wheel and its dependencies, nothing else."""
    home = tmp_path_factory.mktemp("clean")
    run(sys.executable, "-m", "venv", str(home / "venv"), cwd=home)
    # With hashes in a constraint, pip wants one for the wheel that was just built, too.
    versions = home / "versions.txt"
    locked = (CHECKOUT / "constraints.txt").read_text().splitlines()
    versions.write_text("\n".join(line.rstrip(" \\") for line in locked if "==" in line))
    run(*pip(home / "venv/bin/provision"), "-c", str(versions), str(wheels["provision"]), cwd=home)
    return home / "venv/bin/provision"


@pytest.fixture(scope="module")
def program_with_lab(
    program: Path, wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The same program with the lab's wheel beside it; the verb needs none of the lab's own dependencies."""
    home = tmp_path_factory.mktemp("lab")
    run(*pip(program), "--no-deps", str(wheels["provision_lab"]), cwd=home)
    yield program
    run(str(program.with_name("python")), "-m", "pip", "uninstall", "--quiet", "--yes", "provision-lab", cwd=home)


def pip(program: Path) -> list[str]:
    """`pip install` of the environment that the program is in."""
    return [str(program.with_name("python")), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder outside the checkout."""
    return tmp_path


def start(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The finished program; it is given nothing of this environment's Python."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return subprocess.run(argv, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


def run(*argv: str, cwd: Path) -> str:
    """The output of a program that must succeed."""
    done = start(*argv, cwd=cwd)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def contents(wheel: Path) -> set[str]:
    """The files of a wheel, without its metadata."""
    return {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}


def requirements(wheel: Path) -> str:
    """The lines of its metadata that name other distributions."""
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    return "\n".join(line for line in archive.read(name).decode().splitlines() if line.startswith("Requires-Dist"))


def test_core_wheel_holds_what_a_run_needs(wheels: dict[str, Path]) -> None:
    """Playbooks, templates, the example inventory and the marker of types; no tests, no benchmarks, nothing of the lab."""
    names = contents(wheels["provision"])
    assert {name.partition("/")[0] for name in names} == {"provision"}
    data = {
        "provision/py.typed",
        "provision/_data/playbooks/all.py",
        "provision/_data/templates/apt.sources.j2",
        "provision/_data/templates/init/motd.py",
        "provision/_data/inventories/example.toml",
        "provision/host/scripts/replace_file.sh",
        "provision/host/scripts/lib/files.sh",
    }
    assert data <= names
    assert [name for name in names if "lab.toml" in name or "standin" in name] == []
    assert [name for name in names if name.endswith((".pyc", ".orig", ".rej"))] == []
    needed = [line for line in requirements(wheels["provision"]).splitlines() if "extra ==" not in line]
    assert not [line for line in needed if "moto" in line or "boto" in line or "provision-lab" in line]


def test_lab_wheel_holds_the_stand_ins(wheels: dict[str, Path]) -> None:
    """Every file of the folder is in the wheel: the stand-ins' scripts, units and tables too."""
    top = CHECKOUT / "lab/provision_lab"
    files = (path for path in top.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert contents(wheels["provision_lab"]) == {f"provision_lab/{path.relative_to(top)}" for path in files}
    assert "provision_lab/standins/gitlab_ce/rb/evaluate.rb" in contents(wheels["provision_lab"])
    assert "Requires-Dist: provision\n" in f"{requirements(wheels['provision_lab'])}\n"
    assert "Requires-Dist: provision-lab; extra == 'lab'" in requirements(wheels["provision"])


def test_core_alone_says_how_to_install_the_lab(program: Path, elsewhere: Path) -> None:
    """Without the lab's package there is no verb `lab`: exit code 2 and what to install."""
    done = start(str(program), "lab", "up", cwd=elsewhere)
    assert (done.returncode, done.stdout) == (2, "")
    assert "provision-lab" in done.stderr
    assert "pip install . ./lab" in done.stderr


def test_core_with_lab_has_its_verb(program_with_lab: Path, elsewhere: Path) -> None:
    """The lab's package adds the verb by its entry point."""
    text = run(str(program_with_lab), "lab", "--help", cwd=elsewhere)
    for verb in ("up", "down", "status", "ssh"):
        assert f"  {verb} " in text
    state = elsewhere / "state"
    done = start("env", f"PROVISION_LAB_STATE={state}", str(program_with_lab), "lab", "status", cwd=elsewhere)
    assert (done.returncode, "no lab" in done.stdout) == (0, True), done.stderr


def test_it_runs_from_its_own_place(program: Path, elsewhere: Path) -> None:
    """The installed package runs, not the checkout."""
    python = program.with_name("python")
    place = run(str(python), "-c", "import provision; print(provision.__file__)", cwd=elsewhere)
    assert Path(place.strip()).is_relative_to(program.parents[1])
    assert not Path(place.strip()).is_relative_to(CHECKOUT)


def test_list_schema_and_version(program: Path, elsewhere: Path) -> None:
    """The shipped tasks and playbooks are listed; the schema is a JSON Schema."""
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
    """`init` writes the example as inventory.toml and a playbook that is listed; a second `init` changes neither."""
    run(str(program), "init", "estate", cwd=elsewhere)
    inventory = elsewhere / "estate/inventory.toml"
    assert inventory.read_text() == (CHECKOUT / "inventories/example.toml").read_text()
    assert "motd " in run(str(program), "list", "-i", str(inventory), cwd=elsewhere)
    inventory.write_text("# mine\n")
    assert "exists" in run(str(program), "init", "estate", cwd=elsewhere)
    assert inventory.read_text() == "# mine\n"


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """Two bare hosts."""
    return harness_factory(LabHost("gitlab"), LabHost("runner-1"))


def test_it_plans_on_real_hosts(program: Path, harness: Harness, elsewhere: Path) -> None:
    """`provision all --check --diff` from another folder: a whole plan, with files rendered from shipped templates."""
    inventory = str(harness.write())
    text = run(str(program), "all", "--check", "--diff", "-i", inventory, cwd=elsewhere)
    for words in ("gitlab-ce", "docker-ce", "reconfigure GitLab", "+Types: deb"):
        assert words in text
    assert list(elsewhere.iterdir()) == []


def test_it_applies_and_is_the_same_as_the_checkout(program: Path, harness: Harness, elsewhere: Path) -> None:
    """The installed program applies a task; the checkout's program then finds nothing to change."""
    inventory = str(harness.write())
    first = run(str(program), "firewall", "--json", "-i", inventory, cwd=elsewhere)
    assert json.loads(first.splitlines()[-1])["changed"] > 0
    again = harness.run("firewall", "--json")
    assert (again.returncode, json.loads(again.stdout.splitlines()[-1])["changed"]) == (0, 0)
