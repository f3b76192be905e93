"""Hosts as they are: the main job, a single task, and a run that changes nothing, on each.

All rows are in one inventory, and each step is one run. Hosts with IPv6 only are in test_ipv6_only.py.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness
from provision_lab.run import run
from tests.support.faults import Live, dpkg_held
from tests.support.runs import Outcome, applied, strays, succeeds, unchanged
from tests.support.waiting import wait_for

# Traits that do not touch each other share a host: each host installs Docker.
SMALL_DISK, ENOUGH_DISK = 160, 2000  # MiB
HOSTS = {
    "gitlab": LabHost("gitlab", traits=("bare", "use-pty", "umask", "noexec-tmp", "noisy", "nameless")),
    "plain": LabHost("plain", traits=("bare",)),
    "strict": LabHost("strict", sudo="password", traits=("use-pty", "umask", "noexec-tmp", "noisy")),
    "fish": LabHost("fish", disk_mb=SMALL_DISK, traits=("fish", "nameless")),
    "csh": LabHost("csh", traits=("csh", "clock-behind")),
}
ROWS = {
    "no curl, gpg, git, ufw, openssl, CAs": "plain",
    "unattended-upgrades holds apt": "plain",
    "sudo with use_pty and a password": "strict",
    "umask 077": "strict",
    "noexec /tmp": "strict",
    "noisy .bashrc and banner": "strict",
    "fish": "fish",
    "nameless": "fish",
    "low disk": "fish",
    "csh": "csh",
    "clock behind": "csh",
}
FIXED_LATER = {"low disk": "the disk is full", "clock behind": "check the host's clock"}  # what the first run reports
MAIN = ["docker", "runner", "register", "verify", "deploy"]
TOOLS = ("curl", "gpg", "git", "ufw", "openssl")


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """The hosts, one of which has none of the tools."""
    harness = harness_factory(*HOSTS.values())
    there = f"for tool in {' '.join(TOOLS)}; do command -v $tool; done; ls -d /etc/ssl/certs/* 2>/dev/null; true"
    assert harness.lab.inside("plain", there) == ""
    harness.inventory["hosts"]["plain"]["firewall"] = {"enable": True}
    return harness


def tasks_of(host: str) -> list[str]:
    """The tasks of the main job on a runner host: with the firewall where the host has a [firewall]."""
    return ["firewall", *MAIN] if host == "plain" else MAIN


@pytest.fixture(scope="module")
def first(harness: Harness) -> Outcome:
    """`all`, while another package manager holds one host's apt until the run waits for it."""
    with dpkg_held(harness, "plain"):
        live = Live(harness, "all")
        waits = "pgrep -x sleep"  # between two looks at the lock
        wait_for(lambda: succeeds(harness, "plain", waits), "the run waits for apt", 240)
    return live.end()


@pytest.fixture(scope="module")
def fixed(harness: Harness, first: Outcome) -> Outcome:
    """`all` again, after one host got a larger disk, and another one the right time."""
    assert first.code == 1, first.errors
    run("mount", "-o", f"remount,size={ENOUGH_DISK}m", harness.lab.machine("fish").folder / "disk")
    harness.lab.inside("csh", "cd /usr/lib/provision-lab && for name in *; do mv $name /usr/bin/$name; done")
    return applied(harness, "all")


@pytest.fixture(scope="module")
def single(harness: Harness, fixed: Outcome) -> Outcome:
    """Single tasks: one setting of GitLab, one of the runner."""
    assert fixed.code == 0
    harness.inventory["runner"]["concurrent"] = 3
    harness.inventory["gitlab"]["settings"]["gitlab_rails"]["time_zone"] = "Europe/Lisbon"
    return applied(harness, "gitlab", "register")


@pytest.fixture(scope="module")
def again(harness: Harness, single: Outcome) -> Outcome:
    """A run that changes nothing."""
    assert single.code == 0
    return unchanged(harness, "all")


@pytest.mark.parametrize("row", FIXED_LATER)
def test_a_condition_of_the_host_is_named(first: Outcome, row: str) -> None:
    """One error, with what to do, before Docker is installed; the other hosts finish in the same run."""
    (error,) = first.of("error", host=ROWS[row])
    assert (error["task"], error["error"]) == ("docker", "ChangeFailed")
    assert FIXED_LATER[row] in error["hint"], error
    assert first.statuses(ROWS[row]) == {"docker": "failed"} | dict.fromkeys(MAIN[1:], "skipped")
    assert first.summary["failed"] == len(FIXED_LATER)


def test_the_gitlab_host(first: Outcome, harness: Harness) -> None:
    """GitLab and its registry, on a host with all traits that can be had together."""
    assert first.statuses("gitlab") == {**dict.fromkeys(["firewall", "gitlab", "certificates", "registry"], "changed")}
    assert harness.lab.inside("gitlab", "stat -c %a /etc/gitlab/gitlab.rb") == "600\n"
    modes = harness.lab.inside(
        "gitlab", "stat -c %a /etc/apt/keyrings /etc/apt/keyrings/*.asc /etc/apt/sources.list.d/*"
    )
    assert set(modes.split()) == {"755", "644"}
    assert strays(harness, "gitlab") == []


@pytest.mark.parametrize("row", ROWS)
def test_the_main_job(first: Outcome, fixed: Outcome, harness: Harness, row: str) -> None:
    """From the first contact to Docker, a registered runner, and an image that is pushed and pulled."""
    host = ROWS[row]
    done = fixed if host in [ROWS[name] for name in FIXED_LATER] else first
    statuses = done.statuses(host)
    assert list(statuses) == tasks_of(host)
    assert set(statuses.values()) <= {"ok", "changed"}
    assert any("verify push and pull" in one["text"] for one in done.of("message", task="verify", host=host))
    assert harness.lab.inside(host, "systemctl is-active docker gitlab-runner").split() == ["active", "active"]
    assert strays(harness, host) == []


@pytest.mark.parametrize("row", ROWS)
def test_a_single_task(single: Outcome, harness: Harness, row: str) -> None:
    """One setting of the runner: one change."""
    assert single.statuses(ROWS[row]) == {"register": "changed"}
    assert "concurrent = 3" in harness.lab.inside(ROWS[row], "cat /etc/gitlab-runner/config.toml")


def test_a_single_task_on_the_gitlab_host(single: Outcome, harness: Harness) -> None:
    """One setting of gitlab.rb."""
    assert single.statuses("gitlab") == {"gitlab": "changed"}
    assert "Europe/Lisbon" in harness.lab.inside("gitlab", "cat /etc/gitlab/gitlab.rb")


@pytest.mark.parametrize("row", ROWS)
def test_the_last_run_changes_nothing(again: Outcome, row: str) -> None:
    """Every task of the row is ok, within 9 round trips; nothing is reported."""
    assert again.statuses(ROWS[row]) == dict.fromkeys(tasks_of(ROWS[row]), "ok")
    assert again.summary["hosts"][ROWS[row]]["round_trips"] <= 9
    assert again.of("message", host=ROWS[row]) == []


def test_a_runner_host_has_its_firewall(again: Outcome, harness: Harness) -> None:
    """Only SSH comes in, and the registry was reached all the same."""
    assert again.code == 0
    status = harness.lab.inside("plain", "ufw status")
    assert status.startswith("Status: active")
    assert [line.split()[0] for line in status.splitlines() if "ALLOW" in line] == ["22/tcp", "22/tcp"]
