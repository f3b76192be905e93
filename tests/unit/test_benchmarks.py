"""The workload of the benchmarks, which only a benchmark on lab hosts runs."""

import runpy
from pathlib import Path

WORKLOAD = Path(__file__).resolve().parents[2] / "benchmarks/workload/playbooks/workload.py"


def test_the_workload_can_be_observed() -> None:
    """Its resources fit today's constructors, and name what they observe and claim."""
    resources = list(runpy.run_path(str(WORKLOAD))["sixteen"].function(None))
    assert len(resources) == 9
    for one in resources:
        assert one.label
        one.probe()
        one.claims()
