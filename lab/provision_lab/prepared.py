"""Booting prepared hosts: what `preparing.py` made once is a layer below the host's own files.

All labs with prepared hosts share secrets and the certificate authority of the lab that the hosts were prepared in, since
GitLab's database and Docker's and gitlab-runner's files hold them. Addresses are each lab's own: they are replaced.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from provision_lab.hosts import Preparation
from provision_lab.machine import Machine
from provision_lab.run import LabError, run

_READY = 240  # seconds; a busy machine may start the services of many hosts at once
_INTERVAL = 0.5  # seconds between two checks, each of which takes up to 40 ms of processor time
_ASK = "[ \"$(curl -sk -o /dev/null -w '%{{http_code}}' https://gitlab.lab.test{})\" = {} ]"
_IS_READY: dict[Preparation, str] = {
    "server": f"{_ASK.format('/users/sign_in', 200)} && {_ASK.format(':5555/v2/', 401)}",
    "runner": "docker version >/dev/null 2>&1 && systemctl -q is-active gitlab-runner",
}
_LISTS = "var/lib/apt/lists"


@dataclass(frozen=True)
class Addresses:
    """The addresses of the lab that hosts were prepared in, and the files that have them by kind of host."""

    gateway: str
    server: str
    files: dict[Preparation, list[str]]

    def save(self, folder: Path) -> None:
        """Writes them into the folder of the layers."""
        folder.joinpath("addresses.json").write_text(json.dumps(asdict(self)))


def layer(folder: Path, kind: Preparation) -> Path:
    """The layer of a kind of host in the folder of the layers."""
    return folder / kind


def shared(folder: Path) -> Path:
    """The secrets and the authority that labs of prepared hosts have."""
    return folder / "lab"


def readdress(folder: Path, kind: Preparation, root: Path, gateway: str, server: str) -> None:
    """Replaces the addresses in a host's tree by those of this machine and of the GitLab host."""
    old = Addresses(**json.loads(folder.joinpath("addresses.json").read_text()))
    for name in old.files[kind]:
        path = root / name
        # 198.18.3.1 is not a part of 198.18.3.10.
        text = re.sub(rf"\b{re.escape(old.gateway)}\b", gateway, path.read_text())
        path.write_text(re.sub(rf"\b{re.escape(old.server)}\b", server, text))
    for path in (root / _LISTS).glob(f"{old.gateway}:*"):  # apt names a list by its address
        path.rename(path.with_name(path.name.replace(old.gateway, gateway, 1)))


def wait(machine: Machine, kind: Preparation) -> None:
    """Waits until the services of a prepared host answer. Raises LabError when they do not answer in time."""
    ends = time.monotonic() + _READY
    while True:
        argv = ("nsenter", "-t", str(machine.leader), "-a", "sh", "-c", _IS_READY[kind])
        if run(*argv, check=False).returncode == 0:
            return
        if time.monotonic() > ends:
            raise LabError(f"{machine.host.name}: its services do not answer in {_READY} s:\n{machine.journal()}")
        time.sleep(_INTERVAL)
