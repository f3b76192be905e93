"""Measures first runs on bare hosts. Each run has new hosts, which start from the cached base image.

There are two estates: the workload on eight hosts, and the estate of `make demo`.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import clock, contenders, peers
from benchmarks.chain import Chain, Step, longest_chain
from benchmarks.estate import FOLDERS, NAMES, WORKLOAD, Estate, Place, environment, lengthen_gitlab_rb
from benchmarks.figures import idle_share
from provision_lab import Lab, LabHost
from provision_lab.container_images import HUB
from provision_lab.harness import Harness
from provision_lab.run import write_private

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "inventories" / "demo.toml"
BY_HAND = Path(__file__).with_name("demo") / "by_hand.sh"
IMAGES = ("docker:28.5.2-cli", "node:24-slim")  # the demo's jobs and its Dockerfile pull these
Report = Callable[[str], None]
Make = Callable[[Estate, Sequence[Place]], clock.Contender]


@dataclass
class Events:
    """The events of a run with --json, each with the seconds since the start of the program."""

    lines: list[tuple[float, dict[str, Any]]] = field(default_factory=list)

    def add(self, at: float, line: str) -> None:
        """Adds a line of output, if it is an event."""
        if line.startswith("{"):
            self.lines.append((at, json.loads(line)))

    @property
    def round_trips(self) -> dict[str, int]:
        """The round trips of each host, from the summary."""
        return {name: one["round_trips"] for name, one in self._summary["hosts"].items()}

    @property
    def hosts(self) -> list[str]:
        """All hosts of the run."""
        return list(self._summary["hosts"])

    @property
    def _summary(self) -> dict[str, Any]:
        return self.lines[-1][1]

    def tasks(self) -> Iterator[tuple[str, str, float, float]]:
        """Host, task, seconds, and when it began; in the order in which they ended."""
        for at, event in self.lines:
            if event["type"] == "task":
                yield event["host"], event["task"], event["seconds"], at - event["seconds"]


def chain_of(events: Events, plays: Sequence[Any], after: Sequence[Sequence[int]]) -> Chain:
    """The longest chain of a run of these plays, from the start of the program.

    Its first step is what comes before the first task: Python, the inventory, the connection and the observation.
    """
    tasks = list(events.tasks())
    begin = min((began for _, _, _, began in tasks), default=0.0)
    left = list(tasks)
    steps = [Step("start, connect, observe", dict.fromkeys(events.hosts, begin))]
    for number, one in enumerate(plays):
        seconds: dict[str, float] = {}
        for wanted in one.tasks:
            for host in events.hosts:
                found = next(
                    (entry for entry in left if entry[:2] == (host, wanted.name) and _runs_on(one, host)), None
                )
                if found:
                    left.remove(found)
                    seconds[host] = seconds.get(host, 0.0) + found[2]
        name = ", ".join(dict.fromkeys(task.name for task in one.tasks))
        steps.append(Step(name, seconds, (0, *(place + 1 for place in after[number])), one.serial))
    return longest_chain(steps)


def _runs_on(one: Any, host: str) -> bool:
    """Whether a play of the demo's estate runs on this host, whose groups are `gitlab` and `runners`."""
    return one.on in ("all", "gitlab" if host.startswith("gitlab") else "runners")


def workload(count: int, slow: int, report: Report, *, names: Sequence[str] = NAMES) -> dict[str, Any]:
    """Measures the workload on bare hosts: `count` rounds of provision and of the shell script, `slow` of the others."""
    tools = peers.environment(report)
    trips: dict[str, int] = {}

    def ours(made: Estate, places: Sequence[Place]) -> clock.Contender:
        return contenders.first_run([made.inventory(places)], "workload")

    makes: list[tuple[str, int, Make]] = [
        (contenders.SIXTEEN, count, ours),
        (contenders.BY_HAND, count, contenders.by_hand),
        (contenders.PYINFRA, slow, lambda made, places: contenders.pyinfra(made, places, tools)),
        (contenders.ANSIBLE, slow, lambda made, places: contenders.ansible(made, places, tools)),
        (contenders.MITOGEN, slow, lambda made, places: contenders.ansible(made, places, tools, mitogen=True)),
    ]
    series = [clock.Series(name) for name, _, _ in makes]
    idle = []
    for number in range(max(count, slow)):
        turns = list(zip(makes, series, strict=True))
        for (name, rounds, make), runs in (
            reversed(turns) if number % 2 else turns
        ):  # the first contender of a round has cold caches
            if number >= rounds:
                continue
            with bare(names) as made:
                contender, events = make(made, made.places), Events()
                idle.append(idle_share())
                sample = clock.once(contender, watch=events.add if name == contenders.SIXTEEN else lambda *_: None)
                runs.samples.append(sample)
                report(f"first run, round {number + 1}: {name}: {sample.seconds:.1f} s")
                if events.lines:
                    trips = {host: max(used, trips.get(host, 0)) for host, used in events.round_trips.items()}
    return {
        "series": [asdict(one) for one in series],
        "round_trips": trips,
        "idle": min(idle),
        "versions": peers.versions(),
    }


@contextmanager
def bare(names: Sequence[str]) -> Iterator[Estate]:
    """Bare hosts with what all contenders need: Docker's repository, package lists, python3-apt, the folders."""
    lab = Lab(f"bench-first-{os.getpid()}", [LabHost(name) for name in names], throwaway=True)
    with tempfile.TemporaryDirectory(prefix="e") as folder:
        try:
            lab.up()
            made = Estate(Harness(lab, Path(folder)), Path(folder))
            peers.prepare_hosts(lab)
            source = (
                f"Types: deb\nURIs: {lab.mirrors()['docker']['url']}\nSuites: {lab.image.suite}\nComponents: stable\n"
                "Signed-By: /etc/apt/keyrings/docker.asc\n"
            )

            def prepare(host: LabHost) -> None:
                tree = lab.machine(host.name).root
                (tree / "etc/apt/keyrings").mkdir(parents=True, exist_ok=True)
                (tree / "etc/apt/keyrings/docker.asc").write_text((lab.folder / "docker.asc").read_text())
                (tree / "etc/apt/sources.list.d/docker.sources").write_text(source)
                lab.inside(host.name, f"mkdir -p {' '.join(FOLDERS)} && apt-get update -qq")
                lengthen_gitlab_rb(lab, host.name)

            with ThreadPoolExecutor(len(names)) as pool:
                list(pool.map(prepare, lab.hosts))
            yield made
        finally:
            lab.down()


def prepare_demo(report: Report) -> None:
    """Builds the images that the demo pulls from the lab's Docker Hub, unless the cache has them."""
    for name in IMAGES:
        report(f"the image {name} of the lab's Docker Hub")
        HUB[name].ensure()


def demo(count: int, report: Report) -> dict[str, Any]:
    """Measures the first `provision all` of the demo's estate and the same by hand, `count` rounds of each."""
    from provision.cli.verbs import catalogue_of

    rounds: list[dict[str, Any]] = []
    for number in range(count):
        with _demo_estate() as (lab, files, source):
            plays = catalogue_of(files).plays(["all"])
            contender = contenders.first_run(files, "all")
            events = Events()
            ours = clock.once(contender, watch=events.add)
            report(f"demo, round {number + 1}: provision all: {ours.seconds:.1f} s")
            pipeline = _pipeline(lab)
        chain = chain_of(events, plays, after_of(plays))
        with _demo_estate() as (lab, _, source):
            (source / ".gitlab-ci.yml").write_text(pipeline)
            by_hand = clock.once(_by_hand(lab, source))
            report(f"demo, round {number + 1}: by hand: {by_hand.seconds:.1f} s")
        rounds.append(
            {
                "provision": asdict(ours),
                "by_hand": asdict(by_hand),
                "chain": asdict(chain),
                "round_trips": events.round_trips,
            }
        )
    return {"rounds": rounds}


def after_of(plays: Sequence[Any]) -> list[Sequence[int]]:
    """The places of the plays that each play waits for: those before it, unless it names them."""
    places = {id(one): number for number, one in enumerate(plays)}
    return [
        tuple(range(number)) if one.after is None else tuple(places[id(other)] for other in one.after)
        for number, one in enumerate(plays)
    ]


@contextmanager
def _demo_estate() -> Iterator[tuple[Lab, list[Path], Path]]:
    """The two bare hosts of the demo, the inventory with its overlay, and the folder of the project's source."""
    import tomlkit

    from provision_lab import rehearsal

    with tempfile.TemporaryDirectory(prefix="e") as name:
        folder = Path(name)
        inventory = folder / "inventories" / "demo.toml"
        inventory.parent.mkdir()
        shutil.copy(DEMO, inventory)
        source = folder / ".cache" / "demo" / "hello_hapi"
        shutil.copytree(ROOT / "examples" / "hello_hapi", source)
        hosts, server = rehearsal.plan([inventory])
        lab = Lab(f"bench-demo-{os.getpid()}", hosts, server=server, isolated=True, throwaway=True)
        try:
            lab.up()
            overlay = folder / "overlay.toml"
            write_private(overlay, tomlkit.dumps(rehearsal.overlay(lab, [inventory])))
            yield lab, [inventory, overlay], source
        finally:
            lab.down()


def _pipeline(lab: Lab) -> str:
    """The .gitlab-ci.yml that `provision all` has pushed: the script by hand pushes the same one."""
    ask = "https://gitlab.example.com/api/v4/projects/sammy%2Fhello_hapi/repository/files/.gitlab-ci.yml?ref=main"
    header = "sed -n 's/^token /PRIVATE-TOKEN: /p' /var/lib/provision/api_token"
    answer = lab.inside("gitlab", f"{header} | curl -fsS --noproxy '*' -H @- '{ask}'")
    return base64.b64decode(json.loads(answer)["content"]).decode()


def _by_hand(lab: Lab, source: Path) -> clock.Contender:
    addresses = {one.name: one.address for one in lab.hosts}
    arguments = (str(lab.folder), addresses["gitlab"], addresses["runner-1"], lab.gateway, str(source))
    return clock.Contender("by hand", (("sh", str(BY_HAND), *arguments),), _served, WORKLOAD, environment())


def _served(output: str) -> int:
    if ", test!" not in output:
        raise ValueError(f"the app does not answer:\n{output}")
    return 0
