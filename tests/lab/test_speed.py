"""The cost of a run that changes nothing. `make bench` measures more and compares with other tools.

The limits here hold on a busy machine; the ratios in docs/performance.md need a quiet one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness
from provision_lab.proxy import Proxy

HOSTS = ("gitlab", *(f"runner-{number}" for number in range(1, 8)))
PROVISION = Path(sys.executable).with_name("provision")
NOTHING = "Nothing to change on"


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A converged estate of eight hosts."""
    made = harness_factory(
        LabHost("gitlab", prepared="server"), *(LabHost(name, prepared="runner") for name in HOSTS if name != "gitlab")
    )
    done = made.run("all", deadline=550)
    assert done.returncode == 0, done.stdout + done.stderr
    return made


def environment() -> dict[str, str]:
    """The environment of a user whose Python keeps compiled files."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


@dataclass(frozen=True)
class Cost:
    """What commands took: seconds on the clock and of this machine's processors, without the hosts'."""

    clock: float
    processor: float


def cost_of(*commands: list[str]) -> Cost:
    """The cost of commands that start at once, until the last has ended; all must succeed."""
    started = time.perf_counter()
    running = [
        subprocess.Popen(one, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        for one in commands
    ]
    processor, codes = 0.0, []
    for one in running:
        _, status, usage = os.wait4(one.pid, 0)
        one.returncode = os.waitstatus_to_exitcode(status)
        codes.append(one.returncode)
        processor += usage.ru_utime + usage.ru_stime
    assert codes == [0] * len(commands)
    return Cost(time.perf_counter() - started, processor)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("host", ["gitlab", "runner-1"])
def test_a_cold_run_is_nine_round_trips_at_most(harness: Harness, host: str) -> None:
    """Counted by a proxy, connection included, for any number of tasks."""
    there = harness.lab.machine(host).host

    def round_trips() -> int:
        with Proxy(there.address, there.sshd_port, round_trip=0.1) as proxy:
            reached = {"address": proxy.address, "host_key": harness.lab.host_keys[host], "ssh": {"port": proxy.port}}
            done = harness.run("all", "--limit", host, changes={"hosts": {host: reached}})
            assert (done.returncode, f"{NOTHING} 1 host" in done.stdout) == (0, True), done.stdout + done.stderr
            assert proxy.connections == 1
            return proxy.round_trips

    # Where a busy machine pauses us between two packets of one message, an answer slips in, and is counted.
    assert any(round_trips() <= 9 for _ in range(3))


def test_a_run_starts_few_processes_on_a_host(harness: Harness) -> None:
    """The login's, sudo's and those of all questions: each costs the host one to two milliseconds.

    A host numbers its processes and threads one after the other. Its own timers start some too: the least of five counts.
    """
    most = {"gitlab": 90, "runner-1": 66}

    def last_number(host: str) -> int:
        leader = harness.lab.machine(host).leader
        command = ["nsenter", f"--target={leader}", "--all", "--", "sh", "-c", "echo $$"]
        return int(subprocess.run(command, capture_output=True, check=True).stdout)

    least: dict[str, int] = {}
    for _ in range(5):
        before = {host: last_number(host) for host in most}
        done = harness.run("all")
        assert (done.returncode, f"{NOTHING} 8 hosts" in done.stdout) == (0, True), done.stdout + done.stderr
        started = {host: last_number(host) - number - 1 for host, number in before.items()}
        least = {host: min(number, least.get(host, number)) for host, number in started.items()}
        if all(least[host] <= number for host, number in most.items()):
            return
    raise AssertionError(least)


def test_memory_on_eight_hosts(harness: Harness) -> None:
    """The peak as the kernel counts it; nothing is changed."""
    command = [str(PROVISION), "all", "-i", str(harness.write())]
    # Started from a small process: what forks has its own size counted as its child's, until the program is replaced.
    measured = "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]); "
    measured += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr); sys.exit(code)"
    done = subprocess.run(
        [sys.executable, "-c", measured, *command], env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, f"{NOTHING} 8 hosts" in done.stdout) == (0, True), done.stdout + done.stderr
    assert int(done.stderr.split()[-1]) * 1024 < 120e6


def test_beside_saying_hello(harness: Harness) -> None:
    """A run on eight hosts compared with `ssh host true` on all at once, in turns.

    Processor time is comparable on a busy machine; the clock is compared on a quiet one.
    """
    ours = [str(PROVISION), "all", "-i", str(harness.write())]
    hello = [[*harness.lab.ssh_command(name), "true"] for name in HOSTS]
    cost_of(ours)  # Python's compiled files are laid
    quiet = os.getloadavg()[0] < (os.cpu_count() or 1)
    turns = [(cost_of(ours), cost_of(*hello)) for _ in range(5)]
    assert median(mine.processor / theirs.processor for mine, theirs in turns) <= 1.35, turns
    if quiet:
        assert median(mine.clock / theirs.clock for mine, theirs in turns) <= 2.6, turns


def test_help_answers_at_once() -> None:
    """200 ms of processor time in the best of ten tries, the interpreter's start included; on a quiet machine also of the clock."""
    quiet = os.getloadavg()[0] < (os.cpu_count() or 1)
    costs = [cost_of([str(PROVISION), "--help"]) for _ in range(10)]
    assert min(one.processor for one in costs) <= 0.2
    if quiet:
        assert median(one.clock for one in costs) <= 0.2
