"""What it costs to ask the command line for help."""

from __future__ import annotations

import subprocess
import time

from benchmarks.contenders import PROVISION
from benchmarks.estate import environment


def help_costs(times: int = 11) -> list[float]:
    """Seconds of each of so many runs of `provision --help`."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        subprocess.run([PROVISION, "--help"], env=environment(), stdout=subprocess.DEVNULL, check=True)
        taken.append(time.perf_counter() - started)
    return taken
