"""CI jobs run on a host while its runner and its Docker are changed: no job is lost.

The stand-in reads its job from a file, and the test ends it. GitLab does not answer. The tests run in order.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest

from provision_lab import LabHost
from provision_lab.certificates import Authority
from provision_lab.harness import PROVISION, Harness
from tests.support.faults import fact, pending
from tests.support.gitlab import CONFIG, config, process
from tests.support.runs import applied, succeeds, twice, unchanged
from tests.support.waiting import wait_for

HOST = "worker"
JOBS = "/etc/gitlab-runner-standin"
WAITING = "waiting for the CI jobs on this host to end: "
THEIRS = """concurrent = 2
[[runners]]
  name = "theirs"
  url = "http://127.0.0.1:9"
  token = "glrt-of-the-other-team"
  executor = "shell"
"""
numbers = count(1)


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A host with Docker and gitlab-runner, and another team's runner that runs jobs."""
    harness = harness_factory(LabHost(HOST, prepared="runner"))
    for table in ("registry", "gitlab", "runners", "runner"):
        del harness.inventory[table]
    harness.lab.inside(HOST, f"cat > {CONFIG} && chmod 600 {CONFIG} && mkdir -p {JOBS}", stdin=THEIRS)
    harness.lab.inside(HOST, "tar -C / -c bin/busybox | docker import - tiny")
    return harness


@contextmanager
def job(harness: Harness) -> Iterator[Callable[[], str]]:
    """A job that runs until the block ends or the yielded function is called, which returns how it ended."""
    number = next(numbers)
    harness.lab.inside(
        HOST,
        f"rm -f /run/job-may-end; echo 'until [ -e /run/job-may-end ]; do sleep 0.1; done' > {JOBS}/job.new && mv {JOBS}/job.new {JOBS}/job",
    )
    wait_for(lambda: succeeds(harness, HOST, f"test -e {JOBS}/job-{number}.running"), "the job is taken")

    def end() -> str:
        harness.lab.inside(HOST, "touch /run/job-may-end")
        wait_for(lambda: succeeds(harness, HOST, f"test -e {JOBS}/job-{number}.done"), "the job ends")
        return fact(harness, HOST, f"cat {JOBS}/job-{number}.done")

    try:
        yield end
    finally:
        end()


class Spoken:
    """A running `provision NAMES -v`, with its output line by line."""

    def __init__(self, harness: Harness, *names: str, changes: Mapping[str, Any]) -> None:
        self.message: list[str] = []
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  as long as the run
        argv = [*PROVISION, *names, "-v", "-i", str(harness.write(changes))]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )

    def until(self, words: str) -> str:
        """Waits for a line with this text."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.message.append(line)
            if words in line:
                return line
        self._errors.seek(0)
        raise AssertionError(f"never printed {words!r}: {''.join(self.message)}{self._errors.read()}")

    @property
    def goes_on(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def end(self) -> int:
        """Waits for the end; the exit code."""
        assert self._process.stdout is not None
        self.message += list(self._process.stdout)
        return self._process.wait()


def daemon(**settings: Any) -> dict[str, Any]:
    """The inventory with more in daemon.json."""
    return {"docker": {"daemon": settings}}


def test_settings_of_the_runner_need_no_new_process(harness: Harness) -> None:
    """config.toml changes during a job: the same process loads it, and the job succeeds."""
    before = process(harness, HOST)
    with job(harness) as end:
        outcome = twice(harness, "register", changes={"runner": {"concurrent": 7, "log_level": "info"}})
        assert outcome.changes() == ["set concurrent, set log_level"]
        wait_for(
            lambda: succeeds(
                harness, HOST, "journalctl -u gitlab-runner | grep -q 'Configuration loaded.*max_builds=7'"
            ),
            "the service has taken it over",
        )
        assert end() == "success"
    assert process(harness, HOST) == before


def test_a_new_listen_address_waits_for_the_job(harness: Harness) -> None:
    """The only setting that needs a restart: reported, pending until the job ends, then active."""
    before = process(harness, HOST)
    changes = {"runner": {"concurrent": 7, "listen_address": "127.0.0.1:9252"}}
    with job(harness) as end:
        run = Spoken(harness, "register", changes=changes)
        assert "process " in run.until(WAITING)
        assert "listen_address" in config(harness, HOST)
        assert (process(harness, HOST), pending(harness, HOST)) == (before, ["restart-runner"])
        assert run.goes_on
        assert end() == "success"
        assert run.end() == 0
    assert process(harness, HOST) != before
    wait_for(lambda: succeeds(harness, HOST, "curl -sf http://127.0.0.1:9252/metrics"), "it listens there")
    unchanged(harness, "register", changes=changes)
    harness.inventory["runner"] = changes["runner"]


def test_dockers_restart_waits_for_the_job(harness: Harness) -> None:
    """`dns` needs a restart: dockerd is the same until the job has succeeded, and has the new DNS afterwards."""
    before, changes = process(harness, HOST, "docker"), daemon(dns=["198.18.0.1"])
    with job(harness) as end:
        run = Spoken(harness, "docker", changes=changes)
        run.until(WAITING)
        assert (process(harness, HOST, "docker"), pending(harness, HOST)) == (before, ["restart-docker"])
        assert end() == "success"
        assert run.end() == 0
    assert process(harness, HOST, "docker") != before
    unchanged(harness, "docker", changes=changes)


def test_dockers_restart_waits_for_a_jobs_container(harness: Harness) -> None:
    """A job of the docker executor is a container with the runner's label; other containers are no jobs."""
    before = process(harness, HOST, "docker")
    run_container = "docker run -d --rm --network none --name %s %s tiny /bin/busybox sleep 600"
    harness.lab.inside(HOST, run_container % ("somebodys", ""))
    harness.lab.inside(HOST, run_container % ("build-1", "--label com.gitlab.gitlab-runner.managed=true"))
    run = Spoken(harness, "docker", changes=daemon(dns=["198.18.0.2"]))
    assert "container build-1" in run.until(WAITING)
    assert process(harness, HOST, "docker") == before
    assert fact(harness, HOST, "docker inspect -f '{{.State.Running}}' build-1") == "true"
    harness.lab.inside(HOST, "docker rm -f build-1")
    assert run.end() == 0
    assert process(harness, HOST, "docker") != before


def test_another_docker_waits_for_the_job(harness: Harness) -> None:
    """A pinned version replaces the packages, which restarts Docker: this waits before anything is replaced."""
    version = "dpkg-query -W -f '${Version}' docker-ce"
    before, installed = process(harness, HOST, "docker"), fact(harness, HOST, version)
    assert "-2~" in installed
    harness.inventory["docker"]["version"] = f"{installed.partition('-')[0]}-1*"
    with job(harness) as end:
        run = Spoken(harness, "docker", changes={})
        run.until(WAITING)
        assert (process(harness, HOST, "docker"), fact(harness, HOST, version)) == (before, installed)
        assert end() == "success"
        assert run.end() == 0
    assert "-1~" in fact(harness, HOST, version)
    assert process(harness, HOST, "docker") != before


def test_another_runner_waits_for_a_job_that_pulls_its_image(harness: Harness) -> None:
    """Neither a process nor a container shows it: the runner ends after it, then the packages are replaced."""
    version = "dpkg-query -W -f '${Version}' gitlab-runner"
    installed, before = fact(harness, HOST, version), process(harness, HOST)
    other = "19.2.0" if installed.startswith("19.3.0") else "19.3.0"
    harness.lab.inside(HOST, f"touch {JOBS}/preparing")
    with job(harness) as end:
        run = Spoken(harness, "runner", changes={"runner": {"version": other}})
        assert "a job that is being prepared" in run.until(WAITING)
        assert (fact(harness, HOST, version), process(harness, HOST)) == (installed, before)
        assert run.goes_on
        harness.lab.inside(HOST, f"rm {JOBS}/preparing")
        assert end() == "success"
        assert run.end() == 0
    assert fact(harness, HOST, version).startswith(other)
    assert succeeds(harness, HOST, "systemctl is-active gitlab-runner")
    harness.inventory["runner"] = {**harness.inventory.get("runner", {}), "version": other}
    unchanged(harness, "runner")


def test_a_restart_at_once_on_demand(harness: Harness) -> None:
    """docker.restart = "now": no waiting, and the runner's process is not affected."""
    before, runner = process(harness, HOST, "docker"), process(harness, HOST)
    with job(harness) as end:
        outcome = applied(harness, "docker", "--set", 'docker.restart="now"', changes=daemon(dns=["198.18.0.3"]))
        assert outcome.changes() == ["update /etc/docker/daemon.json", "restart docker"]
        assert process(harness, HOST, "docker") != before
        assert end() == "success"
    assert process(harness, HOST) == runner


def test_a_signal_where_that_suffices(harness: Harness) -> None:
    """`debug` and labels: the same dockerd reloads them at once, during a job."""
    changes = daemon(dns=["198.18.0.3"], debug=True, labels=["rack=7"])
    before = process(harness, HOST, "docker")
    with job(harness) as end:
        outcome = twice(harness, "docker", changes=changes)
        assert outcome.changes() == ["update /etc/docker/daemon.json", "reload docker"]
        assert process(harness, HOST, "docker") == before
        assert end() == "success"
    info = json.loads(fact(harness, HOST, "docker info -f '{{json .}}'"))
    assert (info["Debug"], info["Labels"]) == (True, ["rack=7"])


def test_registries_and_buildkit_need_no_restart(harness: Harness, tmp_path_factory: pytest.TempPathFactory) -> None:
    """certs.d of several registries, with and without a port, and buildkitd.toml are read on use."""
    folder = tmp_path_factory.mktemp("pairs")
    certificate = Authority("a registry's").issue(["client.example.com"], []).fullchain
    folder.joinpath("client.crt").write_text(certificate)
    folder.joinpath("client.key").write_text("the client.key\n")
    trusted = {
        "mirror.example.com:5000": {"ca": str(harness.lab.ca)},
        "images.example.com": {"cert": str(folder / "client.crt"), "key": str(folder / "client.key")},
    }
    mirrors = {"registry": {"docker.io": {"mirrors": ["mirror.example.com:5000"]}}}
    before = process(harness, HOST, "docker")
    changes = daemon(dns=["198.18.0.3"], debug=True, labels=["rack=7"])
    changes["docker"] |= {"registries": trusted, "buildkit": mirrors}
    outcome = twice(harness, "docker", changes=changes)
    assert process(harness, HOST, "docker") == before
    there = harness.host(HOST)
    certs = "/etc/docker/certs.d"
    assert there.file(f"{certs}/mirror.example.com:5000/ca.crt").content == harness.lab.ca.read_bytes()
    assert there.file(f"{certs}/images.example.com/client.cert").content_string == certificate
    key = there.file(f"{certs}/images.example.com/client.key")
    assert (key.content_string, key.mode) == ("the client.key\n", 0o600)
    assert 'mirrors = ["mirror.example.com:5000"]' in there.file("/etc/buildkit/buildkitd.toml").content_string
    assert "the client.key" not in json.dumps(outcome.events)
