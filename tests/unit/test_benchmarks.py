"""The workload of the benchmarks, and their simulated hosts."""

import json
import runpy
import subprocess
from pathlib import Path

import pytest

from benchmarks import thousand

WORKLOAD = Path(__file__).resolve().parents[2] / "benchmarks/workload/playbooks/workload.py"


def test_the_workload_can_be_observed() -> None:
    """Its resources fit today's constructors, and name what they observe and claim."""
    resources = list(runpy.run_path(str(WORKLOAD))["sixteen"].function(None))
    assert len(resources) == 9
    for one in resources:
        assert one.label
        one.probe()
        one.claims()


@pytest.mark.root
def test_simulated_hosts_are_as_they_are_described() -> None:
    """Two of eight hosts fail, and one is silent. The others have nothing to change. All processes end afterwards."""
    printed: list[bytes] = []
    with thousand.simulation(8, failing=25, silent=13, timeout=0.5) as made:
        cost = thousand.measure(made, output=printed.append)
        sessions = subprocess.run(["pgrep", "-f", f"{made.folder}/sshd_config"], capture_output=True).stdout.split()
    *_, summary = (json.loads(line) for line in b"".join(printed).splitlines())
    assert (summary["failed"], summary["unreachable"], summary["changed"]) == (2, 1, 0)
    assert cost.code == 1
    assert cost.threads > 0
    assert 0 < cost.processor < 60
    assert sessions
    assert not any(Path("/proc", pid.decode()).exists() for pid in sessions)
    assert not made.folder.exists()


@pytest.mark.root
def test_more_hosts_than_threads_are_dialled_ahead() -> None:
    """There are two threads for sixteen hosts, four of which never answer. Each host has its result."""
    printed: list[bytes] = []
    with thousand.simulation(16, silent=25, timeout=0.5, plays=2) as made:
        cost = thousand.measure(made, output=printed.append, options=["--forks", "2"])
    *_, summary = (json.loads(line) for line in b"".join(printed).splitlines())
    assert (summary["failed"], summary["unreachable"], summary["changed"]) == (0, 4, 0)
    assert sum(one["ok"] for one in summary["hosts"].values()) == 24
    assert cost.code == 4
