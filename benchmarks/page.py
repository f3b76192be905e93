"""docs/performance.md, made of the measurements."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median

from benchmarks.clock import Series, ratio

_TEMPLATE = Path(__file__).with_name("page.md")
SSH, ALL, WORKLOAD, PYINFRA, ANSIBLE = "ssh host true", "provision all", "provision workload", "pyinfra", "ansible-core"


@dataclass(frozen=True)
class Figures:
    """All measurements of one run; `far` is one host at 100 ms."""

    near: Sequence[Series]
    far: Sequence[Series]
    help: Sequence[float]
    versions: Mapping[str, str]
    seconds: float


def write(figures: Figures) -> str:
    """The text of the page."""
    near = {one.name: one for one in figures.near}
    worst_trips = max(one.round_trips for runs in figures.far if runs.name.startswith(ALL) for one in runs.samples)
    claims = [
        ("`provision all`, against `ssh host true`", _times(ratio(near[ALL], near[SSH])), "at most 1"),
        ("pyinfra, against `provision all`", _times(ratio(near[PYINFRA], near[ALL])), "at least 8"),
        ("ansible-core, against `provision all`", _times(ratio(near[ANSIBLE], near[ALL])), "at least 40"),
        ("round trips of `provision all`, cold", str(worst_trips), "at most 9"),
        ("memory of `provision all` at its peak", f"{near[ALL].memory / 1e6:.0f} MB", "under 120 MB"),
        ("`provision --help`", f"{median(figures.help) * 1000:.0f} ms", "at most 200 ms"),
    ]
    return _TEMPLATE.read_text("utf-8").format(
        date=f"{date.today():%-d %B %Y}",
        machine=_machine(),
        versions=_versions(figures.versions),
        claims=_table(("", "measured", "target"), claims),
        near=_table(
            ("", "seconds", f"× {SSH}", "runs", "processor, here", "changes reported"),
            [
                (
                    _shown(one.name),
                    f"{one.seconds:.2f}",
                    _times(ratio(one, near[SSH])),
                    str(len(one.samples)),
                    f"{median(run.cpu for run in one.samples):.2f} s",
                    str(one.samples[-1].changed) if one.name != SSH else "",
                )
                for one in figures.near
            ],
        ),
        far=_table(
            ("", "seconds", "round trips", "runs"),
            [
                (
                    _shown(one.name),
                    f"{one.seconds:.2f}",
                    f"{median(run.round_trips for run in one.samples):.0f}",
                    str(len(one.samples)),
                )
                for one in figures.far
            ],
        ),
        took=f"{figures.seconds / 60:.0f} minutes",
    )


def _shown(name: str) -> str:
    return f"**{name}**" if name.startswith("provision") else name


def _times(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = next(
        (line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ""
    )
    system = platform.freedesktop_os_release()["PRETTY_NAME"]
    return (
        f"{os.cpu_count()} processors ({model or platform.machine()}), {memory:.0f} GiB, {system}, "
        f"Linux {platform.release()}; load at the start: {os.getloadavg()[2]:.1f}"
    )


def _versions(peers: Mapping[str, str]) -> str:
    ssh = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=False).stderr.split(",")[0].strip()
    ours = f"Python {platform.python_version()}"
    return ", ".join([ours, *(f"{name} {version}" for name, version in peers.items()), ssh.replace("_", " ")])
