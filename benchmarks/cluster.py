"""Measures `--dask` on a cluster of real processes on this machine: with one worker, with two, and when one of two is killed.

The simulated hosts use the same processors as the workers, so on a small machine more workers are not faster. Therefore each
worker may use only a part of a processor, by the kernel's quota: then the workers are the bottleneck, as on machines of
their own. The hosts, the scheduler and the client have no quota.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks import thousand

ROOT = Path(__file__).parents[1]
HOSTS: Final = 600
QUOTA: Final = 0.1  # processors for each worker
_DASK = Path(sys.executable).parent / "dask"
_CGROUPS = Path("/sys/fs/cgroup")
_PERIOD = 50_000  # microseconds: the quota is granted for each period of this length
_START_SECONDS = 120.0
_END_SECONDS = 15.0


@dataclass
class Cluster:
    """A scheduler and workers, as processes of their own. Each worker has one thread."""

    address: str
    folder: Path
    environment: Mapping[str, str]
    options: tuple[str, ...] = ()
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    scheduler: subprocess.Popen[bytes] | None = None

    def add_worker(self) -> None:
        """Starts a worker."""
        number = len(self.workers)
        argv = [_DASK, "worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard", *self.options]
        argv += ["--local-directory", self.folder / f"worker{number}"]
        self.workers.append(_start(argv, self.folder / f"worker{number}.log", self.environment))

    def wait_for_workers(self) -> None:
        """Waits until all workers have joined. Raises TimeoutError."""
        logs = [self.folder / f"worker{number}.log" for number in range(len(self.workers))]
        until = time.monotonic() + _START_SECONDS
        while not all("Registered to" in one.read_text() for one in logs):
            if time.monotonic() > until:
                raise TimeoutError(f"no Dask workers within {_START_SECONDS:.0f} s: {self.logs}")
            time.sleep(0.05)

    @property
    def logs(self) -> str:
        """What all processes have printed."""
        return "".join(one.read_text() for one in self.folder.glob("*.log"))


@contextmanager
def cluster(folder: Path, workers: int, scheme: str = "tcp", **environment: str) -> Iterator[Cluster]:
    """Starts `dask scheduler` and `dask worker`, which end with the block. `folder` gets their logs and their home."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = folder / "home"
    home.mkdir(exist_ok=True)
    whole = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "DASK", "SSH_"))}
    whole |= {"PYTHONPATH": str(ROOT), "HOME": str(home), **environment}
    options = ("--protocol", scheme, "--host", "127.0.0.1")
    made = Cluster(f"{scheme}://127.0.0.1:{port}", folder, whole, options)
    with ExitStack() as stack:
        argv = [_DASK, "scheduler", "--port", str(port), "--no-dashboard", *options]
        made.scheduler = _start(argv, folder / "scheduler.log", whole)
        stack.callback(lambda: [_end(one) for one in (*made.workers, made.scheduler)])
        for _ in range(workers):
            made.add_worker()
        made.wait_for_workers()
        yield made


def _start(argv: list[Any], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        argv = ["setpriv", "--pdeathsig", "KILL", *argv]  # it ends even if this process is killed
        return subprocess.Popen(argv, cwd=log.parent, env=environment, stdout=file, stderr=file, start_new_session=True)


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is None:
        return
    process.terminate()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def quota(process: subprocess.Popen[bytes], processors: float) -> Iterator[None]:
    """Lets a process and its threads use this number of processors only. Raises OSError where the kernel has no quota."""
    second = (_CGROUPS / "cgroup.controllers").exists()  # version 2 of cgroups
    folder = (_CGROUPS if second else _CGROUPS / "cpu") / f"provision-quota-{process.pid}"
    folder.mkdir()
    try:
        allowed = int(processors * _PERIOD)
        if second:
            (folder / "cpu.max").write_text(f"{allowed} {_PERIOD}")
        else:
            (folder / "cpu.cfs_period_us").write_text(f"{_PERIOD}")
            (folder / "cpu.cfs_quota_us").write_text(f"{allowed}")
        (folder / "cgroup.procs").write_text(f"{process.pid}")
        yield
    finally:
        with contextlib.suppress(OSError):
            (_CGROUPS / "cgroup.procs" if second else _CGROUPS / "cpu" / "cgroup.procs").write_text(f"{process.pid}")
        folder.rmdir()


@dataclass(frozen=True)
class ClusterCost:
    """One run on a cluster.

    seconds      wall-clock time of the command, its start included
    processor    seconds of each worker, user and system
    client       processor seconds of the client
    results      how many hosts ended: ok, or with a reported failure
    ok           how many of them have all tasks ok
    """

    workers: int
    seconds: float
    processor: tuple[float, ...]
    client: float
    results: int
    ok: int
    code: int

    def __str__(self) -> str:
        each = ", ".join(f"{one:.1f}" for one in self.processor)
        return (
            f"{self.workers} workers: {self.seconds:.1f} s; processor: {each} s of the workers, {self.client:.1f} s of the"
            f" client; {self.results} hosts with a result, {self.ok} ok, exit code {self.code}"
        )


def run(made: thousand.Simulation, workers: int, *, kill_after: int = 0, processors: float = QUOTA) -> ClusterCost:
    """Runs `provision thousand --dask` with this number of workers, which have run once before.

    kill_after  kill one worker when this number of hosts has ended; 0: none
    processors  the quota of each worker
    """
    folder = made.folder / f"cluster-{workers}-{kill_after}"
    folder.mkdir()
    with cluster(folder, workers) as dask, ExitStack() as stack:
        _command(made, dask, ["--check", "--limit", "h000*"])  # imports everything, in each worker
        for one in dask.workers:
            stack.enter_context(quota(one, processors))
        before = [_processor(one.pid) for one in dask.workers]
        killer = _Killer(dask.workers[0], kill_after) if kill_after else None
        started = time.monotonic()
        code, lines, client = _command(made, dask, [], killer.add if killer else None)
        seconds = time.monotonic() - started
        used = [_processor(one.pid) - was for one, was in zip(dask.workers, before, strict=True) if one.poll() is None]
    hosts = json.loads(lines[-1])["hosts"].values()
    ok = sum(1 for one in hosts if one["ok"] and not one["failed"])
    results = sum(1 for one in hosts if one["ok"] or one["failed"] or one["unreachable"])
    return ClusterCost(workers, seconds, tuple(used), client, results, ok, code)


class _Killer:
    """Kills a worker when some hosts have ended."""

    def __init__(self, worker: subprocess.Popen[bytes], after: int) -> None:
        self._worker, self._left = worker, after

    def add(self, line: bytes) -> None:
        """Takes an event."""
        self._left -= line.startswith(b'{"type":"task"')
        if self._left == 0:
            self._worker.kill()


def _command(
    made: thousand.Simulation, dask: Cluster, options: list[str], watch: Callable[[bytes], None] | None = None
) -> tuple[int, list[bytes], float]:
    """Runs the command line with --json. Returns its exit code, its lines, and its processor seconds."""
    argv = [*thousand.OURS, "thousand", "-i", str(made.folder / "inventory.toml"), "--dask", dask.address, "--json"]
    process = subprocess.Popen(
        [*argv, *options], cwd=made.folder, env=dask.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    lines = []
    ended = threading.Timer(600, process.send_signal, [signal.SIGKILL])
    ended.start()
    try:
        for line in process.stdout:
            lines.append(line)
            if watch:
                watch(line)
        _, status, usage = os.wait4(process.pid, 0)
    finally:
        ended.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, lines, usage.ru_utime + usage.ru_stime


def _processor(pid: int) -> float:
    """The processor seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(report: Callable[[str], None], hosts: int = HOSTS) -> dict[str, Any]:
    """Measures one worker, two workers, and two of which one is killed after a third of the hosts."""
    with thousand.simulation(hosts) as made:
        costs = {}
        for key, workers, kill_after in (("one", 1, 0), ("two", 2, 0), ("killed", 2, hosts // 3)):
            cost = run(made, workers, kill_after=kill_after)
            report(f"Dask, {cost}")
            costs[key] = cost
    found: dict[str, Any] = {
        key: {"seconds": one.seconds, "processor": one.processor, "client": one.client} for key, one in costs.items()
    }
    return {**found, "hosts": hosts, "quota": QUOTA, "lost": hosts - costs["killed"].results}


if __name__ == "__main__":
    print(json.dumps(measure(lambda text: print(text, flush=True), int((sys.argv[1:] or [str(HOSTS)])[0]))))
