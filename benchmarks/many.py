"""Measures what many simulated hosts cost the machine that `provision` runs on, also when some hosts fail or are silent."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks import thousand

FAILING, SILENT = 10, 5  # percent


@dataclass(frozen=True)
class Case:
    """What to measure: the number of hosts, the output, and the percentage of hosts that fail or are silent."""

    hosts: int
    view: thousand.View = "json"
    failing: int = 0
    silent: int = 0


class LastOk:
    """Records when the last task ended as ok, from the JSON lines as they arrive."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._started = time.monotonic()
        self._rest = b""

    def add(self, data: bytes) -> None:
        """Adds a piece of the output."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b'{"type":"task"') and json.loads(line)["status"] == "ok":
                self.seconds = time.monotonic() - self._started


def cases(counts: Sequence[int]) -> list[Case]:
    """Each number of hosts with both kinds of output; the largest number also with hosts that fail or are silent."""
    found = [Case(count, view) for count in counts for view in ("json", "terminal")]
    return [*found, Case(max(counts), failing=FAILING, silent=SILENT)]


def measure(counts: Sequence[int], rounds: int, report: Callable[[str], None]) -> dict[str, Any]:
    """Measures all cases, in turns. `counts` are numbers of hosts."""
    runs: list[dict[str, Any]] = []
    for number in range(rounds):
        for case in cases(counts):
            with thousand.simulation(case.hosts, failing=case.failing, silent=case.silent) as made:
                last = LastOk()
                cost = thousand.measure(made, view=case.view, output=last.add)
            expected = 1 if case.failing else 0
            if cost.code != expected:
                raise ValueError(f"exit code {cost.code} instead of {expected}: {cost}")
            runs.append({**asdict(case), "cost": asdict(cost), "last_ok": last.seconds})
            report(f"many hosts, round {number + 1}: {cost}")
    return {"runs": runs}
