"""kill -9 around daemon.json and config.toml on a runner host, and broken files there."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness
from tests.support.faults import Gate, Live, fact, on_host, pending, wait_until_free, with_playbooks
from tests.support.runs import applied, provision, unchanged, untouched, without_s3

HOST, OTHER = "runner-1", "runner-2"
DAEMON, CONFIG = "/etc/docker/daemon.json", "/etc/gitlab-runner/config.toml"
STARTED = "systemctl show docker --property=ExecMainStartTimestampMonotonic --value"
TOKEN = "glrt-a-token-of-nobody"


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """Two runner hosts with Docker and gitlab-runner; GitLab does not answer."""
    harness = without_s3(with_playbooks(harness_factory(*(LabHost(name, prepared="runner") for name in (HOST, OTHER)))))
    del harness.inventory["runners"]
    applied(harness, "register", "--limit", HOST)
    return harness


def size(text: str) -> Mapping[str, Any]:
    """The inventory with another size for container logs: an edit of daemon.json, which needs a restart."""
    return {"docker": {"daemon": {"log-opts": {"max-size": text}}}}


def wanted(harness: Harness) -> str:
    """The size in daemon.json."""
    return str(json.loads(harness.lab.inside(HOST, f"cat {DAEMON}"))["log-opts"]["max-size"])


def test_killed_between_edit_and_restart(harness: Harness) -> None:
    """daemon.json is written, the controller is killed: the next run restarts Docker once."""
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
    unchanged(harness, "docker", "--limit", HOST, changes=changes)
    assert fact(harness, HOST, STARTED) == restarted


def test_killed_at_the_event_of_the_edit(harness: Harness) -> None:
    """`provision docker` is killed at its event of daemon.json: written, and the restart stays pending."""
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
    unchanged(harness, "docker", "--limit", HOST, changes=changes)


def test_killed_while_packages_are_installed(harness: Harness) -> None:
    """apt ends by itself and holds the host's lock; the next run continues."""
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
    unchanged(harness, "docker", "--limit", OTHER)


def fails_with(
    harness: Harness, *names: str, words: tuple[str, ...], error: str, changes: Mapping[str, Any] | None = None
) -> None:
    """A run that fails on HOST with this reason and does not change the files, while the other host converges."""
    with untouched(harness, HOST, "/etc/docker", "/etc/gitlab-runner"):
        outcome = provision(harness, *names, changes=changes)
    (one,) = outcome.of("error")
    assert (outcome.code, one["host"], one["error"]) == (1, HOST, error), one
    assert [word for word in words if word not in f"{one['text']} → {one['hint']}"] == []
    assert one["hint"]
    assert set(outcome.statuses(OTHER).values()) <= {"ok", "changed"}


def test_daemon_json_is_no_json(harness: Harness) -> None:
    """A syntax error: file and line are named, nothing is overwritten; once fixed, it succeeds."""
    spoil = f"cp -p {DAEMON} /root/good.json; printf '{{\\n  \"debug\": true,\\n}}\\n' > {DAEMON}"
    with on_host(harness, HOST, spoil, f"mv /root/good.json {DAEMON}"):
        fails_with(
            harness, "docker", words=(f"{DAEMON} line 3", "not JSON", "fix"), error="Refused", changes=size("13m")
        )
    applied(harness, "docker", changes=size("13m"))


def test_daemon_json_that_dockerd_refuses(harness: Harness) -> None:
    """dockerd refuses the inventory's settings on one host: its error, and the old file is active."""
    bad = {"hosts": {HOST: {"docker": {"daemon": {"no-such-key": True}}}}, **size("13m")}
    fails_with(harness, "docker", words=("no-such-key",), error="ChangeFailed", changes=bad)
    assert (wanted(harness), fact(harness, HOST, "systemctl is-active docker")) == ("13m", "active")
    unchanged(harness, "docker", changes=size("13m"))


def test_docker_does_not_come_up(harness: Harness) -> None:
    """dockerd accepts the file but cannot start: the journal's error, and the previous file is active."""
    bad = {"hosts": {HOST: {"docker": {"daemon": {"bip": "198.18.0.0/33"}}}}, **size("13m")}
    outcome = provision(harness, "docker", changes=bad)
    (error,) = outcome.of("error")
    assert (outcome.code, error["host"]) == (1, HOST)
    assert "198.18.0.0/33" in error["text"]
    assert set(outcome.statuses(OTHER).values()) == {"ok"}
    applied(harness, "docker", changes=size("13m"))
    assert fact(harness, HOST, "systemctl is-active docker") == "active"
    unchanged(harness, "docker", changes=size("13m"))


def test_config_toml_is_no_toml(harness: Harness) -> None:
    """A broken config.toml: file and line are named, nothing is overwritten."""
    spoil = f"cp -p {CONFIG} /root/good.toml; printf 'concurrent = 1\\nconcurrent =\\n' > {CONFIG}"
    with on_host(harness, HOST, spoil, f"mv /root/good.toml {CONFIG}"), untouched(harness, HOST, "/etc/gitlab-runner"):
        outcome = provision(harness, "register", "--limit", HOST)
        (error,) = outcome.of("error")
        assert (outcome.code, error["error"]) == (1, "Refused")
        assert CONFIG in error["resource"]
        assert "config.toml is not valid TOML: line 2" in error["text"]
        assert error["hint"]


def test_gitlab_is_not_reached_for_a_registration(harness: Harness) -> None:
    """GitLab does not answer: the error has the reason, config.toml is unchanged."""
    runner = {"name": "late", "executor": "shell", "token": TOKEN}
    with untouched(harness, HOST, CONFIG):
        outcome = provision(harness, "register", "--limit", HOST, changes={"runners": [runner]})
    (error,) = outcome.of("error")
    assert (outcome.code, error["error"]) == (1, "NotReady")
    assert "late" in error["text"]
    assert error["hint"] == "check the name and the host's DNS"
    assert TOKEN not in json.dumps(outcome.events) + outcome.stderr


def test_killed_after_config_toml_was_written(harness: Harness) -> None:
    """Killed at the event of config.toml: the file is whole, and the next run changes nothing."""
    changes = {"runner": {"concurrent": 7}}
    run = Live(harness, "register", "--limit", HOST, changes=changes)
    run.until("change", resource=f"RunnerEntries {CONFIG}")
    run.kill()
    assert tomllib.loads(harness.lab.inside(HOST, f"cat {CONFIG}"))["concurrent"] == 7
    wait_until_free(harness, HOST)
    unchanged(harness, "register", "--limit", HOST, changes=changes)
