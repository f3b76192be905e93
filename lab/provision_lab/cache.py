"""The cache folder: what takes long to make is made once, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from provision_lab.locks import locked
from provision_lab.processes import mentioned
from provision_lab.run import LabError

_KEPT = 7 * 86400  # seconds that an unused entry is kept


def folder() -> Path:
    """$PROVISION_LAB_CACHE, else /var/cache/provision-lab (a lab runs as root)."""
    return Path(os.environ.get("PROVISION_LAB_CACHE") or "/var/cache/provision-lab")


def key_of(*parts: object) -> str:
    """A short name for what these parts (JSON values) determine."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def hash_of_files(root: Path) -> str:
    """A hash of all files below `root`, names and contents; compiled Python does not count."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root)}\0{len(content)}\0{path.stat().st_mode & 0o777:o}\0".encode())
            digest.update(content)
    return digest.hexdigest()


def entry(kind: str, key: str) -> Path:
    """Where the entry is or would be."""
    return folder() / f"{kind}-{key}"


def ensure(kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """The folder `kind`-`key` of the cache, made by `make(folder)` if it is not there.

    One process makes it while others wait; it appears under its name only when complete.
    """
    path = entry(kind, key)
    if not path.is_dir():
        with locked(folder() / f"{kind}.lock", deadline=900):
            if not path.is_dir():
                draft = path.with_name(f"{path.name}.draft")
                remove(draft)
                draft.mkdir(parents=True)
                try:
                    make(draft)
                    draft.rename(path)
                except BaseException:
                    remove(draft)
                    raise
                _prune(kind, keep=path)
    os.utime(path)
    return path


def _prune(kind: str, *, keep: Path) -> None:
    """Removes entries that nobody has used for a week, no running host stands on and no server serves."""
    mounts = Path("/proc/self/mounts").read_text()
    for path in folder().glob(f"{kind}-*"):
        old = path != keep and time.time() - path.stat().st_mtime > _KEPT
        if old and str(path) not in mounts and not mentioned(path):
            remove(path)


def remove(path: Path) -> None:
    """Removes a folder with all it holds; fine when it is not there. Never reaches into something mounted below it."""
    if mounts := mounted_below(path):
        raise LabError(f"{path} is not removed: {mounts[0]} is mounted", hint=f"umount {mounts[0]}")
    if path.is_dir():
        shutil.rmtree(path)


def mounted_below(path: Path) -> list[str]:
    """Mount points at or below `path`, the deepest first."""
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    below = [point for point in points if point == str(path) or point.startswith(f"{path}/")]
    return sorted(below, key=len, reverse=True)
