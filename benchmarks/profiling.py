"""The profile of a run: medians of several runs of `phases.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import phases
from benchmarks.clock import Contender


@dataclass(frozen=True)
class Phase:
    """A phase: seconds of the clock, of processor time in the program, and of all other processes' processor time."""

    name: str
    seconds: float
    own: float
    others: float


def phases_of(marks: Mapping[str, Sequence[float]], before: Sequence[float], after: Sequence[float]) -> list[Phase]:
    """The phases between marks: (clock, own processor time, all processors' time). Without a mark, a phase is empty."""
    found, last = [], before
    for name, _ in phases.PHASES:
        now = after if name == "exit" else marks.get(name, last)
        own = now[1] - last[1]
        found.append(Phase(name, now[0] - last[0], own, max(0.0, now[2] - last[2] - own)))
        last = now
    return found


def profile(contender: Contender, times: int) -> list[Phase]:
    """The medians over `times` runs of a contender that runs `provision` in one process."""
    runs = []
    _, *arguments = contender.commands[0]
    for _ in range(times):
        with tempfile.NamedTemporaryFile() as out:
            before = (time.monotonic(), 0.0, phases.processors())
            argv = [sys.executable, phases.__file__, out.name, *arguments]
            process = subprocess.Popen(argv, cwd=contender.cwd, env=contender.env, stdout=subprocess.DEVNULL)
            status, usage = _wait(process)
            after = (time.monotonic(), usage, phases.processors())
            if status != 0:
                raise ValueError(f"the profiled run ended with exit code {status}")
            runs.append(phases_of(json.loads(Path(out.name).read_text()), before, after))
    return [
        Phase(name, *(median(getattr(run[at], kind) for run in runs) for kind in ("seconds", "own", "others")))
        for at, (name, _) in enumerate(phases.PHASES)
    ]


def _wait(process: subprocess.Popen[bytes]) -> tuple[int, float]:
    """The exit code, and the processor time that the process has used."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_utime + usage.ru_stime
