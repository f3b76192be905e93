"""Ends the processes of a killed run of the benchmarks, and removes its files. The next run does this.

Every process that a run starts inherits a variable that identifies the run. The temporary files of the run are in one folder
that is named after it. The lab's hosts need none of this: they end with the process that owns their lab.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from provision_lab.processes import identify

VARIABLE: Final = "PROVISION_BENCH"
_FOLDERS: Final = "provision-bench-"
_CGROUPS: Final = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/cpu"))  # where the Dask workers' quotas are


def identity() -> str:
    """This process's id and its start in clock ticks: no other process of this boot has both."""
    return _of(os.getpid())


def prefix() -> str:
    """The beginning of the name of this run's temporary folder."""
    return f"{_FOLDERS}{identity()}-"


def end_leftovers(report: Callable[[str], None]) -> None:
    """Ends the processes of runs that have ended, and removes their folders."""
    for pid, run in _processes():
        if not _is_alive(run):
            report(f"end process {pid}, which an earlier run has left")
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDERS}*-*-*"):
        run = "-".join(folder.name.removeprefix(_FOLDERS).split("-")[:2])
        if not _is_alive(run):
            report(f"remove {folder}, which an earlier run has left")
            shutil.rmtree(folder)
    for folder in (one for place in _CGROUPS for one in place.glob("provision-quota-*")):
        if not Path("/proc", folder.name.rpartition("-")[2]).exists():
            with suppress(OSError):  # another process is in it
                folder.rmdir()


def _of(pid: int) -> str:
    known = identify(pid)
    return f"{pid}-{known.started}" if known else ""


def _is_alive(run: str) -> bool:
    pid, _, _ = run.partition("-")
    return pid.isdecimal() and _of(int(pid)) == run


def _processes() -> Iterator[tuple[int, str]]:
    """All processes that have the variable, with its value."""
    name = f"{VARIABLE}=".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):  # it has ended, or it belongs to another user
                for one in (entry / "environ").read_bytes().split(b"\0"):
                    if one.startswith(name):
                        yield int(entry.name), one.removeprefix(name).decode()
