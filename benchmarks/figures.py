"""The figures of all parts in one JSON file. A run of some parts keeps the figures of the others, with their dates."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

PARTS: Final = ("near", "far", "first", "demo", "many", "dask")
BUSY: Final = 1.0  # a figure that was measured at a higher load is marked
_QUIET_SECONDS: Final = 90.0
_INTERVAL: Final = 2.0


@dataclass(frozen=True)
class Load:
    """The load of the machine before a part.

    average  the load average of one minute
    idle     the share of the processors' time that was idle in the last second: 0 to 1
    waited   seconds until the load had fallen, or the limit was reached
    """

    average: float
    idle: float
    waited: float

    @property
    def is_busy(self) -> bool:
        """Whether the figures of this part are marked."""
        return self.average > BUSY


def wait_until_quiet(limit: float = _QUIET_SECONDS) -> Load:
    """Waits until the load average of one minute is at most 1.0, but no longer than `limit` seconds."""
    started = time.monotonic()
    while os.getloadavg()[0] > BUSY and time.monotonic() - started < limit:
        # The kernel computes the average every five seconds. It sends no event that could be awaited.
        time.sleep(min(_INTERVAL, limit))
    waited = time.monotonic() - started
    return Load(round(os.getloadavg()[0], 2), idle_share(), round(waited, 1))


def idle_share() -> float:
    """The share of all processors' time that is idle in the coming second: 0 to 1."""
    before = _processor_time()
    time.sleep(1)  # the interval that is measured
    idle, total = (after - start for after, start in zip(_processor_time(), before, strict=True))
    return round(idle / total, 3) if total else 1.0


def _processor_time() -> tuple[int, int]:
    """The idle and the whole time of all processors since the boot, in ticks. Source: proc_stat(5)."""
    times = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return times[3] + times[4], sum(times)


def load(path: Path) -> dict[str, dict[str, Any]]:
    """The figures of each part; empty when there are none yet."""
    with suppress(FileNotFoundError):
        found: dict[str, dict[str, Any]] = json.loads(path.read_text("utf-8"))
        return found
    return {}


def save(path: Path, part: str, figures: Mapping[str, Any], before: Load, seconds: float) -> None:
    """Replaces one part's figures, with today's date, the load before it, the machine, and how long it took."""
    everything = load(path)
    everything[part] = {
        "date": f"{datetime.now():%Y-%m-%d %H:%M}",
        "load": asdict(before),
        "machine": machine(),
        "took": round(seconds, 1),
        **figures,
    }
    ordered = {name: everything[name] for name in PARTS if name in everything}
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", "utf-8")
    draft.replace(path)


def machine() -> str:
    """A description of this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = next(
        (line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ""
    )
    system = platform.freedesktop_os_release()["PRETTY_NAME"]
    return (
        f"{os.cpu_count()} processors ({model or platform.machine()}), {memory:.0f} GiB, {system}, "
        f"Linux {platform.release()}, Python {platform.python_version()}, {_openssh()}"
    )


def _openssh() -> str:
    version = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=False).stderr
    return version.split(",")[0].strip().replace("_", " ")
