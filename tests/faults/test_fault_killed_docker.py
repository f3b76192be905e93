"""kill -9 around daemon.json and config.toml on a runner host, and files there that somebody broke."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness
from tests.support.faults import Gate, Live, fact, on_host, pending, wait_until_free, with_playbooks
from tests.support.runs import applied, provision, settled, untouched, without_s3

HOST, OTHER = "runner-1", "runner-2"
DAEMON, CONFIG = "/etc/docker/daemon.json", "/etc/gitlab-runner/config.toml"
STARTED = "systemctl show docker --property=ExecMainStartTimestampMonotonic --value"
TOKEN = "glrt-a-token-of-nobody"


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """Two runner hosts with Docker, one of them with gitlab-runner too; nobody answers for GitLab."""
    harness = without_s3(with_playbooks(harness_factory(LabHost(HOST), LabHost(OTHER))))
    del harness.inventory["runners"]
    applied(harness, "docker")
    applied(harness, "runner", "register", "--limit", HOST)
    return harness


def size(text: str) -> Mapping[str, Any]:
    """The inventory with another size for container logs: an edit of daemon.json, which owes a restart."""
    return {"docker": {"daemon": {"log-opts": {"max-size": text}}}}


def wanted(harness: Harness) -> str:
    """The size that daemon.json asks for."""
    return str(json.loads(harness.lab.inside(HOST, f"cat {DAEMON}"))["log-opts"]["max-size"])


def test_killed_between_edit_and_restart(harness: Harness) -> None:
    """daemon.json is written, Docker is not restarted, the controller dies: the next run restarts it once."""
    changes, started = size("11m"), fact(harness, HOST, STARTED)
    gate = Gate(harness, HOST)
    run = Live(harness, "paused", "--limit", HOST, changes=changes)
    gate.wait()
    run.kill()
    assert (wanted(harness), pending(harness, HOST), fact(harness, HOST, STARTED)) == (
        "11m",
        ["restart-docker"],
        started,
    )
    gate.open()
    wait_until_free(harness, HOST)
    outcome = applied(harness, "docker", "--limit", HOST, changes=changes)
    assert outcome.changes() == ["restart docker"]
    assert pending(harness, HOST) == []
    restarted = fact(harness, HOST, STARTED)
    assert int(restarted) > int(started)
    settled(harness, "docker", "--limit", HOST, changes=changes)
    assert fact(harness, HOST, STARTED) == restarted


def test_killed_as_soon_as_the_edit_is_told(harness: Harness) -> None:
    """`provision docker` is killed the moment its event of daemon.json is read: written, and owed until it is done."""
    changes, started = size("12m"), fact(harness, HOST, STARTED)
    run = Live(harness, "docker", "--limit", HOST, changes=changes)
    run.until("change", resource=f"JsonSettings {DAEMON}")
    run.kill()
    assert wanted(harness) == "12m"
    wait_until_free(harness, HOST)
    outcome = provision(harness, "docker", "--limit", HOST, changes=changes)
    assert (outcome.code, outcome.errors) == (0, "")
    # Killed in time it was still to do; else it had been done by the step that went on.
    assert outcome.changes() in (["restart docker"], [])
    assert int(fact(harness, HOST, STARTED)) > int(started)
    assert pending(harness, HOST) == []
    settled(harness, "docker", "--limit", HOST, changes=changes)


def test_killed_while_packages_are_installed(harness: Harness) -> None:
    """apt is in the middle of it: it ends by itself, holding the host's lock, and the next run finds what it left."""
    harness.lab.inside(OTHER, "dpkg --purge --force-all docker-compose-plugin")
    harness.lab.inside(
        OTHER,
        "mkfifo /run/gate; echo 'DPkg::Pre-Invoke { \"read -r word < /run/gate\"; };' > /etc/apt/apt.conf.d/99gate",
    )
    gate = Gate(harness, OTHER)
    run = Live(harness, "docker", "--limit", OTHER)
    gate.wait()
    run.kill()
    locked = provision(harness, "docker", "--limit", OTHER)
    assert (locked.code, locked.of("error")[0]["error"]) == (1, "Locked")
    gate.open()
    wait_until_free(harness, OTHER)
    harness.lab.inside(OTHER, "rm -f /run/gate /etc/apt/apt.conf.d/99gate")
    assert (
        fact(harness, OTHER, "dpkg --audit; dpkg-query -Wf '${db:Status-Status}' docker-compose-plugin") == "installed"
    )
    settled(harness, "docker", "--limit", OTHER)


def told(
    harness: Harness, *names: str, words: tuple[str, ...], error: str, changes: Mapping[str, Any] | None = None
) -> None:
    """A run that fails on HOST for the reason in `words` and leaves the files alone, while the other host is served."""
    with untouched(harness, HOST, "/etc/docker", "/etc/gitlab-runner"):
        outcome = provision(harness, *names, changes=changes)
    (one,) = outcome.of("error")
    assert (outcome.code, one["host"], one["error"]) == (1, HOST, error), one
    assert [word for word in words if word not in f"{one['text']} → {one['hint']}"] == []
    assert one["hint"]
    assert set(outcome.statuses(OTHER).values()) <= {"ok", "changed"}


def test_daemon_json_is_no_json(harness: Harness) -> None:
    """Somebody left a comma: file and line are told, nothing is written over; mended, it goes on."""
    spoil = f"cp -p {DAEMON} /root/good.json; printf '{{\\n  \"debug\": true,\\n}}\\n' > {DAEMON}"
    with on_host(harness, HOST, spoil, f"mv /root/good.json {DAEMON}"):
        told(harness, "docker", words=(f"{DAEMON} line 3", "not JSON", "mend it"), error="Refused", changes=size("13m"))
    applied(harness, "docker", changes=size("13m"))


def test_daemon_json_that_dockerd_refuses(harness: Harness) -> None:
    """dockerd does not take what the inventory asks of one host: its words are told, the old file is in force."""
    bad = {"hosts": {HOST: {"docker": {"daemon": {"no-such-key": True}}}}, **size("13m")}
    told(harness, "docker", words=("no-such-key",), error="ChangeFailed", changes=bad)
    assert (wanted(harness), fact(harness, HOST, "systemctl is-active docker")) == ("13m", "active")
    settled(harness, "docker", changes=size("13m"))


def test_docker_does_not_come_up(harness: Harness) -> None:
    """dockerd takes the file and cannot run with it: what its journal says is told, and the previous file is back in force."""
    bad = {"hosts": {HOST: {"docker": {"daemon": {"bip": "198.18.0.0/33"}}}}, **size("13m")}
    outcome = provision(harness, "docker", changes=bad)
    (error,) = outcome.of("error")
    assert (outcome.code, error["host"]) == (1, HOST)
    assert "198.18.0.0/33" in error["text"]
    assert set(outcome.statuses(OTHER).values()) == {"ok"}
    applied(harness, "docker", changes=size("13m"))
    assert fact(harness, HOST, "systemctl is-active docker") == "active"
    settled(harness, "docker", changes=size("13m"))


def test_config_toml_is_no_toml(harness: Harness) -> None:
    """Somebody broke config.toml: file and line are told, nothing is written over."""
    spoil = f"cp -p {CONFIG} /root/good.toml; printf 'concurrent = 1\\nconcurrent =\\n' > {CONFIG}"
    with on_host(harness, HOST, spoil, f"mv /root/good.toml {CONFIG}"), untouched(harness, HOST, "/etc/gitlab-runner"):
        outcome = provision(harness, "register", "--limit", HOST)
        (error,) = outcome.of("error")
        assert (outcome.code, error["error"]) == (1, "Refused")
        assert CONFIG in error["resource"]
        assert "config.toml is not valid TOML: line 2" in error["text"]
        assert error["hint"]


def test_gitlab_is_not_reached_for_a_registration(harness: Harness) -> None:
    """A new runner is to be registered and GitLab does not answer: told with the reason, config.toml is not touched."""
    runner = {"name": "late", "executor": "shell", "token": TOKEN}
    with untouched(harness, HOST, CONFIG):
        outcome = provision(harness, "register", "--limit", HOST, changes={"runners": [runner]})
    (error,) = outcome.of("error")
    assert (outcome.code, error["error"]) == (1, "NotReady")
    assert "late" in error["text"]
    assert error["hint"] == "check the name and the host's DNS"
    assert TOKEN not in json.dumps(outcome.events) + outcome.stderr


def test_killed_after_config_toml_was_written(harness: Harness) -> None:
    """Killed as soon as the event of config.toml is read: the file is whole, and the next run has nothing to do."""
    changes = {"runner": {"concurrent": 7}}
    run = Live(harness, "register", "--limit", HOST, changes=changes)
    run.until("change", resource=f"RunnerEntries {CONFIG}")
    run.kill()
    assert tomllib.loads(harness.lab.inside(HOST, f"cat {CONFIG}"))["concurrent"] == 7
    wait_until_free(harness, HOST)
    settled(harness, "register", "--limit", HOST, changes=changes)
