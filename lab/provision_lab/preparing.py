"""Prepared hosts: hosts that `provision` converged once for this machine, for tests whose subject comes after that.

The files that a prepared host has beyond the base image are a layer in the cache. A host that boots with this layer is
converged already, and its services start with it. Lab, CA and secrets of such hosts are those of the lab in which they
were prepared. Only addresses differ, and bringing up replaces them.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Final

import provision
from provision.templating import shipped
from provision_lab import cache, prepared
from provision_lab.bringup import SECRETS
from provision_lab.harness import Harness
from provision_lab.hosts import LabHost, Preparation
from provision_lab.image import Image
from provision_lab.lab import Lab
from provision_lab.machine import WRITABLE
from provision_lab.processes import nspawn_of
from provision_lab.run import LabError, run

# What `provision` does on each host.
_RUNS: Final[dict[Preparation, tuple[str, ...]]] = {"server": ("server",), "runner": ("firewall", "docker", "runner")}
_STOP = 180  # seconds; systemd gives a service 90 s to stop, and the machine may be busy
# What bringing up writes for each host, and what no other host may have.
_OWN = ("home/*/.ssh", "etc/machine-id", "etc/ssh/ssh_host_*", "etc/systemd/system-generators", "etc/hostname")
_OTHER = ("tmp/*", "var/tmp/*", "var/log/journal", "var/cache/apt/*.bin", "var/cache/apt/archives/*.deb", "run/*")
_KEPT = 2 * 3600  # seconds; both layers have 400 MB, and each change of the program makes new ones
# dockerd needs writable cgroups. On other hosts they become writable after the boot, and Docker is not there before.
_UNIT = """\
[Unit]
DefaultDependencies=no
Before=sysinit.target
[Service]
Type=oneshot
ExecStart=/bin/sh /usr/lib/lab-cgroups.sh
"""


def ensure(image: Image) -> Path:
    """The folder with a layer for each kind of prepared host, and `lab/` with what their labs share; built if necessary."""
    code = [cache.hash_of_files(Path(str(module)).parent) for module in (provision.__file__, __file__)]
    own = [cache.hash_of_files(shipped(name)) for name in ("playbooks", "templates")]
    return cache.ensure("prepared", cache.key_of(image.key, code, own), lambda draft: _make(draft, image), kept=_KEPT)


def _make(draft: Path, image: Image) -> None:
    hosts: dict[Preparation, LabHost] = {"server": LabHost("gitlab"), "runner": LabHost("runner-1")}
    lab = Lab(f"prepare-{os.getpid()}", hosts.values(), image=image, throwaway=True)
    lab.up()
    try:
        with tempfile.TemporaryDirectory() as folder:
            harness = Harness(lab, Path(folder))
            del harness.inventory["registry"]["s3"]
            for kind, tasks in _RUNS.items():
                done = harness.run(*tasks, "--limit", hosts[kind].name, deadline=600)
                if done.returncode:
                    raise LabError(f"a host cannot be prepared: {done.stdout}{done.stderr}")
        shared = prepared.shared(draft)
        shared.mkdir()
        for name in (*SECRETS, "ca.pem", "ca.key"):
            shutil.copy(lab.folder / name, shared)
        files = {}
        for kind, host in hosts.items():
            layer = prepared.layer(draft, kind)
            _power_off(lab, host.name)
            run("cp", "-a", lab.machine(host.name).folder / "disk/upper", layer, deadline=300)
            _clean(layer)
            files[kind] = _mentioning(layer, f"{lab.gateway.rpartition('.')[0]}.")
        prepared.Addresses(lab.gateway, lab.server_address, files).save(draft)
    finally:
        lab.down()


def _power_off(lab: Lab, name: str) -> None:
    # ufw is disabled in the base image; a package of it enables it.
    lab.inside(name, "systemctl -q enable ufw && systemctl poweroff")
    ends = time.monotonic() + _STOP
    while nspawn_of(lab.machine(name).root) is not None:
        if time.monotonic() > ends:
            raise LabError(f"host {name} of lab {lab.name} was not off within {_STOP} s")
        time.sleep(0.1)


def _clean(layer: Path) -> None:
    for path in (path for pattern in (*_OWN, *_OTHER) for path in layer.glob(pattern)):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    units = layer / "usr/lib/systemd/system"
    wants = units / "sysinit.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    layer.joinpath("usr/lib/lab-cgroups.sh").write_text(WRITABLE)
    units.joinpath("lab-cgroups.service").write_text(_UNIT)
    wants.joinpath("lab-cgroups.service").symlink_to("../lab-cgroups.service")


def _mentioning(layer: Path, text: str) -> list[str]:
    """The text files with this text in their content."""
    found = run("grep", "-rlFI", text, layer, check=False).stdout.splitlines()
    return sorted(str(Path(path).relative_to(layer)) for path in found)
