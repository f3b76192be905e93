"""kill -9 of the controller after `ufw enable` locked it out: the host's own timer rolls back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness
from tests.support.faults import Live, fact, wait_until_free
from tests.support.runs import applied, succeeds, twice, unchanged
from tests.support.waiting import wait_for

ON = "ufw status | grep -q '^Status: active'"
HOSTS = ("gitlab", "other")


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """Two hosts on which a run was killed right after ufw was enabled and locked it out."""
    harness = harness_factory(*(LabHost(name, gitlab=True) for name in HOSTS))
    for host in HOSTS:
        harness.lab.inside(host, f"ufw deny from {harness.lab.gateway}")
    run = Live(harness, "firewall")
    for host in HOSTS:
        wait_for(lambda host=host: succeeds(harness, host, ON), f"ufw is on: {host}", 30)  # type: ignore[misc]
    run.kill()
    return harness


def timer(harness: Harness, host: str) -> str:
    """The timer that would roll back."""
    return fact(harness, host, "systemctl list-units --all --no-legend 'provision-guard*'")


def test_a_run_within_the_minute_confirms_it(harness: Harness) -> None:
    """The cause is fixed at once: the next run confirms the enabled ufw, and the timer is gone."""
    harness.lab.inside("other", f"ufw delete deny from {harness.lab.gateway}")
    wait_until_free(harness, "other")
    assert "provision-guard.timer" in timer(harness, "other")
    outcome = applied(harness, "firewall", "--limit", "other")
    assert outcome.changes() == ["keep ufw on, as an interrupted run left it"]
    assert timer(harness, "other") == ""
    unchanged(harness, "firewall", "--limit", "other")


def test_the_timer_rolls_back(harness: Harness) -> None:
    """Without a run, ufw is disabled within 60 s, and logins work again."""
    assert "provision-guard.timer" in timer(harness, "gitlab")
    # A look at the timer takes a tenth of the processor time of one at ufw.
    wait_for(lambda: timer(harness, "gitlab") == "", "nothing is left of the timer", 75)
    assert not succeeds(harness, "gitlab", ON)
    assert harness.host("gitlab").check_output("id -un") == "root"


def test_once_fixed_it_converges(harness: Harness) -> None:
    """Without the rule that locked us out, a run enables ufw, and the next changes nothing on both hosts."""
    harness.lab.inside("gitlab", f"ufw delete deny from {harness.lab.gateway}")
    outcome = twice(harness, "firewall")
    assert outcome.changes(host="gitlab") == ["switch ufw on"]
    assert outcome.changes(host="other") == []
    assert all(succeeds(harness, host, ON) for host in HOSTS)
