"""CI jobs run on the host while its runner and its Docker are changed: no job is lost.

The stand-in's job is taken from a file, and ends when the test lets it; nobody answers for GitLab. Told in order.
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
from provision_lab.trial import PROVISION, Trial
from tests.support.faults import fact, pending
from tests.support.gitlab import CONFIG, config, process
from tests.support.runs import applied, settled, succeeds, twice, wait_for

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
def trial(trial_factory: Callable[..., Trial]) -> Trial:
    """A host with Docker and gitlab-runner, and a runner of somebody else's that takes jobs."""
    trial = trial_factory(LabHost(HOST))
    for table in ("registry", "gitlab", "runners", "runner"):
        del trial.inventory[table]
    applied(trial, "docker", "runner")
    trial.lab.inside(HOST, f"cat > {CONFIG} && chmod 600 {CONFIG} && mkdir -p {JOBS}", stdin=THEIRS)
    trial.lab.inside(HOST, "tar -C / -c bin/busybox | docker import - tiny")
    return trial


@contextmanager
def job(trial: Trial) -> Iterator[Callable[[], str]]:
    """A job that runs until the block ends, or what is yielded is called: that tells how it ended."""
    number = next(numbers)
    trial.lab.inside(
        HOST,
        f"rm -f /run/job-may-end; echo 'until [ -e /run/job-may-end ]; do sleep 0.1; done' > {JOBS}/job.new && mv {JOBS}/job.new {JOBS}/job",
    )
    wait_for(lambda: succeeds(trial, HOST, f"test -e {JOBS}/job-{number}.running"), "the job is taken")

    def end() -> str:
        trial.lab.inside(HOST, "touch /run/job-may-end")
        wait_for(lambda: succeeds(trial, HOST, f"test -e {JOBS}/job-{number}.done"), "the job ends")
        return fact(trial, HOST, f"cat {JOBS}/job-{number}.done")

    try:
        yield end
    finally:
        end()


class Spoken:
    """`provision NAMES -v` that goes on: what it says, line by line."""

    def __init__(self, trial: Trial, *names: str, changes: Mapping[str, Any]) -> None:
        self.said: list[str] = []
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  as long as the run
        argv = [*PROVISION, *names, "-v", "-i", str(trial.write(changes))]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )

    def until(self, words: str) -> str:
        """Waits for a line with these words."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.said.append(line)
            if words in line:
                return line
        self._errors.seek(0)
        raise AssertionError(f"never said {words!r}: {''.join(self.said)}{self._errors.read()}")

    @property
    def goes_on(self) -> bool:
        """It has not ended."""
        return self._process.poll() is None

    def end(self) -> int:
        """Its exit code."""
        assert self._process.stdout is not None
        self.said += list(self._process.stdout)
        return self._process.wait()


def daemon(**settings: Any) -> dict[str, Any]:
    """The inventory with more in daemon.json."""
    return {"docker": {"daemon": settings}}


def test_settings_of_the_runner_need_no_new_process(trial: Trial) -> None:
    """A job runs while config.toml changes: the same service takes the change over, and the job ends well."""
    before = process(trial, HOST)
    with job(trial) as end:
        outcome = twice(trial, "register", changes={"runner": {"concurrent": 7, "log_level": "info"}})
        assert outcome.changes() == ["set concurrent, set log_level"]
        wait_for(
            lambda: succeeds(trial, HOST, "journalctl -u gitlab-runner | grep -q 'Configuration loaded.*max_builds=7'"),
            "the service has taken it over",
        )
        assert end() == "success"
    assert process(trial, HOST) == before


def test_a_new_listen_address_waits_for_the_job(trial: Trial) -> None:
    """The one setting that needs a restart: said, owed meanwhile, done once the job has ended, and in force."""
    before = process(trial, HOST)
    changes = {"runner": {"concurrent": 7, "listen_address": "127.0.0.1:9252"}}
    with job(trial) as end:
        run = Spoken(trial, "register", changes=changes)
        assert "process " in run.until(WAITING)
        assert "listen_address" in config(trial, HOST)
        assert (process(trial, HOST), pending(trial, HOST)) == (before, ["restart-runner"])
        assert run.goes_on
        assert end() == "success"
        assert run.end() == 0
    assert process(trial, HOST) != before
    wait_for(lambda: succeeds(trial, HOST, "curl -sf http://127.0.0.1:9252/metrics"), "it listens there")
    settled(trial, "register", changes=changes)
    trial.inventory["runner"] = changes["runner"]


def test_dockers_restart_waits_for_the_job(trial: Trial) -> None:
    """`dns` needs one: dockerd is the same until the job has ended well, and another with the new DNS afterwards."""
    before, changes = process(trial, HOST, "docker"), daemon(dns=["198.18.0.1"])
    with job(trial) as end:
        run = Spoken(trial, "docker", changes=changes)
        run.until(WAITING)
        assert (process(trial, HOST, "docker"), pending(trial, HOST)) == (before, ["restart-docker"])
        assert end() == "success"
        assert run.end() == 0
    assert process(trial, HOST, "docker") != before
    settled(trial, "docker", changes=changes)


def test_dockers_restart_waits_for_a_jobs_container(trial: Trial) -> None:
    """The docker executor's job: a container with the runner's label. Another container is no job."""
    before = process(trial, HOST, "docker")
    run_container = "docker run -d --rm --network none --name %s %s tiny /bin/busybox sleep 600"
    trial.lab.inside(HOST, run_container % ("somebodys", ""))
    trial.lab.inside(HOST, run_container % ("build-1", "--label com.gitlab.gitlab-runner.managed=true"))
    run = Spoken(trial, "docker", changes=daemon(dns=["198.18.0.2"]))
    assert "container build-1" in run.until(WAITING)
    assert process(trial, HOST, "docker") == before
    assert fact(trial, HOST, "docker inspect -f '{{.State.Running}}' build-1") == "true"
    trial.lab.inside(HOST, "docker rm -f build-1")
    assert run.end() == 0
    assert process(trial, HOST, "docker") != before


def test_another_docker_waits_for_the_job(trial: Trial) -> None:
    """A pinned version replaces the packages, which restarts Docker: that waits as well, before anything is replaced."""
    version = "dpkg-query -W -f '${Version}' docker-ce"
    before, installed = process(trial, HOST, "docker"), fact(trial, HOST, version)
    assert "-2~" in installed
    trial.inventory["docker"]["version"] = "5:20.10.24-1*"
    with job(trial) as end:
        run = Spoken(trial, "docker", changes={})
        run.until(WAITING)
        assert (process(trial, HOST, "docker"), fact(trial, HOST, version)) == (before, installed)
        assert end() == "success"
        assert run.end() == 0
    assert "-1~" in fact(trial, HOST, version)
    assert process(trial, HOST, "docker") != before


def test_a_restart_at_once_on_demand(trial: Trial) -> None:
    """docker.restart = "now": it does not wait, and the runner's own process has nothing to do with it."""
    before, runner = process(trial, HOST, "docker"), process(trial, HOST)
    with job(trial) as end:
        outcome = applied(trial, "docker", "--set", 'docker.restart="now"', changes=daemon(dns=["198.18.0.3"]))
        assert outcome.changes() == ["update /etc/docker/daemon.json", "restart docker"]
        assert process(trial, HOST, "docker") != before
        assert end() == "success"
    assert process(trial, HOST) == runner


def test_a_signal_where_that_suffices(trial: Trial) -> None:
    """`debug` and labels: dockerd takes them over in the same process, at once, though a job runs."""
    changes = daemon(dns=["198.18.0.3"], debug=True, labels=["rack=7"])
    before = process(trial, HOST, "docker")
    with job(trial) as end:
        outcome = twice(trial, "docker", changes=changes)
        assert outcome.changes() == ["update /etc/docker/daemon.json", "reload docker"]
        assert process(trial, HOST, "docker") == before
        assert end() == "success"
    info = json.loads(fact(trial, HOST, "docker info -f '{{json .}}'"))
    assert (info["Debug"], info["Labels"]) == (True, ["rack=7"])


def test_registries_and_buildkit_need_no_restart(trial: Trial, tmp_path_factory: pytest.TempPathFactory) -> None:
    """certs.d of several registries, with and without a port, and buildkitd.toml: read when they are used."""
    folder = tmp_path_factory.mktemp("pairs")
    for name in ("client.crt", "client.key"):
        folder.joinpath(name).write_text(f"the {name}\n")
    trusted = {
        "mirror.example.com:5000": {"ca": str(trial.lab.ca)},
        "images.example.com": {"cert": str(folder / "client.crt"), "key": str(folder / "client.key")},
    }
    mirrors = {"registry": {"docker.io": {"mirrors": ["mirror.example.com:5000"]}}}
    before = process(trial, HOST, "docker")
    changes = daemon(dns=["198.18.0.3"], debug=True, labels=["rack=7"])
    changes["docker"] |= {"registries": trusted, "buildkit": mirrors}
    outcome = twice(trial, "docker", changes=changes)
    assert process(trial, HOST, "docker") == before
    there = trial.host(HOST)
    certs = "/etc/docker/certs.d"
    assert there.file(f"{certs}/mirror.example.com:5000/ca.crt").content == trial.lab.ca.read_bytes()
    assert there.file(f"{certs}/images.example.com/client.cert").content_string == "the client.crt\n"
    key = there.file(f"{certs}/images.example.com/client.key")
    assert (key.content_string, key.mode) == ("the client.key\n", 0o600)
    assert 'mirrors = ["mirror.example.com:5000"]' in there.file("/etc/buildkit/buildkitd.toml").content_string
    assert "the client.key" not in json.dumps(outcome.events)
