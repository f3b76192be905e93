"""The other tools, in an environment of their own (pyproject.toml's extra `bench`), and what they need on hosts."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from provision_lab import Lab
from provision_lab.machine import Machine
from provision_lab.run import LabError

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".cache" / "bench"
_TOOLS = ("pyinfra", "ansible-core", "mitogen")
# ansible's apt module needs it. Debian and Ubuntu servers have it, the lab's minimal image does not.
_FOR_APT = ("python3-apt", "python-apt-common", "distro-info-data")


def environment(report: Callable[[str], None]) -> Path:
    """The virtual environment of the tools; created once, and again when their versions in pyproject.toml change."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["bench"]
    marker = FOLDER / ".installed"
    if not marker.exists() or marker.read_text().splitlines() != wanted:
        report(f"install {', '.join(wanted)} into {FOLDER.relative_to(ROOT)}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(FOLDER)], check=True)
        pip = [str(FOLDER / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *wanted], check=True, stderr=subprocess.DEVNULL)
        marker.write_text("\n".join(wanted) + "\n")
    return FOLDER


def versions() -> dict[str, str]:
    """The installed versions of the tools."""
    ask = f"from importlib.metadata import version; print(*map(version, {_TOOLS!r}))"
    out = subprocess.run([str(FOLDER / "bin/python"), "-c", ask], capture_output=True, text=True, check=True).stdout
    return dict(zip(_TOOLS, out.split(), strict=True))


def prepare_hosts(lab: Lab) -> None:
    """Installs on all hosts what ansible's modules need. Raises LabError when Debian's archive is not reachable."""
    packages = _packages(lab.image.source)

    def prepare(machine: Machine) -> None:
        there = machine.root / "var/cache/bench"
        there.mkdir(exist_ok=True)
        for name, data in packages:
            (there / name).write_bytes(data)
        lab.inside(machine.host.name, "dpkg -i /var/cache/bench/*.deb && rm -r /var/cache/bench")

    with ThreadPoolExecutor(len(lab.machines)) as pool:
        list(pool.map(prepare, lab.machines))


@cache
def _packages(source: str) -> list[tuple[str, bytes]]:
    """The packages for ansible's modules from the archive `source`: name and content of each. Downloaded once in a run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # apt downloads as another user
        (folder / "image.sources").write_text(source)
        state = folder / "lists"
        state.mkdir()
        options = ["-o", f"Dir::Etc::SourceList={folder}/image.sources", "-o", "Dir::Etc::SourceParts=/dev/null"]
        options += ["-o", f"Dir::State::Lists={state}", "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache="]
        options += ["-o", "Acquire::Languages=none", "-o", "APT::Sandbox::User=root"]
        for command in (["update", "-q"], ["download", "-q", *_FOR_APT]):
            done = subprocess.run(
                ["apt-get", *options, *command], cwd=folder, capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                raise LabError(f"apt-get {command[0]} failed: {done.stderr.strip()}")
        return [(one.name, one.read_bytes()) for one in folder.glob("*.deb")]
