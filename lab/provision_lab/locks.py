"""Locks between processes, freed by the kernel when their holder dies, that leave no file behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from provision_lab.run import LabError

_INTERVAL = 0.02  # seconds between two tries


@contextlib.contextmanager
def locked(path: Path, *, deadline: float = 600) -> Iterator[None]:
    """Holds the lock file `path`, waiting up to `deadline` seconds for another process; removes the file at the end."""
    ends = time.monotonic() + deadline
    path.parent.mkdir(parents=True, exist_ok=True)
    while (fd := _try(path)) is None:
        if time.monotonic() > ends:
            raise LabError(f"another process has held {path} for {deadline:g} s", hint=f"see who: fuser -v {path}")
        time.sleep(_INTERVAL)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # before the lock goes, so that no one else can have it under this name
        os.close(fd)


def _try(path: Path) -> int | None:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:  # the folder went with the last lab
        path.parent.mkdir(parents=True, exist_ok=True)
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.stat().st_ino == os.fstat(fd).st_ino:
            return fd
    except (BlockingIOError, FileNotFoundError):  # held, or removed by its last holder while we opened it
        pass
    os.close(fd)
    return None
