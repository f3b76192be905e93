"""kill -9 of the controller right behind `ufw enable`, with this machine shut out: the host's own timer takes it back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from provision_lab import LabHost
from provision_lab.trial import Trial
from tests.support.faults import Live, fact, wait_until_free
from tests.support.runs import applied, settled, succeeds, twice, wait_for

ON = "ufw status | grep -q '^Status: active'"
HOSTS = ("gitlab", "other")


@pytest.fixture(scope="module")
def trial(trial_factory: Callable[..., Trial]) -> Trial:
    """Two hosts on which a run was killed when ufw had just been switched on, and shut it out."""
    trial = trial_factory(*(LabHost(name, gitlab=True) for name in HOSTS))
    for host in HOSTS:
        trial.lab.inside(host, f"ufw deny from {trial.lab.gateway}")
    run = Live(trial, "firewall")
    for host in HOSTS:
        wait_for(lambda host=host: succeeds(trial, host, ON), f"ufw is on: {host}", 30)  # type: ignore[misc]
    run.kill()
    return trial


def timer(trial: Trial, host: str) -> str:
    """The timer that would take something back."""
    return fact(trial, host, "systemctl list-units --all --no-legend 'provision-guard*'")


def test_a_run_within_the_minute_settles_it(trial: Trial) -> None:
    """Mended at once: the next run sees that ufw is on but not confirmed, confirms it, and the timer is gone."""
    trial.lab.inside("other", f"ufw delete deny from {trial.lab.gateway}")
    wait_until_free(trial, "other")
    assert "provision-guard.timer" in timer(trial, "other")
    outcome = applied(trial, "firewall", "--limit", "other")
    assert outcome.changes() == ["keep ufw on, as an interrupted run left it"]
    assert timer(trial, "other") == ""
    settled(trial, "firewall", "--limit", "other")


def test_the_timer_takes_it_back(trial: Trial) -> None:
    """Nobody came: within 60 s ufw is off, and logins work again."""
    assert "provision-guard.timer" in timer(trial, "gitlab")
    wait_for(lambda: not succeeds(trial, "gitlab", ON), "the timer took it back", 75)
    assert trial.host("gitlab").check_output("id -un") == "root"
    wait_for(lambda: timer(trial, "gitlab") == "", "nothing is left of the timer")


def test_mended_it_converges(trial: Trial) -> None:
    """Without the rule that shut us out a plain run switches it on, and the one after changes nothing on both hosts."""
    trial.lab.inside("gitlab", f"ufw delete deny from {trial.lab.gateway}")
    outcome = twice(trial, "firewall")
    assert outcome.changes(host="gitlab") == ["switch ufw on"]
    assert outcome.changes(host="other") == []
    assert all(succeeds(trial, host, ON) for host in HOSTS)
