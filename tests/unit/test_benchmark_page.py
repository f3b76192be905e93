"""The page of the benchmarks, and how its figures are computed. `make bench` makes the measurements."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import contenders, figures, first, many, owner, page, phases, profiling, thousand
from benchmarks.chain import Step, longest_chain
from benchmarks.clock import Contender, Sample, Series, once, rounds
from provision import play
from provision.cli.verbs import catalogue_of
from provision_lab.processes import identify
from tests.support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
COST = thousand.Cost("provision", "json", 1000, 6.0, 100_000_000, 20, 500, 30.0, 0, 0.4)
PARTS = [pytest.param(part, id=part) for part in figures.PARTS]


def series(name: str, *seconds: float, trips: int = 0) -> dict[str, Any]:
    return asdict(Series(name, [Sample(one, 0.5, 80_000_000, 0, trips) for one in seconds]))


def part(load: float, **found: Any) -> dict[str, Any]:
    before = asdict(figures.Load(load, 0.98, 12.0))
    return {"date": "2026-11-29 05:45", "load": before, "machine": "2 processors", "took": 90.0, **found}


def everything(load: float = 0.4) -> dict[str, dict[str, Any]]:
    """Figures of all parts, as a run writes them."""
    no_op = [series(contenders.SSH, 1.0), series(contenders.ALL, 1.2), series(contenders.PYINFRA, 12.0)]
    profile = [asdict(profiling.Phase(name, 0.2, 0.1, 0.1)) for name, _ in phases.PHASES]
    runs = [
        {
            **asdict(case),
            "cost": asdict(replace(COST, view=case.view, hosts=case.hosts, processor=case.hosts * 0.006)),
            "last_ok": 20.0,
        }
        for case in many.cases([300, 1000])
    ]
    chain = {"seconds": 40.0, "steps": [["gitlab", "gitlab", 30.0], ["register", "runner-1", 10.0]]}
    demo = {"provision": series("", 42.0)["samples"][0], "by_hand": series("", 30.0)["samples"][0]}
    return {
        "near": part(
            load,
            series=[*no_op, series(contenders.ANSIBLE, 30.0)],
            profile=profile,
            machine_seconds={contenders.SSH: 1.5, contenders.ALL: 1.4},
            help=[0.1],
            round_trips={"gitlab": 6, "runner-1": 5},
            versions={"pyinfra": "3.10"},
        ),
        "far": part(load, series=[series(contenders.SSH, 1.0, trips=10), series(contenders.ALL, 1.5, trips=9)]),
        "first": part(
            load,
            series=[series(contenders.SIXTEEN, 20.0), series(contenders.BY_HAND, 16.0)],
            round_trips={"gitlab": 14},
            idle=0.9,
        ),
        "demo": part(load, rounds=[{**demo, "chain": chain, "round_trips": {"gitlab": 16}}]),
        "many": part(load, runs=runs),
        "dask": part(load, hosts=600, quota=0.15, lost=0, one=dask(20.0, 1), two=dask(11.0, 2), killed=dask(18.0, 1)),
    }


def dask(seconds: float, workers: int) -> dict[str, Any]:
    return {"seconds": seconds, "processor": [3.0] * workers, "client": 1.5}


def claim(found: dict[str, dict[str, Any]], text: str) -> page.Claim:
    return next(one for one in page.claims(found) if text in one.what)


def test_the_longest_chain_crosses_hosts_where_plays_wait() -> None:
    steps = [
        Step("start", {"server": 1, "runner": 2}),
        Step("gitlab", {"server": 30}, after=[0]),
        Step("docker", {"runner": 20}, after=[0]),
        Step("register", {"runner": 3}, after=[1, 2]),
        Step("image", {"server": 2}, after=[1]),
    ]
    chain = longest_chain(steps)
    assert chain.seconds == 35  # start on the runner, since a play waits for all hosts
    assert chain.steps == (("start", "runner", 2), ("gitlab", "server", 30), ("register", "runner", 3))


def test_a_host_does_one_play_at_a_time_and_a_serial_play_one_host_at_a_time() -> None:
    assert longest_chain([Step("one", {"a": 5}), Step("two", {"a": 6})]).seconds == 11
    assert longest_chain([Step("one", {"a": 5, "b": 6}, serial=True)]).seconds == 11
    assert longest_chain([]).seconds == 0
    with pytest.raises(ValueError, match="waits for a later play"):
        longest_chain([Step("one", {"a": 1}, after=[0])])


def test_the_chain_of_a_run_is_computed_from_its_events() -> None:
    events = first.Events()
    lines = [
        (2.0, '{"type":"task","host":"runner-1","task":"docker","status":"ok","seconds":1.5}'),
        (9.0, '{"type":"task","host":"gitlab","task":"gitlab","status":"ok","seconds":8.0}'),
        (9.5, '{"type":"task","host":"runner-1","task":"register","status":"ok","seconds":0.5}'),
        (10.0, "no event"),
        (10.0, '{"type":"summary","hosts":{"gitlab":{"round_trips":9},"runner-1":{"round_trips":7}}}'),
    ]
    for at, line in lines:
        events.add(at, line)
    task = {name: SimpleNamespace(name=name) for name in ("gitlab", "docker", "register")}
    plays = [
        SimpleNamespace(on="gitlab", tasks=[task["gitlab"]], serial=False),
        SimpleNamespace(on="runners", tasks=[task["docker"]], serial=False),
        SimpleNamespace(on="runners", tasks=[task["register"]], serial=False),
    ]
    assert events.round_trips == {"gitlab": 9, "runner-1": 7}
    assert first.chain_of(events, plays, [[], [], [0, 1]]).seconds == 0.5 + 8 + 0.5
    assert first.chain_of(events, plays, [[], [0], [1]]).seconds == 0.5 + 8 + 1.5 + 0.5


def test_plays_wait_for_those_that_they_name() -> None:
    server, builder = play("gitlab"), play("runners", after=())
    assert first.after_of([server, builder, play("runners", after=(server, builder)), play("all")]) == [
        (),
        (),
        (0, 1),
        (0, 1, 2),
    ]
    shipped = catalogue_of([]).plays(["all"])
    assert len(first.after_of(shipped)) == len(shipped)


def test_all_parts_and_claims_are_on_the_page() -> None:
    text = page.write(everything())
    assert "{" not in text.partition("## How to measure")[0]
    for title in (
        "Eight hosts",
        "latency",
        "first run on eight",
        "demo's estate",
        "Many hosts",
        "Dask",
        "Why it is fast",
    ):
        assert title in text
    assert "| first `provision all` of the demo, against its longest chain | 1.05 | at most 1.1 | met |" in text
    assert "| first `provision all` of the demo, against the same by hand | 1.40 | at most 1.15 | **missed** |" in text
    assert page.MARK not in text.partition("## Targets")[2]


def test_figures_under_load_are_marked() -> None:
    found = {**everything(), "many": everything(1.01)["many"]}
    text = page.write(found)
    marked = [line for line in text.splitlines() if page.MARK in line]
    assert f"6.0 ms{page.MARK}" in text
    assert all("simulated" in line or line.startswith(("| 300", "| 1,000")) for line in marked if "mark" not in line)
    assert not figures.Load(1.0, 1, 0).is_busy


@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_was_not_measured_is_left_out(name: str) -> None:
    found = {key: value for key, value in everything().items() if key != name}
    text = page.write(found)
    assert len(text) < len(page.write(everything()))
    assert ("not measured" in text) == (name != "dask")
    assert page.write({name: everything()[name]})


def test_claims_are_met_or_missed_by_their_figures() -> None:
    found = everything()
    assert claim(found, "1,000 simulated hosts: processor").is_met
    for run in found["many"]["runs"]:
        run["cost"]["processor"] *= 2
        if run["failing"]:
            run["last_ok"] = 40.0
    assert not claim(found, "1,000 simulated hosts: processor").is_met
    assert claim(found, "some fail or are silent: processor").value == 12.0
    assert claim(found, "end of the last good host").value == 2.0
    assert claim(found, "terminal view").is_met
    assert claim(found, "pyinfra").is_met
    assert not claim(found, "ansible-core").is_met
    assert claim({}, "pyinfra").value is None


def test_figures_of_other_parts_stay_when_one_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    figures.save(path, "many", {"runs": []}, figures.Load(0.5, 1.0, 0.0), 10.0)
    figures.save(path, "near", {"help": [0.1]}, figures.Load(1.5, 0.7, 90.0), 20.0)
    figures.save(path, "many", {"runs": [1]}, figures.Load(0.1, 1.0, 0.0), 30.0)
    found = figures.load(path)
    assert list(found) == ["near", "many"]
    assert found["near"]["help"] == [0.1]
    assert found["near"]["load"] == {"average": 1.5, "idle": 0.7, "waited": 90.0}
    assert found["many"]["runs"] == [1]
    assert found["many"]["took"] == 30.0
    assert figures.load(tmp_path / "none.json") == {}


def test_waiting_for_a_quiet_machine_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = iter([3.0, 2.0, 0.9, 0.9])
    monkeypatch.setattr(os, "getloadavg", lambda: (next(loads), 0, 0))
    monkeypatch.setattr(figures, "_INTERVAL", 0.01)
    assert figures.wait_until_quiet(5).average == 0.9
    monkeypatch.setattr(os, "getloadavg", lambda: (7.0, 0, 0))
    busy = figures.wait_until_quiet(0.05)
    assert busy.is_busy
    assert busy.waited < 1
    assert 0 <= busy.idle <= 1


def test_output_is_passed_on_with_the_time_and_slow_tools_have_fewer_rounds(tmp_path: Path) -> None:
    command = ("sh", "-c", "echo one; sleep 0.2; echo two")
    two = Contender("two lines", (command,), lambda output: output.count("\n"), tmp_path, os.environ)
    seen: list[tuple[float, str]] = []
    assert once(two, watch=lambda at, line: seen.append((at, line))).changed == 2
    assert [line for _, line in seen] == ["one\n", "two\n"]
    assert seen[1][0] - seen[0][0] > 0.1
    true = Contender("true", (("true",),), lambda _: 0, tmp_path, os.environ)
    found = rounds([true, two], 3, at_most={"two lines": 1})
    assert [len(one.samples) for one in found] == [3, 1]


def test_a_profile_has_all_phases(tmp_path: Path) -> None:
    """The program runs on an inventory of one host that refuses the connection."""
    out = tmp_path / "marks.json"
    inventory = tmp_path / "inventory.toml"
    inventory.write_text('[ssh]\nport = 1\n[hosts.one]\naddress = "127.0.0.1"\ngroups = ["runners"]\n')
    program = [sys.executable, phases.__file__, str(out), "docker", "-i", str(inventory)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    ended = subprocess.run(program, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 4, ended.stderr
    marks = json.loads(out.read_text())
    begin = (marks["start"][0] - 0.01, 0.0, marks["start"][2])
    end = (marks["report"][0] + 0.01, marks["report"][1], marks["report"][2])
    found = {one.name: one for one in profiling.phases_of(marks, begin, end)}
    assert list(found) == [name for name, _ in phases.PHASES]
    assert found["connect"].seconds == 0  # no host was connected
    assert all(one.seconds >= 0 and one.own >= 0 and one.others >= 0 for one in found.values())
    assert sum(one.seconds for one in found.values()) == pytest.approx(end[0] - begin[0])
    assert found["inventory"].own > 0


def test_a_killed_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run ends a process of a killed run, and removes its folder. Those of a run that goes on stay."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    text = (
        "import os, subprocess, tempfile; from benchmarks import owner; os.environ[owner.VARIABLE] = owner.identity()\n"
        "folder = tempfile.mkdtemp(prefix=owner.prefix()); one = subprocess.Popen(['sleep', '60'], stdout=-3)\n"
        "print(one.pid, folder, flush=True); os.kill(os.getpid(), 9)"
    )
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'lab'}"}
    killed = subprocess.run([sys.executable, "-c", text], env=env, stdout=subprocess.PIPE, text=True, timeout=60)
    pid, folder = killed.stdout.split()
    own = tmp_path / f"{owner.prefix()}x"
    own.mkdir()
    told: list[str] = []
    owner.end_leftovers(told.append)
    assert not Path(folder).exists()
    assert own.exists()
    wait_for(lambda: identify(int(pid)) is None, "the process has ended")
    assert len([one for one in told if pid in one or folder in one]) == 2


def test_parts_are_named(tmp_path: Path) -> None:
    wrong = [sys.executable, "-m", "benchmarks", "--only", "nearly"]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'lab'}"}
    ended = subprocess.run(wrong, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "unknown parts: nearly; known: near, far, first, demo, many, dask" in ended.stderr
    arguments = ["--only", "none", "--figures", str(tmp_path / "figures.json"), "--out", str(tmp_path / "page.md")]
    subprocess.run([*wrong[:3], *arguments], cwd=tmp_path, env=env, check=True, capture_output=True, timeout=60)
    assert "not measured" in (tmp_path / "page.md").read_text()
    late = [*wrong[:3], "--only", "many", "--minutes", "-1", *arguments[2:]]
    ended = subprocess.run(late, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "part many is left out" in ended.stderr
    assert "not measured: many" in ended.stderr


def test_the_page_in_docs_is_that_of_the_kept_figures() -> None:
    """`python -m benchmarks --only none` writes it again, after a change of the template."""
    kept = ROOT / "benchmarks/figures.json"
    if kept.exists():  # before the first measurement there is nothing to compare
        assert (ROOT / "docs/performance.md").read_text("utf-8") == page.write(figures.load(kept))


def run_by_hand(script: Path, folder: Path, *arguments: str) -> list[str]:
    """Runs a script with stand-ins for ssh, curl and git. Returns what it would run on the hosts; this must be valid shell."""
    programs = folder / "bin"
    programs.mkdir()
    answer = '{"id": 7, "token": "glrt-x", "status": "success"}'
    for name, text in (
        ("ssh", f'cat > "$(mktemp {folder}/sent.XXXXXX)"'),
        ("curl", f"echo '{answer}'"),
        ("git", "true"),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": str(folder)}
    subprocess.run(["sh", str(script), *arguments], env=env, check=True, timeout=30)
    sent = sorted(folder.glob("sent.*"))
    for one in sent:
        subprocess.run(["sh", "-n", str(one)], check=True)
    return [one.read_text() for one in sent]


def test_the_workload_by_hand_has_the_same_files_and_settings(tmp_path: Path) -> None:
    script = ROOT / "benchmarks/workload/by_hand.sh"
    sent = run_by_hand(script, tmp_path, "key", "known_hosts", "ubuntu", "198.18.0.10:22", "198.18.0.11:22")
    assert len(sent) == 2
    assert sent[0] == sent[1]
    files = script.parent / "files"
    for name in ("daemon.json", "ca.crt", "template.toml"):
        assert (files / name).read_text() in sent[0]
    for key, value in json.loads((files / "gitlab_rb.json").read_text()).items():
        assert f"gitlab_rails['{key}'] = {json.dumps(value)}\"" in sent[0]


def test_the_demo_by_hand_sends_valid_scripts_to_both_hosts(tmp_path: Path) -> None:
    lab = tmp_path / "lab"
    lab.mkdir()
    names = ("ca.pem", "docker.asc", "gitlab.asc", "rehearsal_secret", "s3_access_key", "s3_secret_key")
    for name in names:
        (lab / name).write_text(f"text of {name}\n")
    source = tmp_path / "source"
    source.mkdir()
    addresses = ("198.18.0.10", "198.18.0.11", "198.18.0.1")
    sent = run_by_hand(first.BY_HAND, tmp_path, str(lab), *addresses, str(source))
    assert len(sent) == 4  # GitLab, Docker, the registration, the app
    assert sorted(sum(name in one for one in sent) for name in ("gitlab-ce", "docker-buildx-plugin", "glrt-x")) == [
        1,
        1,
        1,
    ]
    for name in names:
        assert any(f"text of {name}" in one for one in sent)


@pytest.mark.root
def test_five_simulated_hosts_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "FAILING", 40)
    monkeypatch.setattr(many, "SILENT", 0)  # nothing to wait for
    found = many.measure([5], 1, lambda _: None)["runs"]
    assert [(run["hosts"], run["view"], run["cost"]["code"]) for run in found][:2] == [
        (5, "json", 0),
        (5, "terminal", 0),
    ]
    assert found[0]["last_ok"] > 0
    assert page.write({"many": part(0.2, runs=found)})


@pytest.mark.root
def test_a_run_on_simulated_hosts_is_profiled(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    with thousand.simulation(5) as made:
        command = ("provision", "thousand", "-i", str(made.folder / "inventory.toml"))
        found = profiling.profile(Contender("", (command,), lambda _: 0, made.folder, env), 1)
    assert [one.name for one in found] == [name for name, _ in phases.PHASES]
    assert all(one.seconds > 0 and one.own >= 0 for one in found)
