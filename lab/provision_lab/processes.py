"""The lab's processes, found in /proc by what only they carry in their argv: the lab's folder."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from provision_lab.run import LabError

_children: list[subprocess.Popen[bytes]] = []  # those of this process, to be reaped
SERVICES = ("provision_lab.apt_server", "provision_lab.s3_server", "provision_lab.keeper")


def start(argv: list[str], log: Path, *, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """Starts a program that outlives us: own process group, next to no environment, output into `log`."""
    clean = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
    with log.open("ab") as output:
        child = subprocess.Popen(argv, stdin=stdin, stdout=output, stderr=output, env=clean, start_new_session=True)
    _children.append(child)
    while child.poll() is None and not Path(f"/proc/{child.pid}/cmdline").read_bytes():
        time.sleep(0.001)  # the kernel shows its argv a moment after it began
    return child


@dataclass(frozen=True)
class Identity:
    """A process that cannot be mistaken for a later one of the same id: `started` is in ticks since `boot`."""

    pid: int
    started: int
    boot: str

    @property
    def is_alive(self) -> bool:
        """Whether that very process still runs."""
        return identify(self.pid) == self


def identify(pid: int) -> Identity | None:
    """The process's identity; None when there is none, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return None if fields[0] in "ZX" else Identity(pid, int(fields[19]), boot)


def of_lab(folder: Path) -> list[int]:
    """The ids of the hosts' and services' processes of the lab in `folder`."""
    return [pid for pid, argv in _all() if is_nspawn(argv, folder) or _is_service(argv, folder)]


def of_service(folder: Path, module: str) -> list[int]:
    """The ids of the processes of one service of the lab in `folder`."""
    return [pid for pid, argv in _all() if module in argv and _is_service(argv, folder)]


def mentioned(path: Path) -> bool:
    """Whether a process has `path` as a word of its argv."""
    return any(str(path) in argv for _, argv in _all())


def nspawn_of(root: Path) -> int | None:
    """The systemd-nspawn that runs the host whose tree is `root`."""
    return next((pid for pid, argv in _all() if is_nspawn(argv, root)), None)


def is_nspawn(argv: list[str], below: Path) -> bool:
    """Whether this is a systemd-nspawn of a tree at or below `below`."""
    trees = [word.removeprefix("--directory=") for word in argv if word.startswith("--directory=")]
    return Path(argv[0]).name == "systemd-nspawn" and any(Path(tree).is_relative_to(below) for tree in trees)


def _is_service(argv: list[str], folder: Path) -> bool:
    return any(name in argv for name in SERVICES) and argv[-1] == str(folder)


def _all() -> Iterator[tuple[int, list[str]]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):  # it ended meanwhile
                if argv := entry.joinpath("cmdline").read_bytes().rstrip(b"\0").decode(errors="replace"):
                    yield int(entry.name), argv.split("\0")


def leader_of(nspawn: int) -> int | None:
    """The host's first process, as this machine counts: the child that is process 1 in its own namespace."""
    for entry in Path(f"/proc/{nspawn}/task").glob("*/children"):
        for child in entry.read_text().split():
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{child}/status").read_text()
                ids = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()
                if len(ids) > 2 and ids[-1] == "1":
                    return int(child)
    return None


def end(pids: list[int], *, deadline: float = 10) -> None:
    """Ends these processes, and with a systemd-nspawn its whole host; waits until they are gone."""
    watched = {pid: identity for pid in pids if (identity := identify(pid))}
    for pid in watched:
        _kill(leader_of(pid) or pid)
    ends = time.monotonic() + deadline
    while left := [pid for pid, identity in watched.items() if identity.is_alive]:
        _reap()
        if time.monotonic() > ends:
            raise LabError(f"processes {left} did not end within {deadline:g} s of being killed")
        if time.monotonic() > ends - deadline / 2:  # its host is gone, and it hangs
            for pid in left:
                _kill(pid)
        time.sleep(0.01)
    _reap()


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _reap() -> None:
    _children[:] = [child for child in _children if child.poll() is None]
