"""One run of a contender, and rounds of many: A B C, A B C, …, so that a busy machine is busy for all alike."""

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

_PATIENCE = 240  # seconds for one run; it is ended then, and fails


@dataclass(frozen=True)
class Contender:
    """Something to measure: one command, or several at once.

    changed  how many changes its output tells of; raises ValueError when it did not do its work
    tidy     what must not be left for the next round, done off the clock
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    changed: Callable[[str], int]
    cwd: Path
    env: Mapping[str, str]
    tidy: Callable[[], None] = lambda: None


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

    @property
    def seconds(self) -> float:
        """The median run."""
        return median(one.seconds for one in self.samples)

    @property
    def memory(self) -> int:
        """The largest of any run."""
        return max(one.memory for one in self.samples)


def once(contender: Contender, trips: Callable[[], int] = lambda: 0) -> Sample:
    """Runs it. Raises ValueError, with its output, when it failed. `trips`: a counter of round trips."""
    before, started = trips(), time.perf_counter()
    running = [
        subprocess.Popen(
            argv, cwd=contender.cwd, env=contender.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )
        for argv in contender.commands
    ]  # fmt: skip
    patience = threading.Timer(_PATIENCE, _end, (running,))
    patience.start()
    try:
        output = "".join(one.stdout.read() for one in running if one.stdout)
        ends = [os.wait4(one.pid, 0) for one in running]
    except BaseException:  # ended from outside: what is measured goes too
        _end(running)
        raise
    finally:
        patience.cancel()
    seconds = time.perf_counter() - started
    for one, (_, status, _) in zip(running, ends, strict=True):
        one.returncode = os.waitstatus_to_exitcode(status)  # waited for already
        if one.stdout:
            one.stdout.close()
    contender.tidy()
    if any(one.returncode for one in running):
        raise ValueError(f"{contender.name} failed:\n{output}")
    usage = [use for _, _, use in ends]
    return Sample(
        seconds,
        sum(use.ru_utime + use.ru_stime for use in usage),
        max(use.ru_maxrss for use in usage) * 1024,
        contender.changed(output),
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
    until: float,
    trips: Callable[[], int] = lambda: 0,
    say: Callable[[str], None] = lambda _: None,
) -> list[Series]:
    """`count` rounds of all; a contender that would not end before `until` (monotonic) sits further rounds out."""
    series = [Series(one.name) for one in contenders]
    for number in range(count):
        for contender, runs in zip(contenders, series, strict=True):
            if runs.samples and time.monotonic() + 1.5 * runs.seconds > until:
                continue
            sample = once(contender, trips)
            runs.samples.append(sample)
            say(f"round {number + 1}: {contender.name}: {sample.seconds:.2f} s")
    return series


def ratio(one: Series, other: Series) -> float:
    """How many times as long as `other` `one` took: the median of the rounds that both were in."""
    return median(a.seconds / b.seconds for a, b in zip(one.samples, other.samples, strict=False))
