"""Makes docs/performance.md from the figures in benchmarks/figures.json and the template page.md.

A part of the template begins with a line `%% NAME`. It is left out while there are no figures of that part.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.clock import Series, ratio
from benchmarks.contenders import ALL, ANSIBLE, BY_HAND, PYINFRA, SSH
from benchmarks.figures import BUSY, PARTS, Load
from benchmarks.phases import PHASES
from benchmarks.thousand import Cost

_TEMPLATE = Path(__file__).with_name("page.md")
MARK: Final = " †"
_TITLES: Final = {
    "near": "eight hosts with nothing to change",
    "far": "one host with a latency of 100 ms",
    "first": "first run on eight hosts",
    "demo": "first run of the demo's estate",
    "many": "many simulated hosts",
    "dask": "several machines, with Dask",
}
Part = Mapping[str, Any]
Figures = Mapping[str, Part]


@dataclass(frozen=True)
class Claim:
    """A target, and the figure that was measured.

    what    the name of the figure
    part    of the benchmarks that measures it
    value   the figure; None if its part was not measured
    limit   the target: at most this, or with `least` at least this
    form    formats a figure
    """

    what: str
    part: str
    value: float | None
    limit: float
    least: bool = False
    form: Callable[[float], str] = lambda value: times(value)

    @property
    def is_met(self) -> bool:
        """Whether the figure meets the target."""
        if self.value is None:
            return False
        return self.value >= self.limit if self.least else self.value <= self.limit

    def row(self, figures: Figures) -> tuple[str, str, str, str]:
        """The row of the table."""
        limit = self.form(self.limit)
        limit = re.sub(r"\.?0+(?= |$)", "", limit) if "." in limit else limit
        target = f"at {'least' if self.least else 'most'} {limit}"
        if self.value is None:
            return self.what, "not measured", target, ""
        return (
            self.what,
            f"{self.form(self.value)}{mark(figures[self.part])}",
            target,
            "met" if self.is_met else "**missed**",
        )


def write(figures: Figures) -> str:
    """The text of the page."""
    template = re.split(r"(?m)^%% (\w+)\n", _TEMPLATE.read_text("utf-8"))
    text = template[0]
    for name, part in zip(template[1::2], template[2::2], strict=True):
        if name == "end" or name in figures:
            text += part
    values = {
        "parts": table(("part", "measured on", "load before", "idle before", "minutes"), _parts(figures)),
        "claims": table(("", "measured", "target", ""), [one.row(figures) for one in claims(figures)]),
        "limit": f"{BUSY:.1f}",
        "mark": MARK.strip(),
        "machine": _machines(figures),
        "versions": ", ".join(f"{name} {version}" for name, version in _versions(figures).items()),
    }
    for name, make in _TABLES.items():
        if name in figures:
            values |= make(figures[name])
    # Not str.format: the template may have braces.
    return re.sub(r"\{(\w+)\}", lambda found: values[found[1]], text)


def claims(figures: Figures) -> list[Claim]:
    """All targets, in the order of the page."""
    near, many = _by_name(figures.get("near")), figures.get("many")
    whole, ssh, pyinfra, ansible = (near.get(name) for name in (ALL, SSH, PYINFRA, ANSIBLE))
    no_op = ratio(whole, ssh) if whole and ssh else None
    biggest = max((run["hosts"] for run in many["runs"]), default=0) if many else 1000
    ours, screen = _case(many, biggest, "json"), _case(many, biggest, "terminal")
    mixed = _case(many, biggest, "json", mixed=True)
    hosts = f"{biggest:,} simulated hosts"
    found = [
        Claim("first `provision all` of the demo, against its longest chain", "demo", _demo(figures, "chain"), 1.1),
        Claim("first `provision all` of the demo, against the same by hand", "demo", _demo(figures, "by_hand"), 1.15),
        Claim("round trips per host, first run of the workload", "first", _trips(figures, "first"), 15, form=count),
        Claim("round trips per host, first run of the demo", "demo", _trips(figures, "demo"), 15, form=count),
        Claim("round trips per host with nothing to change", "near", _trips(figures, "near"), 7, form=count),
    ]
    for name, case in ((hosts, ours), (f"{hosts}, some fail or are silent", mixed)):
        found += [
            Claim(f"{name}: processor time per host", "many", case and case.cost.per_host, 7, form=milliseconds),
            Claim(f"{name}: memory", "many", case and case.cost.memory, 110e6, form=megabytes),
            Claim(f"{name}: threads", "many", case and case.cost.threads, 64, form=count),
        ]
    terminal = screen.cost.processor / ours.cost.processor if screen and ours else None
    others = mixed.last_ok / ours.last_ok if mixed and ours and ours.last_ok else None
    found += [
        Claim(f"{hosts}: processor time with the terminal view, against `--json`", "many", terminal, 1.0),
        Claim(f"{hosts}: end of the last good host when others fail or are silent, against none", "many", others, 1.1),
    ]
    if "dask" in figures:
        dask = figures["dask"]
        found += [
            Claim(
                "Dask: 2 workers, against 1 worker", "dask", dask["one"]["seconds"] / dask["two"]["seconds"], 1.7, True
            ),
            Claim("Dask: hosts without a result after a worker was killed", "dask", dask["lost"], 0, form=count),
        ]
    trips = [
        run.round_trips for name, one in _by_name(figures.get("far")).items() if ALL in name for run in one.samples
    ]
    starts = figures["near"]["help"] if "near" in figures else None
    return [
        *found,
        Claim("`provision all` with nothing to change, against `ssh host true`", "near", no_op, 1),
        Claim("the same, against 0.1.0's 1.1 to 1.5 times as long", "near", no_op, 1.5),
        Claim(
            "pyinfra, against `provision all`", "near", ratio(pyinfra, whole) if pyinfra and whole else None, 8, True
        ),
        Claim(
            "ansible-core, against `provision all`",
            "near",
            ratio(ansible, whole) if ansible and whole else None,
            40,
            True,
        ),
        Claim("round trips at 100 ms, connection included", "far", max(trips) if trips else None, 9, form=count),
        Claim("memory of `provision all` on eight hosts", "near", whole and whole.memory, 120e6, form=megabytes),
        Claim("`provision --help`", "near", starts and median(starts) * 1000, 200, form=milliseconds),
    ]


@dataclass(frozen=True)
class _Case:
    """One case of many hosts: the medians of its runs, but the maximum of memory, threads and open files."""

    cost: Cost
    last_ok: float
    rounds: int


def _case(many: Part | None, hosts: int, view: str, *, mixed: bool = False) -> _Case | None:
    wanted = (hosts, view, mixed)
    runs = [run for run in (many or {"runs": []})["runs"] if (run["hosts"], run["view"], run["failing"] > 0) == wanted]
    if not runs:
        return None
    costs = [Cost(**run["cost"]) for run in runs]
    cost = replace(
        costs[0],
        processor=median(one.processor for one in costs),
        memory=max(one.memory for one in costs),
        threads=max(one.threads for one in costs),
        descriptors=max(one.descriptors for one in costs),
        seconds=median(one.seconds for one in costs),
    )
    return _Case(cost, median(run["last_ok"] for run in runs), len(runs))


def _by_name(part: Part | None) -> dict[str, Series]:
    return {one["name"]: Series.of(one) for one in part["series"]} if part else {}


def _demo(figures: Figures, other: str) -> float | None:
    """The median over the rounds of provision's seconds divided by those of `other`: `chain` or `by_hand`."""
    if "demo" not in figures:
        return None
    return median(one["provision"]["seconds"] / one[other]["seconds"] for one in figures["demo"]["rounds"])


def _trips(figures: Figures, name: str) -> int | None:
    """The round trips of the host that needs most of them."""
    if name not in figures:
        return None
    part = figures[name]
    counts = [one["round_trips"] for one in part["rounds"]] if "rounds" in part else [part["round_trips"]]
    return max((trips for hosts in counts for trips in hosts.values()), default=None)


def _parts(figures: Figures) -> list[tuple[str, ...]]:
    rows = []
    for name in PARTS:
        if name in figures:
            part = figures[name]
            before = Load(**part["load"])
            shown = f"{before.average:.2f}{mark(part)}"
            rows.append((_TITLES[name], part["date"], shown, percent(before.idle), f"{part['took'] / 60:.1f}"))
    return rows


def _machines(figures: Figures) -> str:
    return "; ".join(dict.fromkeys(part["machine"] for part in figures.values())) or "none"


def _versions(figures: Figures) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in figures.values():
        found |= part.get("versions", {})
    return found


def _near(part: Part) -> dict[str, str]:
    series = list(_by_name(part).values())
    ssh = next(one for one in series if one.name == SSH)
    rows = [
        (
            _shown(one.name),
            f"{one.seconds:.2f}{mark(part)}",
            times(ratio(one, ssh)),
            str(len(one.samples)),
            f"{median(run.cpu for run in one.samples):.2f} s",
            str(one.samples[-1].changed) if one.name != SSH else "",
        )
        for one in series
    ]
    texts = dict(PHASES)
    phases = [
        (
            f"{one['name']}: {texts[one['name']]}",
            *(f"{one[kind] * 1000:.0f}{mark(part)}" for kind in ("seconds", "own", "others")),
        )
        for one in part["profile"]
    ]
    whole = (
        "**all**",
        *(f"{sum(one[kind] for one in part['profile']) * 1000:.0f}" for kind in ("seconds", "own", "others")),
    )
    machine = part["machine_seconds"]
    whole_run = next(one for one in series if one.name == ALL)
    longer = whole_run.seconds - ssh.seconds
    all_phases = sum(one["seconds"] for one in part["profile"])
    longest = sorted(part["profile"], key=lambda one: -one["seconds"])[:3]
    return {
        "near": table(("", "seconds", f"× {SSH}", "runs", "processor, here", "changes reported"), rows),
        "profile": table(("phase", "ms", "processor of `provision`, ms", "all other processes, ms"), [*phases, whole]),
        "ssh_machine": f"{machine[SSH]:.2f} s",
        "all_machine": f"{machine[ALL]:.2f} s",
        "all_seconds": f"{whole_run.seconds:.2f} s",
        "above": f"{abs(longer):.2f} s {'longer' if longer > 0 else 'shorter'}{mark(part)}",
        "longest": ", ".join(f"{one['name']} {percent(one['seconds'] / all_phases)}" for one in longest),
        "ssh_seconds": f"{ssh.seconds:.2f} s",
    }


def _far(part: Part) -> dict[str, str]:
    rows = [
        (
            _shown(one.name),
            f"{one.seconds:.2f}{mark(part)}",
            f"{median(run.round_trips for run in one.samples):.0f}",
            str(len(one.samples)),
        )
        for one in _by_name(part).values()
    ]
    return {"far": table(("", "seconds", "round trips", "runs"), rows)}


def _first(part: Part) -> dict[str, str]:
    series = _by_name(part)
    rows = [
        (
            _shown(one.name),
            f"{one.seconds:.1f}{mark(part)}",
            times(one.seconds / series[BY_HAND].seconds),
            str(len(one.samples)),
            f"{median(run.cpu for run in one.samples):.2f} s",
        )
        for one in series.values()
        if one.samples
    ]
    return {
        "first": table(("", "seconds", "× by hand", "runs", "processor, here"), rows),
        "first_trips": _listed(part["round_trips"]),
        "first_idle": percent(part["idle"]),
    }


def _demo_tables(part: Part) -> dict[str, str]:
    rounds = part["rounds"]
    rows = [
        (
            str(number),
            *(f"{one[kind]['seconds']:.1f}{mark(part)}" for kind in ("provision", "chain", "by_hand")),
            times(one["provision"]["seconds"] / one["chain"]["seconds"]),
            times(one["provision"]["seconds"] / one["by_hand"]["seconds"]),
        )
        for number, one in enumerate(rounds, 1)
    ]
    steps = [
        (name, host, f"{seconds:.1f}{mark(part)}") for name, host, seconds in rounds[-1]["chain"]["steps"] if seconds
    ]
    return {
        "demo": table(("round", "provision all", "longest chain", "by hand", "× chain", "× by hand"), rows),
        "chain": table(("tasks", "host", "seconds"), steps),
        "demo_trips": _listed(rounds[-1]["round_trips"]),
    }


def _many(part: Part) -> dict[str, str]:
    rows = []
    keys = dict.fromkeys((run["hosts"], run["view"], run["failing"], run["silent"]) for run in part["runs"])
    for hosts, view, failing, silent in keys:
        one = _case(part, hosts, view, mixed=failing > 0)
        if one:
            name = f"{hosts:,}, {'`--json`' if view == 'json' else 'terminal'}"
            name += f", {failing} % fail and {silent} % are silent" if failing else ""
            cost = one.cost
            figures = [milliseconds(cost.per_host), megabytes(cost.memory), f"{cost.threads}", f"{cost.descriptors}"]
            figures += [f"{cost.seconds:.1f}", f"{one.last_ok:.1f}" if view == "json" else ""]
            rows.append((name, *(f"{text}{mark(part)}" if text else "" for text in figures), f"{one.rounds}"))
    head = ("hosts", "processor per host", "memory", "threads", "open files", "seconds", "last good host after", "runs")
    published = ("1,000, `--json`: version 0.1.0, measured elsewhere", "12.9 ms", "179 MB", "2,000", "", "", "", "")
    return {"many": table(head, [*rows, published])}


def _dask(part: Part) -> dict[str, str]:
    rows = [
        (
            name,
            f"{part[key]['seconds']:.1f}{mark(part)}",
            times(part["one"]["seconds"] / part[key]["seconds"]),
            " + ".join(f"{one:.1f} s" for one in part[key]["processor"]),
            f"{part[key]['client']:.1f} s",
        )
        for key, name in (("one", "1 worker"), ("two", "2 workers"), ("killed", "2 workers, one of them is killed"))
    ]
    return {
        "dask": table(("", "seconds", "times as fast", "processor of the workers", "of the client"), rows),
        "dask_hosts": f"{part['hosts']:,}",
        "dask_quota": percent(part["quota"]),
        "dask_lost": f"{part['lost']} of {part['hosts']:,}",
    }


_TABLES: Final[dict[str, Callable[[Part], dict[str, str]]]] = {
    "near": _near,
    "far": _far,
    "first": _first,
    "demo": _demo_tables,
    "many": _many,
    "dask": _dask,
}


def mark(part: Part) -> str:
    """The mark of a figure that was measured while the machine was busy, or nothing."""
    return MARK if Load(**part["load"]).is_busy else ""


def times(value: float) -> str:
    """A ratio."""
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def count(value: float) -> str:
    """A whole number."""
    return f"{value:.0f}"


def milliseconds(value: float) -> str:
    """Milliseconds: with one digit below ten."""
    return f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms"


def megabytes(value: float) -> str:
    """Bytes as MB."""
    return f"{value / 1e6:.0f} MB"


def percent(value: float) -> str:
    """A share as a percentage."""
    return f"{value * 100:.0f} %"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _listed(trips: Mapping[str, int]) -> str:
    return ", ".join(f"{host} {number}" for host, number in trips.items())


def _shown(name: str) -> str:
    return f"**{name}**" if name.startswith("provision") else name
