"""Runs on real Dask processes, with real SSH sessions: plays across workers, lost workers, Ctrl-C, TLS."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from distributed import LocalCluster, Security

from benchmarks.cluster import ROOT, Cluster
from benchmarks.cluster import cluster as started_cluster
from provision.cluster import client, scheduler
from tests.support.waiting import wait_for
from tests.unit.cluster.conftest import Ended, Estate

pytestmark = pytest.mark.root
Provision = Callable[..., Ended]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A scheduler with two workers, which most tests share."""
    with started_cluster(tmp_path_factory.mktemp("cluster"), 2) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_done(estate: Estate) -> None:
    """Each test begins with hosts on which nothing has run."""
    estate.reset()


def _comparable(events: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{key: value for key, value in one.items() if key not in ("seconds", "round_trips")} for one in events]


def test_events_are_those_of_a_local_run(provision: Provision, estate: Estate, cluster: Cluster) -> None:
    """For each host the same events in the same order, and the same counts; `start` names the same plays."""
    local = provision("steps", "--check")
    shared = provision("steps", "--check", "--dask", cluster.address)
    assert local.code == shared.code == 0, shared.errors
    assert _comparable(shared.events[:1]) == _comparable(local.events[:1])
    for host in estate.names:
        assert _comparable(shared.of(host)) == _comparable(local.of(host))
    assert {key: shared.summary[key] for key in ("changed", "failed", "unreachable")} == {
        "changed": 20,
        "failed": 0,
        "unreachable": 0,
    }
    for host in estate.names:
        counts, wanted = shared.summary["hosts"][host], local.summary["hosts"][host]
        assert {key: counts[key] for key in wanted if key != "seconds"} == {
            key: wanted[key] for key in wanted if key != "seconds"
        }


def test_a_play_waits_for_hosts_of_other_workers(provision: Provision, estate: Estate, cluster: Cluster) -> None:
    """The third step of the even hosts begins when all hosts, on both workers, have ended the second one."""
    ended = provision("steps", "--dask", cluster.address)
    assert (ended.code, ended.summary["changed"]) == (0, 20), ended.errors
    order = [line.split()[1] for line in (estate.folder / "out" / "order").read_text().splitlines()]
    assert set(order[:16]) == {"first", "second"}
    assert order[16:] == ["third"] * 4
    again = provision("steps", "--dask", cluster.address)
    assert (again.code, again.summary["changed"]) == (0, 0)
    assert list(cluster.folder.glob("worker*/dask-scratch-space/*/provision-*")) == []


def test_local_cluster(provision: Provision, estate: Estate) -> None:
    """A cluster that was started from Python, whose nannies start the workers."""
    limit = ("--limit", "h0000,h0001,h0002")
    with LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", protocol="tcp", dashboard_address=":0"
    ) as local:
        ended = provision("steps", "--dask", local.scheduler_address, *limit)
    assert (ended.code, ended.summary["changed"]) == (0, 8), ended.errors
    assert estate.log("h0002") == [
        f"{what} {step}" for step in ("first", "second", "third") for what in ("begin", "end")
    ]


def _when_all_are_at_work(estate: Estate, act: Callable[[], object]) -> threading.Thread:
    def wait() -> None:
        wait_for(lambda: len(list((estate.folder / "out").glob("*.log"))) == 8, "all hosts are at work", 60)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_is_lost(provision: Provision, estate: Estate, tmp_path: Path, number: int) -> None:
    """After SIGKILL or SIGTERM, another worker runs its hosts again when their locks are free. Each change counts once.

    No step runs twice at once.
    """
    with started_cluster(tmp_path, 2) as cluster:
        killer = _when_all_are_at_work(estate, lambda: cluster.workers[0].send_signal(number))
        ended = provision("steps", "--dask", cluster.address, "--set", "steps.first=2.5")
        killer.join()
    assert ended.code == 0, ended.errors
    summary = ended.summary
    assert (summary["failed"], summary["unreachable"], len(summary["hosts"])) == (0, 0, 8)
    lost = {one["host"] for one in ended.events if one["type"] == "message" and "was lost" in one["text"]}
    assert len(lost) == 4
    for host in estate.names:
        assert estate.log(host).count("end second") == 1
        assert summary["hosts"][host]["ok"] == (3 if host[-1] in "0246" else 2)
        tasks = [one["task"] for one in ended.of(host, "task")]
        assert len(tasks) == len(set(tasks)), tasks


def test_the_scheduler_is_lost(
    provision: Provision, estate: Estate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every host is reported as failed. On the workers, the running steps end, and no other starts."""
    with started_cluster(tmp_path, 2) as cluster:

        def kill() -> None:
            assert cluster.scheduler is not None
            monkeypatch.setattr(client, "_LOST_SECONDS", 2)
            cluster.scheduler.kill()

        killer = _when_all_are_at_work(estate, kill)
        ended = provision("steps", "--dask", cluster.address, "--set", "steps.first=4")
        killer.join()
        wait_for(lambda: all(one.poll() is not None for one in cluster.workers), "the workers have ended", 60)
    assert ended.code == 1, ended.errors
    errors = {one["host"]: one for one in ended.events if one["type"] == "error"}
    assert set(errors) == set(estate.names)
    assert all(one["error"] == "WorkerLost" and "the Dask scheduler" in one["text"] for one in errors.values())
    assert (ended.summary["failed"], len(ended.summary["hosts"])) == (8, 8)
    assert all(estate.log(host) == ["begin first", "end first"] for host in estate.names)


def _start(estate: Estate, cluster: Cluster, *arguments: str, **own: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", "from provision.cli import main; main()", "-i", str(estate.inventory)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(cluster.folder / "home"), **own}
    return subprocess.Popen(
        [*argv, "--dask", cluster.address, *arguments],
        cwd=estate.folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )


def test_ctrl_c(estate: Estate, cluster: Cluster) -> None:
    """The running steps end on every worker, and no other one begins."""
    process = _start(estate, cluster, "steps", "--json", "--set", "steps.first=3")
    wait_for(lambda: len(list((estate.folder / "out").glob("*.log"))) == 8, "all hosts are at work", 60)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    events = [json.loads(line) for line in out.splitlines()]
    stopping = {one["host"] for one in events if one["type"] == "message" and one.get("kind") == "stopping"}
    assert stopping == set(estate.names)
    for host in estate.names:
        assert estate.log(host) == ["begin first", "end first"]


def test_a_second_ctrl_c(estate: Estate, cluster: Cluster) -> None:
    """The running steps are abandoned, and the run ends long before these steps."""
    started = time.monotonic()
    process = _start(estate, cluster, "steps", "--json", "--set", "steps.first=100")
    wait_for(lambda: len(list((estate.folder / "out").glob("*.log"))) == 8, "all hosts are at work", 60)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stderr is not None
    kinds: dict[str, set[str]] = {"stopping": set(), "abandoned": set()}
    for one in map(json.loads, process.stdout):
        hosts = kinds.get(one.get("kind"))
        if hosts is not None:
            hosts.add(one["host"])
            if one["kind"] == "stopping" and len(hosts) == len(estate.names):
                process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130, process.stderr.read()
    assert time.monotonic() - started < 90
    assert kinds["abandoned"] == set(estate.names)
    assert all(estate.log(host) == ["begin first"] for host in estate.names)
    estate.end_steps()


def test_mistakes_before_any_host_is_contacted(
    provision: Provision, estate: Estate, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Exit code 2 for another version, a file that a worker does not have, no scheduler, and no worker."""
    monkeypatch.setattr(scheduler, "__version__", "9.9")
    ended = provision("steps", "--dask", cluster.address)
    assert (ended.code, ended.events) == (2, [])
    assert "has provision 0.1.0, and this is 9.9" in ended.errors
    monkeypatch.undo()

    key = tmp_path / ".ssh" / "key"
    key.parent.mkdir()
    key.write_bytes((estate.folder / "user_key").read_bytes())
    monkeypatch.setenv("HOME", str(tmp_path))
    ended = provision("steps", "--dask", cluster.address, "--set", "ssh.identity_file=~/.ssh/key")
    assert (ended.code, ended.events) == (2, [])
    assert f"missing on workers\nnot on {cluster.address[:16]}" in ended.errors
    assert re.search(r"ssh.identity_file \(\S+/home/.ssh/key\)", ended.errors)

    monkeypatch.setattr(scheduler, "CONNECT_SECONDS", 0.5)
    ended = provision("steps", "--dask", "tcp://127.0.0.1:9")
    assert (ended.code, ended.events) == (2, [])
    assert "no Dask scheduler can be used at tcp://127.0.0.1:9" in ended.errors
    assert estate.log("h0000") == []


def test_secrets_travel_over_tls_only(estate: Estate, cluster: Cluster, tmp_path: Path) -> None:
    """Over TLS, workers get a secret of the client's environment, and no process logs it. Over TCP the run is refused."""
    made = Security.temporary()  # both sides show a certificate
    for name, text in {
        "ca.pem": made.tls_ca_file,
        "cert.pem": made.tls_client_cert,
        "key.pem": made.tls_client_key,
    }.items():
        (tmp_path / name).write_text(text)
    tls = {"DASK_DISTRIBUTED__COMM__TLS__CA_FILE": str(tmp_path / "ca.pem")}
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        tls[f"DASK_DISTRIBUTED__COMM__TLS__{role}__CERT"] = str(tmp_path / "cert.pem")
        tls[f"DASK_DISTRIBUTED__COMM__TLS__{role}__KEY"] = str(tmp_path / "key.pem")
    secret = "correct-horse-battery"
    own = {"CODE_WORD": secret, **tls}
    arguments = ("word", "--limit", "h0000,h0001", "--set", 'code.word={ env = "CODE_WORD" }', "-v")
    refused = _start(estate, cluster, *arguments, **own)
    _, errors = refused.communicate(timeout=60)
    assert refused.returncode == 2
    assert "secrets are not sent over tcp://, where anyone on the network can read them: code.word (env)" in errors
    with started_cluster(tmp_path, 2, "tls", **tls) as encrypted:
        process = _start(estate, encrypted, *arguments, **own)
        out, errors = process.communicate(timeout=90)
        logs = encrypted.logs
    assert process.returncode == 0, out + errors
    for host in ("h0000", "h0001"):
        assert (estate.folder / "out" / f"{host}.word").read_text() == secret
    assert secret not in logs + out + errors
    assert "Run out-of-band function 'prepare'" in logs
