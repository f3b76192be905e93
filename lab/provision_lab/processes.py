"""The lab's processes, and locks between processes.

A process belongs to a lab when the lab's folder is in its argv, in a place where only the lab's own processes have it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import provision
from provision_lab.run import LabError

_children: list[subprocess.Popen[bytes]] = []  # those of this process, whose exit status it has to collect
_PACKAGE = "provision_lab."  # a service's argv names its module
_nspawns: dict[Path, int | None] = {}  # by the tree of the host that it runs
_LOCK_INTERVAL = 0.02  # seconds between two attempts to lock
_BUILDERS = ("mmdebstrap", "apt-get")


class Held(LabError):
    """Another process holds a lock."""


def start(
    argv: list[str], log: Path, *, stdin: int = subprocess.DEVNULL, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Starts a program that outlives this process: own session, minimal environment and `env`, output into `log`."""
    roots = dict.fromkeys(str(Path(str(file)).parents[1]) for file in (provision.__file__, __file__))
    clean = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONPATH": os.pathsep.join(roots),  # a service runs the same code as this process
        **(env or {}),
    }
    with log.open("ab") as output:
        child = subprocess.Popen(argv, stdin=stdin, stdout=output, stderr=output, env=clean, start_new_session=True)
    _children.append(child)
    while child.poll() is None and not Path(f"/proc/{child.pid}/cmdline").read_bytes():
        time.sleep(0.001)  # the kernel shows the new argv a moment later
    return child


@dataclass(frozen=True)
class Identity:
    """A process, distinct from a later one with the same id: `started` is in clock ticks since the boot `boot`."""

    pid: int
    started: int
    boot: str

    @property
    def is_alive(self) -> bool:
        """Whether this process still runs."""
        return identify(self.pid) == self


def identify(pid: int) -> Identity | None:
    """The process's identity; None when it does not run, or is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return None if fields[0] in "ZX" else Identity(pid, int(fields[19]), boot)


def of_lab(folder: Path) -> list[int]:
    """The ids of the processes of hosts and services of the lab in `folder`."""
    return [pid for pid, argv in _all() if is_nspawn(argv, folder) or _is_service(argv, folder)]


def of_service(folder: Path, service: str) -> list[int]:
    """The ids of the processes of one service (apt, s3, keeper) of the lab in `folder`."""
    return [pid for pid, argv in _all() if service in argv and _is_service(argv, folder)]


def of_build(folder: Path) -> list[int]:
    """The ids of the processes that build a system below `folder`: those whose root is there, mmdebstrap and its apt-get."""
    return [pid for pid, argv in _all() if _is_rooted(pid, folder) or _is_builder(argv, folder)]


def _is_rooted(pid: int, folder: Path) -> bool:
    try:
        return Path(f"/proc/{pid}/root").readlink().is_relative_to(folder)
    except OSError:  # it ended meanwhile
        return False


def _is_builder(argv: list[str], folder: Path) -> bool:
    names = {Path(word).name for word in argv[:2]}  # mmdebstrap is the first argument of perl
    return not names.isdisjoint(_BUILDERS) and any(f"{folder}/" in word for word in argv)


def mentioned(path: Path) -> bool:
    """Whether a process has `path` as a word of its argv."""
    return any(str(path) in argv for _, argv in _all())


def nspawn_of(root: Path) -> int | None:
    """The id of the systemd-nspawn that runs the host with the tree `root`.

    It is remembered: looking through all processes takes 10 ms of processor time, and a booting host is asked 50 times a
    second.
    """
    known = _nspawns.get(root)
    if known is None or not ((argv := _argv(known)) and is_nspawn(argv, root)):
        known = _nspawns[root] = next((pid for pid, argv in _all() if is_nspawn(argv, root)), None)
    return known


def is_nspawn(argv: list[str], below: Path) -> bool:
    """Whether this is the argv of a systemd-nspawn for a tree at or below `below`."""
    trees = [word.removeprefix("--directory=") for word in argv if word.startswith("--directory=")]
    return Path(argv[0]).name == "systemd-nspawn" and any(Path(tree).is_relative_to(below) for tree in trees)


def _is_service(argv: list[str], folder: Path) -> bool:
    return any(word.startswith(_PACKAGE) for word in argv) and argv[-1] == str(folder)


def _all() -> Iterator[tuple[int, list[str]]]:
    for name in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208  no object for each of hundreds of processes
        if int(name) != os.getpid() and (argv := _argv(int(name))):
            yield int(name), argv


def _argv(pid: int) -> list[str]:
    """Empty for a process that has ended, and for one of the kernel."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:  # noqa: PTH123  see above
            words = stream.read().rstrip(b"\0").decode(errors="replace")
    except OSError:  # it ended meanwhile
        return []
    return words.split("\0") if words else []


def leader_of(nspawn: int) -> int | None:
    """The id, on this machine, of a host's first process: the child that is process 1 of its own namespace."""
    for entry in Path(f"/proc/{nspawn}/task").glob("*/children"):
        for child in entry.read_text().split():
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{child}/status").read_text()
                ids = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()
                if len(ids) > 2 and ids[-1] == "1":
                    return int(child)
    return None


def end(pids: list[int], *, deadline: float = 10) -> None:
    """Kills these processes, and with a systemd-nspawn its whole host; waits until they have ended."""
    watched = {pid: identity for pid in pids if (identity := identify(pid))}
    for pid in watched:
        _kill(leader_of(pid) or pid)
    ends = time.monotonic() + deadline
    while left := [pid for pid, identity in watched.items() if identity.is_alive]:
        _reap()
        if time.monotonic() > ends:
            raise LabError(f"processes {left} did not end within {deadline:g} s of being killed")
        if time.monotonic() > ends - deadline / 2:  # the host has ended, but its systemd-nspawn hangs
            for pid in left:
                _kill(pid)
        time.sleep(0.01)
    _reap()


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _reap() -> None:
    _children[:] = [child for child in _children if child.poll() is None]


@contextlib.contextmanager
def locked(path: Path, *, deadline: float = 600) -> Iterator[None]:
    """Holds the lock file `path`; waits up to `deadline` seconds for another process. Removes the file at the end. Raises Held.

    The kernel frees the lock when its holder dies.
    """
    ends = time.monotonic() + deadline
    path.parent.mkdir(parents=True, exist_ok=True)
    while (fd := _try_lock(path)) is None:
        if time.monotonic() > ends:
            raise Held(f"another process has held {path} for {deadline:g} s", hint=f"to see which one: fuser -v {path}")
        time.sleep(_LOCK_INTERVAL)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # before the lock is released, so that no process locks a file without a name
        os.close(fd)


def _try_lock(path: Path) -> int | None:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:  # the folder was removed with the last lab
        path.parent.mkdir(parents=True, exist_ok=True)
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.stat().st_ino == os.fstat(fd).st_ino:
            return fd
    except (BlockingIOError, FileNotFoundError):  # held, or removed by its last holder meanwhile
        pass
    os.close(fd)
    return None
