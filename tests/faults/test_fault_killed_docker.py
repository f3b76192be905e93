"""kill -9 around daemon.json and config.toml on a runner host, and files there that somebody broke."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from provision_lab import LabHost
from provision_lab.trial import Trial
from tests.support.faults import Gate, Live, fact, on_host, pending, wait_until_free, with_playbooks
from tests.support.runs import applied, provision, settled, untouched, without_s3

HOST, OTHER = "runner-1", "runner-2"
DAEMON, CONFIG = "/etc/docker/daemon.json", "/etc/gitlab-runner/config.toml"
STARTED = "systemctl show docker --property=ExecMainStartTimestampMonotonic --value"
TOKEN = "glrt-a-token-of-nobody"


@pytest.fixture(scope="module")
def trial(trial_factory: Callable[..., Trial]) -> Trial:
    """Two runner hosts with Docker, one of them with gitlab-runner too; nobody answers for GitLab."""
    trial = without_s3(with_playbooks(trial_factory(LabHost(HOST), LabHost(OTHER))))
    del trial.inventory["runners"]
    applied(trial, "docker")
    applied(trial, "runner", "register", "--limit", HOST)
    return trial


def size(text: str) -> Mapping[str, Any]:
    """The inventory with another size for container logs: an edit of daemon.json, which owes a restart."""
    return {"docker": {"daemon": {"log-opts": {"max-size": text}}}}


def wanted(trial: Trial) -> str:
    """The size that daemon.json asks for."""
    return str(json.loads(trial.lab.inside(HOST, f"cat {DAEMON}"))["log-opts"]["max-size"])


def test_killed_between_edit_and_restart(trial: Trial) -> None:
    """daemon.json is written, Docker is not restarted, the controller dies: the next run restarts it once."""
    changes, started = size("11m"), fact(trial, HOST, STARTED)
    gate = Gate(trial, HOST)
    run = Live(trial, "paused", "--limit", HOST, changes=changes)
    gate.wait()
    run.kill()
    assert (wanted(trial), pending(trial, HOST), fact(trial, HOST, STARTED)) == ("11m", ["restart-docker"], started)
    gate.open()
    wait_until_free(trial, HOST)
    outcome = applied(trial, "docker", "--limit", HOST, changes=changes)
    assert outcome.changes() == ["restart docker"]
    assert pending(trial, HOST) == []
    restarted = fact(trial, HOST, STARTED)
    assert int(restarted) > int(started)
    settled(trial, "docker", "--limit", HOST, changes=changes)
    assert fact(trial, HOST, STARTED) == restarted


def test_killed_as_soon_as_the_edit_is_told(trial: Trial) -> None:
    """`provision docker` is killed the moment its event of daemon.json is read: written, and owed until it is done."""
    changes, started = size("12m"), fact(trial, HOST, STARTED)
    run = Live(trial, "docker", "--limit", HOST, changes=changes)
    run.until("change", resource=f"JsonSettings {DAEMON}")
    run.kill()
    assert wanted(trial) == "12m"
    wait_until_free(trial, HOST)
    outcome = provision(trial, "docker", "--limit", HOST, changes=changes)
    assert (outcome.code, outcome.errors) == (0, "")
    # Killed in time it was still to do; else it had been done by the step that went on.
    assert outcome.changes() in (["restart docker"], [])
    assert int(fact(trial, HOST, STARTED)) > int(started)
    assert pending(trial, HOST) == []
    settled(trial, "docker", "--limit", HOST, changes=changes)


def test_killed_while_packages_are_installed(trial: Trial) -> None:
    """apt is in the middle of it: it ends by itself, holding the host's lock, and the next run finds what it left."""
    trial.lab.inside(OTHER, "dpkg --purge --force-all docker-compose-plugin")
    trial.lab.inside(
        OTHER,
        "mkfifo /run/gate; echo 'DPkg::Pre-Invoke { \"read -r word < /run/gate\"; };' > /etc/apt/apt.conf.d/99gate",
    )
    gate = Gate(trial, OTHER)
    run = Live(trial, "docker", "--limit", OTHER)
    gate.wait()
    run.kill()
    locked = provision(trial, "docker", "--limit", OTHER)
    assert (locked.code, locked.of("error")[0]["error"]) == (1, "Locked")
    gate.open()
    wait_until_free(trial, OTHER)
    trial.lab.inside(OTHER, "rm -f /run/gate /etc/apt/apt.conf.d/99gate")
    assert fact(trial, OTHER, "dpkg --audit; dpkg-query -Wf '${db:Status-Status}' docker-compose-plugin") == "installed"
    settled(trial, "docker", "--limit", OTHER)


def told(
    trial: Trial, *names: str, words: tuple[str, ...], error: str, changes: Mapping[str, Any] | None = None
) -> None:
    """A run that fails on HOST for the reason in `words` and leaves the files alone, while the other host is served."""
    with untouched(trial, HOST, "/etc/docker", "/etc/gitlab-runner"):
        outcome = provision(trial, *names, changes=changes)
    (one,) = outcome.of("error")
    assert (outcome.code, one["host"], one["error"]) == (1, HOST, error), one
    assert [word for word in words if word not in f"{one['text']} → {one['hint']}"] == []
    assert one["hint"]
    assert set(outcome.statuses(OTHER).values()) <= {"ok", "changed"}


def test_daemon_json_is_no_json(trial: Trial) -> None:
    """Somebody left a comma: file and line are told, nothing is written over; mended, it goes on."""
    spoil = f"cp -p {DAEMON} /root/good.json; printf '{{\\n  \"debug\": true,\\n}}\\n' > {DAEMON}"
    with on_host(trial, HOST, spoil, f"mv /root/good.json {DAEMON}"):
        told(trial, "docker", words=(f"{DAEMON} line 3", "not JSON", "mend it"), error="Refused", changes=size("13m"))
    applied(trial, "docker", changes=size("13m"))


def test_daemon_json_that_dockerd_refuses(trial: Trial) -> None:
    """dockerd does not take what the inventory asks of one host: its words are told, the old file is in force."""
    bad = {"hosts": {HOST: {"docker": {"daemon": {"no-such-key": True}}}}, **size("13m")}
    told(trial, "docker", words=("no-such-key",), error="ChangeFailed", changes=bad)
    assert (wanted(trial), fact(trial, HOST, "systemctl is-active docker")) == ("13m", "active")
    settled(trial, "docker", changes=size("13m"))


def test_docker_does_not_come_up(trial: Trial) -> None:
    """dockerd takes the file and cannot run with it: what its journal says is told, and the previous file is back in force."""
    bad = {"hosts": {HOST: {"docker": {"daemon": {"bip": "198.18.0.0/33"}}}}, **size("13m")}
    outcome = provision(trial, "docker", changes=bad)
    (error,) = outcome.of("error")
    assert (outcome.code, error["host"]) == (1, HOST)
    assert "198.18.0.0/33" in error["text"]
    assert set(outcome.statuses(OTHER).values()) == {"ok"}
    applied(trial, "docker", changes=size("13m"))
    assert fact(trial, HOST, "systemctl is-active docker") == "active"
    settled(trial, "docker", changes=size("13m"))


def test_config_toml_is_no_toml(trial: Trial) -> None:
    """Somebody broke config.toml: file and line are told, nothing is written over."""
    spoil = f"cp -p {CONFIG} /root/good.toml; printf 'concurrent = 1\\nconcurrent =\\n' > {CONFIG}"
    with on_host(trial, HOST, spoil, f"mv /root/good.toml {CONFIG}"), untouched(trial, HOST, "/etc/gitlab-runner"):
        outcome = provision(trial, "register", "--limit", HOST)
        (error,) = outcome.of("error")
        assert (outcome.code, error["error"]) == (1, "Refused")
        assert CONFIG in error["resource"]
        assert "config.toml is not valid TOML: line 2" in error["text"]
        assert error["hint"]


def test_gitlab_is_not_reached_for_a_registration(trial: Trial) -> None:
    """A new runner is to be registered and GitLab does not answer: told with the reason, config.toml is not touched."""
    runner = {"name": "late", "executor": "shell", "token": TOKEN}
    with untouched(trial, HOST, CONFIG):
        outcome = provision(trial, "register", "--limit", HOST, changes={"runners": [runner]})
    (error,) = outcome.of("error")
    assert (outcome.code, error["error"]) == (1, "NotReady")
    assert "late" in error["text"]
    assert error["hint"] == "check the name and the host's DNS"
    assert TOKEN not in json.dumps(outcome.events) + outcome.stderr


def test_killed_after_config_toml_was_written(trial: Trial) -> None:
    """Killed as soon as the event of config.toml is read: the file is whole, and the next run has nothing to do."""
    changes = {"runner": {"concurrent": 7}}
    run = Live(trial, "register", "--limit", HOST, changes=changes)
    run.until("change", resource=f"RunnerEntries {CONFIG}")
    run.kill()
    assert tomllib.loads(trial.lab.inside(HOST, f"cat {CONFIG}"))["concurrent"] == 7
    wait_until_free(trial, HOST)
    settled(trial, "register", "--limit", HOST, changes=changes)
