"""`python -m benchmarks`: measures and writes docs/performance.md. It needs root and Linux, like the lab.

Each part puts its figures into benchmarks/figures.json, so that a run of some parts keeps the figures of the others.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import clock, cluster, contenders, figures, first, many, owner, page, peers, phases, profiling
from benchmarks.estate import NAMES, Estate, Place, estate
from provision_lab import LabUnavailable
from provision_lab.proxy import Proxy

ROOT = Path(__file__).parents[1]
ROUND_TRIP = 0.1  # seconds
_FIGURES = ROOT / "benchmarks" / "figures.json"
_PAGE = ROOT / "docs" / "performance.md"
Report = Callable[[str], None]


def main() -> None:
    """Measures the chosen parts and writes the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--only",
        default=",".join(figures.PARTS),
        help="parts to measure, such as near,far; `none` only writes the page",
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of eight hosts with nothing to change")
    parser.add_argument("--slow-rounds", type=int, default=2, help="rounds of the tools that take long")
    parser.add_argument("--far-rounds", type=int, default=3, help="rounds of one host with latency")
    parser.add_argument("--first-rounds", type=int, default=2, help="first runs of provision, and by hand")
    parser.add_argument("--many-rounds", type=int, default=1, help="rounds of many simulated hosts")
    parser.add_argument("--hosts", default="300,1000", help="numbers of simulated hosts")
    parser.add_argument("--dask-hosts", type=int, default=cluster.HOSTS, help="number of simulated hosts for Dask")
    parser.add_argument(
        "--lab-hosts", type=int, default=len(NAMES), help="fewer hosts, to try the benchmarks; needs --figures, --out"
    )
    parser.add_argument("--minutes", type=float, default=30, help="no part begins after this time")
    parser.add_argument("--quiet", type=float, default=90, help="seconds that a part may wait for the load to fall")
    parser.add_argument("--figures", type=Path, default=_FIGURES)
    parser.add_argument("--out", type=Path, default=_PAGE)
    options = parser.parse_args()
    chosen = [one for one in options.only.split(",") if one != "none"]
    if unknown := set(chosen) - set(figures.PARTS):
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}; known: {', '.join(figures.PARTS)}")
    if options.lab_hosts != len(NAMES) and (options.figures == _FIGURES or options.out == _PAGE):
        parser.error("--lab-hosts needs --figures and --out: the page is about eight hosts")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is ended, as on Ctrl-C
    begun = time.monotonic()

    def report(text: str) -> None:
        print(f"[{time.monotonic() - begun:5.0f} s] {text}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix=owner.prefix()) as folder:
        owner.end_leftovers(report)
        tempfile.tempdir = folder
        bench, failed = Bench(options, report), list[str]()
        try:
            with ExitStack() as stack:
                for part in figures.PARTS:  # in this order, whatever was asked for
                    if part in chosen:
                        if time.monotonic() - begun > options.minutes * 60:
                            report(f"part {part} is left out: {options.minutes:g} minutes have passed")
                            failed.append(part)
                            continue
                        if part not in ("near", "far"):
                            stack.close()  # takes the estate down
                        try:
                            _PARTS[part](bench, stack)
                        except LabUnavailable:
                            raise
                        except Exception:  # the other parts are measured anyway
                            report(f"part {part} failed, its figures are unchanged:\n{traceback.format_exc()}")
                            failed.append(part)
        except LabUnavailable as error:
            raise SystemExit(f"cannot measure without a lab: {error}") from error
        finally:
            tempfile.tempdir = None
    options.out.write_text(page.write(figures.load(options.figures)), "utf-8")
    report(f"wrote {options.out}")
    if failed:
        sys.exit(f"not measured: {', '.join(failed)}")


class Bench:
    """What the parts share: the options, and the converged estate, which is booted when a part needs it."""

    def __init__(self, options: argparse.Namespace, report: Report) -> None:
        self.options, self.report = options, report
        self._estate: Estate | None = None

    def estate(self, stack: ExitStack) -> Estate:
        """Eight hosts on which neither `provision` nor the other tools have anything to change."""
        if self._estate is None:
            self._estate = made = stack.enter_context(estate(self.report, NAMES[: self.options.lab_hosts]))
            self.report("install the packages that ansible needs on the hosts")
            peers.prepare_hosts(made.lab)
            self.report("run the other tools once, so that they find nothing to change later")
            for one in self.contenders(made, made.places):
                if one.name in (contenders.PYINFRA, contenders.ANSIBLE):
                    clock.once(one)
        return self._estate

    def contenders(self, made: Estate, places: tuple[Place, ...]) -> list[clock.Contender]:
        """All tools, on these places."""
        tools = peers.environment(self.report)
        return [
            contenders.ssh(made, places),
            contenders.provision(made, places, "all"),
            contenders.provision(made, places, "workload"),
            contenders.pyinfra(made, places, tools),
            contenders.ansible(made, places, tools),
            contenders.ansible(made, places, tools, mitogen=True),
        ]

    def quiet(self, part: str) -> figures.Load:
        """Waits until the machine is quiet, and returns its load."""
        before = figures.wait_until_quiet(self.options.quiet)
        self.report(
            f"{part}: load {before.average:.2f}, {before.idle * 100:.0f} % idle, after a wait of {before.waited:.0f} s"
        )
        return before

    def save(self, part: str, found: dict[str, Any], before: figures.Load, started: float) -> None:
        """Keeps a part's figures."""
        figures.save(self.options.figures, part, found, before, time.monotonic() - started)


def _near(bench: Bench, stack: ExitStack) -> None:
    """Eight hosts with nothing to change, the profile of `provision all`, and `provision --help`."""
    made = bench.estate(stack)
    before, started = bench.quiet("near"), time.monotonic()
    all_tools = bench.contenders(made, made.places)
    ssh, whole = all_tools[0], all_tools[1]
    profile = profiling.profile(whole, bench.options.rounds)
    machine = {}
    for one in (ssh, whole):
        used = phases.processors()
        for _ in range(bench.options.rounds):
            clock.once(one)
        machine[one.name] = (phases.processors() - used) / bench.options.rounds
    bench.report("profiled `provision all`")
    helps = contenders.help_durations()
    counted = first.Events()
    clock.once(contenders.first_run([made.inventory(made.places)], "all"), watch=counted.add)
    slow = {contenders.ANSIBLE, contenders.MITOGEN}
    series = clock.rounds(
        all_tools,
        bench.options.rounds,
        at_most=dict.fromkeys(slow, bench.options.slow_rounds),
        report=bench.report,
    )
    found = {
        "series": [asdict(one) for one in series],
        "profile": [asdict(one) for one in profile],
        "machine_seconds": machine,
        "help": helps,
        "round_trips": counted.round_trips,
        "versions": peers.versions(),
    }
    bench.save("near", found, before, started)


def _far(bench: Bench, stack: ExitStack) -> None:
    """One runner host with latency, and for `provision all` also the GitLab host, which has other probes."""
    made = bench.estate(stack)
    before, started = bench.quiet("far"), time.monotonic()
    by_name = {one.name: one for one in made.places}
    with (
        Proxy(by_name["runner-1"].address, 22, round_trip=ROUND_TRIP) as runner,
        Proxy(by_name["gitlab"].address, 22, round_trip=ROUND_TRIP) as server,
    ):
        places = (Place("runner-1", runner.address, runner.port),)
        gitlab = (Place("gitlab", server.address, server.port),)
        all_tools = bench.contenders(made, places)
        all_tools.insert(2, contenders.provision(made, gitlab, "all", name="provision all, the GitLab host"))
        series = clock.rounds(
            all_tools,
            bench.options.far_rounds,
            at_most=dict.fromkeys((contenders.ANSIBLE, contenders.MITOGEN), bench.options.slow_rounds),
            trips=lambda: runner.round_trips + server.round_trips,
            report=bench.report,
        )
    found = {"series": [asdict(one) for one in series], "versions": peers.versions()}
    bench.save("far", found, before, started)


def _first(bench: Bench, _: ExitStack) -> None:
    before, started = bench.quiet("first"), time.monotonic()
    bench.save(
        "first",
        first.workload(bench.options.first_rounds, 1, bench.report, names=NAMES[: bench.options.lab_hosts]),
        before,
        started,
    )


def _demo(bench: Bench, _: ExitStack) -> None:
    first.prepare_demo(bench.report)
    before, started = bench.quiet("demo"), time.monotonic()
    bench.save("demo", first.demo(bench.options.first_rounds, bench.report), before, started)


def _many(bench: Bench, _: ExitStack) -> None:
    before, started = bench.quiet("many"), time.monotonic()
    counts = [int(one) for one in bench.options.hosts.split(",")]
    bench.save("many", many.measure(counts, bench.options.many_rounds, bench.report), before, started)


def _dask(bench: Bench, _: ExitStack) -> None:
    before, started = bench.quiet("dask"), time.monotonic()
    bench.save("dask", cluster.measure(bench.report, bench.options.dask_hosts), before, started)


_PARTS: dict[str, Callable[[Bench, ExitStack], None]] = {
    "near": _near,
    "far": _far,
    "first": _first,
    "demo": _demo,
    "many": _many,
    "dask": _dask,
}

if __name__ == "__main__":
    os.environ[owner.VARIABLE] = owner.identity()
    main()
