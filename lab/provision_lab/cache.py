"""The cache folder: what takes long to build is built once. An entry exists only when it is complete."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from provision_lab import processes
from provision_lab.processes import locked, mentioned
from provision_lab.run import LabError, run

_KEPT = 7 * 86400.0  # seconds that an unused entry is kept
_DRAFT = ".draft"


def folder() -> Path:
    """$PROVISION_LAB_CACHE, else /var/cache/provision-lab (a lab runs as root)."""
    return Path(os.environ.get("PROVISION_LAB_CACHE") or "/var/cache/provision-lab")


def key_of(*parts: object) -> str:
    """A short hash of these parts (JSON values)."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def hash_of_files(root: Path) -> str:
    """A hash of names, modes and contents of all files below `root`, without compiled Python."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root)}\0{len(content)}\0{path.stat().st_mode & 0o777:o}\0".encode())
            digest.update(content)
    return digest.hexdigest()


def entry(kind: str, key: str) -> Path:
    """The path of an entry, whether it exists or not."""
    return folder() / f"{kind}-{key}"


def ensure(kind: str, key: str, make: Callable[[Path], None], *, kept: float = _KEPT) -> Path:
    """The folder `kind`-`key` of the cache; filled by `make(folder)` if it does not exist.

    One process makes it while others wait; other entries are made at the same time. It appears under its name only when
    it is complete.
    """
    path = entry(kind, key)
    if not path.is_dir():
        with locked(_lock_of(path), deadline=900):
            if not path.is_dir():
                clear_drafts()
                draft = path.with_name(f"{path.name}{_DRAFT}")
                _clear(draft)
                draft.mkdir(parents=True)
                try:
                    make(draft)
                    unmount(draft)  # mmdebstrap succeeds, with a warning, when it cannot unmount
                    draft.rename(path)
                except BaseException:
                    _clear(draft)
                    raise
                _prune(kind, keep=path, kept=kept)
    os.utime(path)
    return path


def clear_drafts() -> None:
    """Removes the drafts of killed builds. Who builds holds the lock of the entry, and the kernel frees it at the end."""
    for draft in folder().glob(f"*{_DRAFT}"):
        with contextlib.suppress(processes.Held), locked(_lock_of(draft.with_suffix("")), deadline=0):
            _clear(draft)


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _clear(draft: Path) -> None:
    """Removes a draft with what a killed build left there. The caller holds the lock of its entry.

    mmdebstrap mounts /proc, /sys and /dev/shm in its tree, and a part of it may still run when its parent was killed.
    """
    processes.end(processes.of_build(draft))
    unmount(draft)
    remove(draft)


def _prune(kind: str, *, keep: Path, kept: float) -> None:
    """Removes entries that were not used for `kept` seconds, unless a mount or a process uses them."""
    mounts = Path("/proc/self/mounts").read_text()
    for path in folder().glob(f"{kind}-*"):
        if path == keep or path.suffix:  # a draft or a lock
            continue
        old = time.time() - path.stat().st_mtime > kept
        if old and str(path) not in mounts and not mentioned(path):
            remove(path)


def remove(path: Path) -> None:
    """Removes a folder and its contents; no error when it does not exist. Refuses when something is mounted below it."""
    if mounts := mounted_below(path):
        raise LabError(f"cannot remove {path}: {mounts[0]} is mounted", hint=f"umount {mounts[0]}")
    if path.is_dir():
        shutil.rmtree(path)


def unmount(path: Path) -> None:
    """Unmounts everything at or below `path`. Raises LabError."""
    points = mounted_below(path)
    for point in points:
        # Where a folder of this machine is mounted with all below it, the machine's own would be unmounted with the copies.
        # Source: mount_namespaces(7), propagation of unmounts.
        run("mount", "--make-private", point, check=False)
    for point in points:
        if run("umount", point, check=False).returncode:
            run("umount", "--lazy", point)  # a process uses it: it is unmounted when that process ends


def mounted_below(path: Path) -> list[str]:
    """The mount points at or below `path`, deepest first."""
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    below = [point for point in points if point == str(path) or point.startswith(f"{path}/")]
    return sorted(below, key=len, reverse=True)
