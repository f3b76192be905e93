"""A cgroup of its own for each host, in every hierarchy, where this machine has no systemd to ask for one.

Hosts that shared one would take each other's services for theirs: every systemd lays its `system.slice`
at the same place.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from provision_lab.run import LabError

_CPUSET = ("cpuset.cpus", "cpuset.mems")  # in version 1 empty in a new cgroup, which then takes no process


def join(name: str) -> list[Path]:
    """Makes the cgroup `name` (slashes allowed) in every hierarchy; the files that a process id is written into."""
    files = []
    for hierarchy in _hierarchies():
        folder = hierarchy
        for part in name.split("/"):
            folder /= part
            folder.mkdir(exist_ok=True)
            for setting in _CPUSET:
                if folder.joinpath(setting).exists() and not folder.joinpath(setting).read_text().strip():
                    folder.joinpath(setting).write_text(folder.parent.joinpath(setting).read_text())
        files.append(folder / "cgroup.procs")
    return files


def remove(name: str, *, deadline: float = 5) -> None:
    """Removes the cgroup with all below it; its processes have been ended. Fine when it is not there."""
    ends = time.monotonic() + deadline
    for hierarchy in _hierarchies():
        while (hierarchy / name).is_dir():
            for folder in sorted((hierarchy / name).rglob("*/"), key=lambda path: len(path.parts), reverse=True):
                _rmdir(folder)
            _rmdir(hierarchy / name)
            if time.monotonic() > ends:
                raise LabError(
                    f"{hierarchy / name} still holds processes", hint=f"cat {hierarchy / name}/**/cgroup.procs"
                )
            time.sleep(0.005)


def _rmdir(folder: Path) -> None:
    with contextlib.suppress(OSError):  # a process in it is not quite gone yet
        folder.rmdir()


def _hierarchies() -> Iterator[Path]:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, options, *_ = line.split()
        if kind in ("cgroup", "cgroup2") and "rw" in options.split(","):
            yield Path(point)
