"""Runs of the contenders in turns (A B C, A B C, …), so that a busy machine affects all of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

_TIMEOUT = 600  # seconds until a run is ended and fails


@dataclass(frozen=True)
class Contender:
    """Something to measure: one command, or several at once.

    changed    the number of changes in its output; raises ValueError when it did not do its work
    clean_up   removes what must not affect the next round; not measured
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    changed: Callable[[str], int]
    cwd: Path
    env: Mapping[str, str]
    clean_up: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Sample:
    """One run: wall-clock seconds, processor seconds of this machine's own processes, peak memory in bytes, changes."""

    seconds: float
    cpu: float
    memory: int
    changed: int
    round_trips: int = 0


@dataclass
class Series:
    """All runs of one contender."""

    name: str
    samples: list[Sample] = field(default_factory=list)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Series:
        """The series from its JSON form, which `asdict` makes."""
        return cls(data["name"], [Sample(**one) for one in data["samples"]])

    @property
    def seconds(self) -> float:
        """The median of the runs."""
        return median(one.seconds for one in self.samples)

    @property
    def memory(self) -> int:
        """The maximum of the runs."""
        return max(one.memory for one in self.samples)


def once(
    contender: Contender, trips: Callable[[], int] = lambda: 0, watch: Callable[[float, str], None] = lambda *_: None
) -> Sample:
    """Runs a contender. Raises ValueError with its output when it failed.

    trips  reads a counter of round trips
    watch  receives each line of output, with the seconds since the start; of several commands, one after the other
    """
    before, started = trips(), time.perf_counter()
    running = [
        subprocess.Popen(
            argv, cwd=contender.cwd, env=contender.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )
        for argv in contender.commands
    ]  # fmt: skip
    timeout = threading.Timer(_TIMEOUT, _end, (running,))
    timeout.start()
    lines = []
    try:
        for line in (line for one in running if one.stdout for line in one.stdout):
            lines.append(line)
            watch(time.perf_counter() - started, line)
        ends = [os.wait4(one.pid, 0) for one in running]
    except BaseException:  # interrupted: end the measured processes too
        _end(running)
        raise
    finally:
        timeout.cancel()
    seconds = time.perf_counter() - started
    for one, (_, status, _) in zip(running, ends, strict=True):
        one.returncode = os.waitstatus_to_exitcode(status)  # its exit status is known already
        if one.stdout:
            one.stdout.close()
    contender.clean_up()
    if any(one.returncode for one in running):
        raise ValueError(f"{contender.name} failed:\n{''.join(lines)}")
    usage = [use for _, _, use in ends]
    return Sample(
        seconds,
        sum(use.ru_utime + use.ru_stime for use in usage),
        max(use.ru_maxrss for use in usage) * 1024,
        contender.changed("".join(lines)),
        trips() - before,
    )


def _end(running: Sequence[subprocess.Popen[str]]) -> None:
    for one in running:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(one.pid, signal.SIGKILL)


def rounds(
    contenders: Sequence[Contender],
    count: int,
    *,
    at_most: Mapping[str, int] | None = None,
    trips: Callable[[], int] = lambda: 0,
    report: Callable[[str], None] = lambda _: None,
) -> list[Series]:
    """Runs `count` rounds of all, fewer of the contenders in `at_most`."""
    series = [Series(one.name) for one in contenders]
    for number in range(count):
        for contender, runs in zip(contenders, series, strict=True):
            if number >= (at_most or {}).get(contender.name, count):
                continue
            sample = once(contender, trips)
            runs.samples.append(sample)
            report(f"round {number + 1}: {contender.name}: {sample.seconds:.2f} s")
    return series


def ratio(one: Series, other: Series) -> float:
    """The median of `one`'s time divided by `other`'s, over the rounds that both were in."""
    return median(a.seconds / b.seconds for a, b in zip(one.samples, other.samples, strict=False))
