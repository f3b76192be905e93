"""The task `runner` on a bare host, on one with the distribution's old gitlab-runner, and on one with Ubuntu's os-release.

The tests run in order; each starts where the one before ended.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness
from tests.support.labs import release
from tests.support.runs import applied, refused, twice, unchanged, untouched, without_registry

BARE, OLD, UBUNTU = "bare", "old", "ubuntu"
PAIR = ("gitlab-runner", "gitlab-runner-helper-images")


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """Three hosts; apt on each offers the distribution's gitlab-runner 11.2.0."""
    return without_registry(harness_factory(LabHost(BARE), LabHost(OLD), LabHost(UBUNTU, ubuntu=True)))


@pytest.fixture(scope="module", autouse=True)
def half_done(harness: Harness) -> None:
    """Installs the distribution's package."""
    harness.lab.inside(OLD, "apt-get update -q && apt-get install -qy gitlab-runner")
    assert versions(harness, OLD) == ["11.2.0+dfsg-2"]


def versions(harness: Harness, host: str) -> list[str]:
    """The installed versions of the runner and its helper images."""
    return harness.lab.inside(host, f"dpkg-query -W -f '${{Version}}\\n' {' '.join(PAIR)} 2>/dev/null || :").split()


def pid(harness: Harness, host: str) -> str:
    """The service's process."""
    return harness.lab.inside(host, "systemctl show gitlab-runner -p MainPID --value").strip()


def test_a_repository_that_apt_cannot_trust_installs_nothing(harness: Harness) -> None:
    """With another's key: apt's error, and the distribution's 11.2.0 is not installed instead."""
    wrong = harness.inventory["apt"]["docker"]["key"]
    outcome = refused(harness, "runner", "--limit", BARE, changes={"apt": {"runner": {"key": wrong}}})
    assert "NO_PUBKEY" in outcome.errors or "is not signed" in outcome.errors
    assert versions(harness, BARE) == []


def test_a_repository_without_it_installs_nothing(harness: Harness) -> None:
    """A mirror of something else: its address is in the error, and 11.2.0 is not installed."""
    docker = harness.inventory["apt"]["docker"] | {"suite": release(harness.lab, BARE)[1]}
    table = {"apt": {"runner": docker}, "runner": {"version": "11.*"}}
    outcome = refused(harness, "runner", "--limit", BARE, changes=table)
    assert "gitlab-runner is offered as: 11.2.0+dfsg-2" in outcome.errors
    assert versions(harness, BARE) == []


def test_a_mirror_that_does_not_answer_is_named(harness: Harness) -> None:
    """apt's error with the address; nothing is installed."""
    nowhere = f"{harness.lab.apt_url}/nowhere"
    outcome = refused(harness, "runner", "--limit", BARE, changes={"apt": {"runner": {"url": nowhere}}})
    assert nowhere in outcome.errors
    assert versions(harness, BARE) == []


def test_every_host_gets_gitlabs_own_runner(harness: Harness) -> None:
    """After the failures: runner and helper images of one version, running; a second run changes nothing."""
    outcome = applied(harness, "runner")
    assert [outcome.statuses(host) for host in (BARE, OLD, UBUNTU)] == [{"runner": "changed"}] * 3
    unchanged(harness, "runner")
    for host in (BARE, OLD, UBUNTU):
        assert versions(harness, host) == ["19.3.0-1", "19.3.0-1"]
        there = harness.host(host)
        assert there.service("gitlab-runner").is_running
        assert there.service("gitlab-runner").is_enabled
        assert "Version:      19.3.0" in there.check_output("gitlab-runner --version")
        assert there.file("/etc/gitlab-runner").mode == 0o700


@pytest.mark.parametrize("host", [OLD, UBUNTU])
def test_it_comes_from_gitlabs_repository(harness: Harness, host: str) -> None:
    """From the repository of the host's system, which has the highest priority; 11.2.0 is still offered."""
    system, suite = release(harness.lab, host)
    assert host != UBUNTU or system == "ubuntu"
    policy = harness.host(host).check_output("apt-cache policy gitlab-runner")
    assert f"*** 19.3.0-1 1001\n        500 {harness.lab.apt_url}/runner/gitlab-runner/{system} {suite}/main" in policy
    assert "11.2.0+dfsg-2" in policy
    assert harness.host(host).file("/etc/apt/keyrings/gitlab-runner.asc").mode == 0o644


def test_no_images_were_pruned(harness: Harness) -> None:
    """The package would prune Docker's images during its installation; this is disabled."""
    for host in (BARE, OLD, UBUNTU):
        assert not harness.host(host).file("/var/log/gitlab-runner-docker-prune.log").exists


def test_a_pin_moves_both_and_holds_them(harness: Harness) -> None:
    """Both packages get the older version in one step, and apt does not upgrade them."""
    pinned = {"runner": {"version": "19.2.0"}}
    twice(harness, "runner", "--limit", BARE, changes=pinned)
    assert versions(harness, BARE) == ["19.2.0-1", "19.2.0-1"]
    assert set(harness.host(BARE).check_output("apt-mark showhold").split()) == set(PAIR)
    assert harness.host(BARE).service("gitlab-runner").is_running
    assert versions(harness, UBUNTU) == ["19.3.0-1", "19.3.0-1"]


def test_another_pin_moves_what_is_held(harness: Harness) -> None:
    """Upgraded and held again; the configuration is unchanged."""
    harness.lab.inside(BARE, "printf 'concurrent = 7 # mine\\n' > /etc/gitlab-runner/config.toml")
    with untouched(harness, BARE, "/etc/gitlab-runner/config.toml"):
        twice(harness, "runner", "--limit", BARE, changes={"runner": {"version": "19.3.0"}})
    assert versions(harness, BARE) == ["19.3.0-1", "19.3.0-1"]
    assert set(harness.host(BARE).check_output("apt-mark showhold").split()) == set(PAIR)


def test_a_version_that_is_nowhere_changes_nothing(harness: Harness) -> None:
    """The version is named, both packages stay, the service keeps running."""
    before = pid(harness, BARE)
    outcome = refused(harness, "runner", "--limit", BARE, changes={"runner": {"version": "20.1.0"}})
    assert "Version '20.1.0-*' for 'gitlab-runner' was not found" in outcome.errors
    assert "gitlab-runner is offered as: 19.3.0-1, 19.2.0-1, 11.2.0+dfsg-2" in outcome.errors
    assert versions(harness, BARE) == ["19.3.0-1", "19.3.0-1"]
    assert pid(harness, BARE) == before


def test_the_hold_goes_with_the_pin(harness: Harness) -> None:
    """Without a version in the inventory, both stay at theirs and are unheld."""
    outcome = twice(harness, "runner", "--limit", BARE)
    assert outcome.changes() == ["unhold gitlab-runner, gitlab-runner-helper-images"]
    assert harness.host(BARE).check_output("apt-mark showhold") == ""
    assert versions(harness, BARE) == ["19.3.0-1", "19.3.0-1"]


def test_nothing_to_do_restarts_nothing(harness: Harness) -> None:
    """A run without changes does not restart the service."""
    before = pid(harness, OLD)
    unchanged(harness, "runner")
    assert pid(harness, OLD) == before


def test_what_was_undone_by_hand_is_brought_back(harness: Harness) -> None:
    """A stopped and disabled service, a key that apt cannot read, a removed pin file."""
    harness.lab.inside(
        OLD,
        "systemctl disable --now gitlab-runner; chmod 600 /etc/apt/keyrings/gitlab-runner.asc; "
        "rm /etc/apt/preferences.d/gitlab-runner.pref",
    )
    outcome = twice(harness, "runner", "--limit", OLD)
    assert outcome.changes() == [
        "set /etc/apt/keyrings/gitlab-runner.asc to 0644 root:root (was 0600 root:root)",
        "create /etc/apt/preferences.d/gitlab-runner.pref",
        "enable gitlab-runner at boot",
        "start gitlab-runner",
    ]
    assert harness.host(OLD).service("gitlab-runner").is_running


def test_a_missing_half_is_completed(harness: Harness) -> None:
    """The helper images were removed by force: the next run installs them again."""
    harness.lab.inside(OLD, "dpkg --remove --force-depends gitlab-runner-helper-images")
    twice(harness, "runner", "--limit", OLD)
    assert versions(harness, OLD) == ["19.3.0-1", "19.3.0-1"]
    assert "0 not upgraded" in harness.lab.inside(OLD, "apt-get check -q && apt-get -s upgrade")


def test_a_masked_service_is_somebodys_decision(harness: Harness) -> None:
    """systemctl refuses to start it: its error, exit code 1, and it stays masked."""
    harness.lab.inside(
        UBUNTU,
        "systemctl stop gitlab-runner; mv /etc/systemd/system/gitlab-runner.service /root; systemctl mask gitlab-runner",
    )
    outcome = refused(harness, "runner", "--limit", UBUNTU)
    assert "masked" in outcome.errors
    harness.lab.inside(
        UBUNTU,
        "systemctl unmask gitlab-runner; mv /root/gitlab-runner.service /etc/systemd/system/; systemctl daemon-reload",
    )
    twice(harness, "runner", "--limit", UBUNTU)
