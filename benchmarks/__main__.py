"""`python -m benchmarks`: measures and writes docs/performance.md. It needs root and Linux, like the lab."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import clock, contenders, peers
from benchmarks.estate import Estate, Place, estate
from benchmarks.page import Figures, write
from provision_lab import LabUnavailable
from provision_lab.proxy import Proxy

ROOT = Path(__file__).parents[1]
ROUND_TRIP = 0.1  # seconds


def main() -> None:
    """Measures everything and writes the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--far-rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=9, help="slow contenders skip rounds to end in this time")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "performance.md")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the lab is taken down, as on Ctrl-C
    begun = time.monotonic()
    until = begun + options.minutes * 60

    def report(text: str) -> None:
        print(f"[{time.monotonic() - begun:5.0f} s] {text}", file=sys.stderr, flush=True)

    environment = peers.environment(report)
    try:
        with estate(report) as made:
            report("install the packages that ansible needs on the hosts")
            peers.prepare_hosts(made.lab)
            near = _contenders(made, made.places, environment)
            report("run the other tools once, so that they find nothing to change later")
            for one in near[-2:]:
                clock.once(one)
            all_hosts = clock.rounds(near, options.rounds, until=until - 60, report=report)
            far = _far(made, environment, options.far_rounds, until, report)
    except LabUnavailable as error:
        raise SystemExit(f"cannot measure without a lab: {error}") from error
    figures = Figures(all_hosts, far, contenders.help_durations(), peers.versions(), time.monotonic() - begun)
    options.out.write_text(write(figures), "utf-8")
    report(f"wrote {options.out}")


def _contenders(made: Estate, places: tuple[Place, ...], environment: Path) -> list[clock.Contender]:
    return [
        contenders.ssh(made, places),
        contenders.provision(made, places, "all"),
        contenders.provision(made, places, "workload"),
        contenders.pyinfra(made, places, environment),
        contenders.ansible(made, places, environment),
    ]


def _far(
    made: Estate, environment: Path, count: int, until: float, report: Callable[[str], None]
) -> list[clock.Series]:
    """Measures one runner host with latency, and for `provision all` also the GitLab host, which has other probes."""
    by_name = {one.name: one for one in made.places}
    with (
        Proxy(by_name["runner-1"].address, 22, round_trip=ROUND_TRIP) as runner,
        Proxy(by_name["gitlab"].address, 22, round_trip=ROUND_TRIP) as server,
    ):
        places = (Place("runner-1", runner.address, runner.port),)
        gitlab = (Place("gitlab", server.address, server.port),)
        near = _contenders(made, places, environment)
        near.insert(2, contenders.provision(made, gitlab, "all", name="provision all, the GitLab host"))
        return clock.rounds(
            near, count, until=until, trips=lambda: runner.round_trips + server.round_trips, report=report
        )


if __name__ == "__main__":
    main()
