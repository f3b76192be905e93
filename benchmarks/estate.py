"""The lab to measure on: eight hosts, their inventory, and what the workload needs to find there."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provision_lab import Lab, LabHost
from provision_lab.harness import PROVISION, Harness
from provision_lab.run import LabError

HERE = Path(__file__).parent
WORKLOAD = HERE / "workload"
NAMES = ("gitlab", *(f"runner-{number}" for number in range(1, 8)))
LONG = 170_000  # bytes of the gitlab.rb of GitLab 19.3; the lab's is shorter, so comments are added
TEMPLATE = "/opt/gitlab/etc/gitlab.rb.template"
# Folders in which the workload puts files, and gitlab.rb's own. Some of the tools do not create a file's folder.
FOLDERS = ("/etc/docker/certs.d/registry.bench.test:5000", "/etc/gitlab-runner", "/etc/gitlab")


@dataclass(frozen=True)
class Place:
    """The address of a host: its own, or that of a proxy with latency."""

    name: str
    address: str
    port: int = 22


@dataclass(frozen=True)
class Estate:
    """The lab, up and converged."""

    harness: Harness
    folder: Path

    @property
    def lab(self) -> Lab:
        """The lab."""
        return self.harness.lab

    @property
    def places(self) -> tuple[Place, ...]:
        """All hosts at their own addresses."""
        return tuple(Place(host.name, host.address, host.sshd_port) for host in self.lab.hosts)

    def inventory(self, places: Sequence[Place]) -> Path:
        """provision's inventory, with these hosts at these addresses."""
        keys = self.lab.host_keys
        hosts = {
            one.name: {"address": one.address, "host_key": keys[one.name], "ssh": {"port": one.port}} for one in places
        }
        return self.harness.write({"hosts": hosts}, name=f"{self._name(places)}.toml")

    def known_hosts(self, places: Sequence[Place]) -> Path:
        """The hosts' true keys for these addresses."""
        keys = self.lab.host_keys
        path = self.folder / f"{self._name(places)}.known_hosts"
        labels = {one.name: one.address if one.port == 22 else f"[{one.address}]:{one.port}" for one in places}
        path.write_text("".join(f"{labels[one.name]} {keys[one.name]}\n" for one in places))
        return path

    @staticmethod
    def _name(places: Sequence[Place]) -> str:
        return "-".join(str(one.port) for one in places[:1]) + f"-{len(places)}"


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of the measured programs: a user's, whose Python keeps compiled files."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**ours, **(more or {})}


@contextmanager
def estate(report: Callable[[str], None], names: Sequence[str] = NAMES) -> Iterator[Estate]:
    """Boots the lab, converges it for `all` and for the workload, and takes it down at the end."""
    lab = Lab(f"bench-{os.getpid()}", [LabHost(name) for name in names], throwaway=True)
    with tempfile.TemporaryDirectory(prefix="e") as folder:
        try:
            lab.up(report)
            made = Estate(Harness(lab, Path(folder)), Path(folder))
            report("converge: provision all")
            _converge(made, "all")
            report("converge: the workload")
            _prepare(made)
            yield made
        finally:
            lab.down()


def _prepare(made: Estate) -> None:
    """Makes gitlab.rb as long as the real one, and installs Docker on the GitLab host, where `all` does not."""
    template = made.lab.inside("gitlab", f"cat {TEMPLATE}")
    for host in made.lab.hosts:
        lengthen_gitlab_rb(made.lab, host.name, "" if host.is_gitlab else template, LONG - len(template))
    both: dict[str, Any] = {"hosts": {"gitlab": {"groups": ["gitlab", "runners"]}}}
    _converge(made, "docker", "--limit", "gitlab", changes=both)
    _converge(made, "workload")


def lengthen_gitlab_rb(lab: Lab, host: str, text: str = "", length: int = LONG) -> None:
    """Adds a text to the host's gitlab.rb, and comments of `length` bytes."""
    comments = "".join(f"# example['setting_{number}'] = 'a comment of the usual length'\n" for number in range(3000))
    comments = comments[:length].rpartition("\n")[0] + "\n"
    lab.inside(host, "mkdir -p /etc/gitlab; cat >> /etc/gitlab/gitlab.rb", stdin=text + comments)


def _converge(made: Estate, *arguments: str, changes: Mapping[str, Any] | None = None) -> None:
    import subprocess

    argv = [*PROVISION, *arguments, "-i", str(made.harness.write(changes))]
    done = subprocess.run(argv, cwd=WORKLOAD, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"provision {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")


def pyinfra_hosts(estate: Estate, places: Sequence[Place]) -> str:
    """The hosts in the format of workload/pyinfra/inventory.py."""
    common = {
        "ssh_user": estate.lab.user,
        "ssh_key": str(estate.lab.identity_file),
        "ssh_known_hosts_file": str(estate.known_hosts(places)),
        "ssh_strict_host_key_checking": "yes",
    }
    return json.dumps(
        [{"name": one.name, "data": {"ssh_hostname": one.address, "ssh_port": one.port, **common}} for one in places]
    )


def ansible_inventory(estate: Estate, places: Sequence[Place]) -> Path:
    """The hosts as an inventory of ansible."""
    options = f"-F none -o UserKnownHostsFile={estate.known_hosts(places)} -o IdentitiesOnly=yes"
    lines = [
        f"{one.name} ansible_host={one.address} ansible_port={one.port} ansible_user={estate.lab.user}"
        f" ansible_ssh_private_key_file={estate.lab.identity_file} ansible_ssh_common_args='{options}'"
        for one in places
    ]
    path = estate.folder / f"ansible-{places[0].port}-{len(places)}.ini"
    path.write_text("\n".join(lines) + "\n")
    return path
