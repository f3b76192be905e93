"""What tests and benchmarks on lab hosts need: an inventory of the lab, the program, testinfra, snapshots."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from provision.url import bracketed
from provision_lab.forked import Program
from provision_lab.hosts import LabHost
from provision_lab.lab import INVENTORY, Lab
from provision_lab.machine import Machine

_OUTSIDE = {"proc", "sys", "dev", "run"}  # not on the host's disk
# Logs, login records, and the timestamps of systemd and sudo.
_NOISE = ("var/log/", "var/lib/systemd/", "tmp/systemd-private-", "var/tmp/systemd-private-", "var/lib/sudo/")


class Harness:
    """A lab with an inventory: `inventory` holds its tables, as in inventories/lab.toml; tests may change them."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.inventory = inventory_of(lab)

    def write(self, changes: Mapping[str, Any] | None = None, name: str = "inventory.toml") -> Path:
        """Writes the inventory with `changes` merged over its tables, and returns the file."""
        import tomlkit

        from provision.inventory.tree import merge

        path = self.folder / name
        path.write_text(tomlkit.dumps(merge(self.inventory, dict(changes or {}))), "utf-8")
        return path

    def run(
        self,
        *arguments: str,
        changes: Mapping[str, Any] | None = None,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        deadline: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        """Runs `provision ARGUMENTS -i INVENTORY` to its end; `env` is added to the environment, `deadline` in seconds."""
        argv = [*arguments, "-i", str(self.write(changes))]
        return _PROGRAM.run(argv, stdin=stdin, env={**os.environ, **(env or {})}, deadline=deadline)

    def host(self, name: str, *, sudo: bool = True) -> Any:
        """The host for pytest-testinfra, over OpenSSH: an observer that is independent of provision."""
        from importlib import import_module  # it has no types

        there = self.lab.machine(name).host
        options = f"-F none -o UserKnownHostsFile={self.lab.known_hosts} -o IdentitiesOnly=yes -o BatchMode=yes"
        return import_module("testinfra").get_host(
            f"ssh://{self.lab.user}@{bracketed(there.address)}:{there.sshd_port}",
            ssh_identity_file=str(self.lab.identity_file),
            ssh_extra_args=options,
            controlpersist=0,
            sudo=sudo,
        )

    def snapshot(self, host: str) -> dict[str, str]:
        """The host's whole file system, to compare with a later snapshot by `changed`."""
        return snapshot(self.lab.machine(host))


_PROGRAM = Program()
PROVISION = [sys.executable, "-c", "from provision.cli import main; main()"]


def inventory_of(lab: Lab) -> dict[str, Any]:
    """The tables of inventories/lab.toml, adapted to this lab and its hosts."""
    text = INVENTORY.read_text("utf-8")
    for fixed, own in (
        ("http://198.18.0.1:8080", lab.apt_url),
        ("http://198.18.0.1:9000", lab.s3_url),
        ("/var/lib/provision-lab/lab/", f"{lab.folder}/"),
    ):
        text = text.replace(fixed, own)
    tables = tomllib.loads(text)
    firewall = tables["hosts"]["gitlab"]["firewall"]
    hosts = {
        host.name: _host(lab, host) | ({"firewall": dict(firewall)} if host.is_gitlab else {}) for host in lab.hosts
    }
    return tables | {"apt": lab.mirrors(lab.image.system), "hosts": hosts}


def _host(lab: Lab, host: LabHost) -> dict[str, Any]:
    table: dict[str, Any] = {"address": host.address, "groups": ["gitlab" if host.is_gitlab else "runners"]}
    if host.ubuntu:
        table["apt"] = lab.mirrors("ubuntu")
    if host.sshd_port != 22:
        table["ssh"] = {"port": host.sshd_port}
    if host.sudo == "password":
        table.setdefault("ssh", {})["become_password"] = lab.secret_source("sudo_password")
    return table


def snapshot(machine: Machine) -> dict[str, str]:
    """Every path of a running host with its mode, owner, time and content hash, /tmp and Docker's files included.

    Logs, login records and what is not on the host's disk are left out.
    """
    top = Path(f"/proc/{machine.leader}/root")
    return dict(_walk(str(top), ""))


def _walk(top: str, below: str) -> Iterator[tuple[str, str]]:
    with os.scandir(f"{top}/{below}") as entries:
        for entry in sorted(entries, key=lambda one: one.name):
            path = f"{below}{entry.name}"
            if path in _OUTSIDE or path.startswith(_NOISE):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
                yield path, f"{_owner(status)} {_content(entry, status)}"
            except FileNotFoundError:  # it was removed meanwhile
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(top, f"{path}/")


def _owner(status: os.stat_result) -> str:
    return f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}"


def _content(entry: os.DirEntry[str], status: os.stat_result) -> str:
    if entry.is_symlink():
        return f"-> {Path(entry.path).readlink()}"
    if not entry.is_file(follow_symlinks=False):
        return ""
    with Path(entry.path).open("rb") as stream:
        return f"{status.st_mtime_ns} {hashlib.file_digest(stream, 'sha256').hexdigest()}"


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """The paths that differ between two snapshots: (before, after) of each, empty when it did not exist."""
    paths = [path for path in sorted(before.keys() | after.keys()) if before.get(path) != after.get(path)]
    return {path: (before.get(path, ""), after.get(path, "")) for path in paths}
