"""What labs change in this machine's kernel: a few settings, and a cgroup for each host where no systemd provides one.

Settings are raised with the first lab and restored with the last. Hosts that shared a cgroup would see each other's
services as their own, because every systemd creates its `system.slice` in the same place.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from provision_lab.run import LabError

_SYSCTL = Path("/proc/sys")
# Every systemd host uses several inotify instances, and the root users of all hosts share one limit: 128 by default.
ALWAYS = {"fs/inotify/max_user_instances": 8192}
FORWARDING = {"net/ipv4/ip_forward": 1}
_CPUSET = ("cpuset.cpus", "cpuset.mems")  # in version 1 empty in a new cgroup, which then accepts no process


def too_low(wanted: Mapping[str, int], others: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The settings below the wanted value, with their values before any lab: to be recorded before `apply`.

    `others` is what other labs recorded here. A setting that one of them raised had the value that this lab recorded.
    """
    before = {}
    for name, value in wanted.items():
        found = (_SYSCTL / name).read_text().strip()
        known = next((other[name] for other in others if name in other), found)
        if int(known) < value:
            before[name] = known
    return before


def apply(wanted: Mapping[str, int], before: Mapping[str, str]) -> None:
    """Sets what `too_low` found too low. Call it when that is recorded, so that a killed run can be undone."""
    for name in before:
        if (_SYSCTL / name).read_text().strip() != str(wanted[name]):
            (_SYSCTL / name).write_text(str(wanted[name]))


def restore(before: Mapping[str, str], others: Sequence[Mapping[str, str]]) -> None:
    """Restores the settings that no other lab needs."""
    for name, value in before.items():
        if not any(name in other for other in others):
            (_SYSCTL / name).write_text(value)


def make_cgroup(name: str) -> list[Path]:
    """Creates the cgroup `name` (slashes allowed) in every hierarchy; the files that take the ids of its processes."""
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


def remove_cgroup(name: str, *, deadline: float = 5) -> None:
    """Removes the cgroup and all below it, once its processes have ended. No error when it does not exist."""
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
    with contextlib.suppress(OSError):  # a process in it is still ending
        folder.rmdir()


def _hierarchies() -> Iterator[Path]:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, options, *_ = line.split()
        if kind in ("cgroup", "cgroup2") and "rw" in options.split(","):
            yield Path(point)
