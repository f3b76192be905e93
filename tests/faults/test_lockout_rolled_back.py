"""A firewall that would lock SSH out is rolled back, and the run fails with that reason; on port 22 and another one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness
from tests.support.faults import fact
from tests.support.runs import Outcome, applied, provision, twice

HOSTS = ("gitlab", "other")


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """Two hosts with ufw disabled; one has sshd on 2222."""
    return harness_factory(LabHost("gitlab"), LabHost("other", gitlab=True, sshd_port=2222))


def enabled(harness: Harness, host: str) -> bool:
    """Whether ufw is enabled."""
    return fact(harness, host, "ufw status").startswith("Status: active")


def timers(harness: Harness, host: str) -> str:
    """The timers that would roll back."""
    return fact(harness, host, "systemctl list-units --all --no-legend 'provision-guard*'")


@pytest.fixture(scope="module")
def locked_out(harness: Harness) -> Outcome:
    """A run that enables ufw on hosts whose first rule, by others, locks this machine out."""
    for host in HOSTS:
        harness.lab.inside(host, f"ufw insert 1 deny from {harness.lab.gateway} || ufw deny from {harness.lab.gateway}")
    return provision(harness, "firewall")


@pytest.mark.parametrize("host", HOSTS)
def test_the_run_fails_with_the_reason(locked_out: Outcome, host: str) -> None:
    """Exit code 1; the error names the change, the failed login, and that logins work again."""
    assert locked_out.code == 1
    (error,) = locked_out.of("error", host=host)
    assert (error["error"], error["resource"]) == ("ChangeFailed", "Firewall ufw")
    assert "ufw" in error["text"]
    assert "a fresh login failed" in error["text"]
    assert error["text"].endswith("it was rolled back, and logins work again")
    assert "ufw status numbered" in error["hint"]


@pytest.mark.parametrize("host", HOSTS)
def test_access_is_back(harness: Harness, locked_out: Outcome, host: str) -> None:
    """A new login works at once, ufw is disabled, no timer is left; the rule of others is still there."""
    assert locked_out.code == 1
    assert harness.host(host).check_output("id -un") == "root"
    assert not enabled(harness, host)
    assert timers(harness, host) == ""
    assert f"ufw deny from {harness.lab.gateway}" in fact(harness, host, "ufw show added")


def test_once_fixed_it_is_enabled(harness: Harness, locked_out: Outcome) -> None:
    """Without that rule, the run succeeds and the next changes nothing; the connection's port is allowed."""
    assert locked_out.code == 1
    for host in HOSTS:
        harness.lab.inside(host, f"ufw delete deny from {harness.lab.gateway}")
    outcome = twice(harness, "firewall")
    for host, port in zip(HOSTS, ("22/tcp", "2222/tcp"), strict=True):
        assert outcome.changes(host=host) == ["switch ufw on"]
        assert enabled(harness, host)
        assert timers(harness, host) == ""
        assert f"ufw allow {port} comment 'provision: ssh'" in fact(harness, host, "ufw show added").splitlines()
        assert harness.host(host).check_output("id -un") == "root"


def test_another_port_is_not_allowed(harness: Harness, locked_out: Outcome) -> None:
    """Only the port of the connection was allowed: 22 is closed where sshd listens elsewhere."""
    assert locked_out.code == 1
    assert "ufw allow 22/tcp" not in fact(harness, "other", "ufw show added")


def test_removing_the_rule_that_allowed_us(harness: Harness, locked_out: Outcome) -> None:
    """Only our rule before a `deny 22` of others allows this address: its removal is rolled back in place."""
    assert locked_out.code == 1
    gateway = harness.lab.gateway
    ours = {"port": "22/tcp", "from": [gateway]}
    changes = {"hosts": {"gitlab": {"firewall": {"allow": ["80/tcp", "443/tcp", ours]}}}}
    applied(harness, "firewall", changes=changes)
    rule = f"allow from {gateway} to any port 22 proto tcp"
    harness.lab.inside("gitlab", f"ufw insert 1 deny 22; ufw delete {rule}; ufw insert 1 {rule} comment provision")
    before = fact(harness, "gitlab", "ufw status numbered")
    outcome = provision(harness, "firewall")
    assert (outcome.code, outcome.statuses("other")) == (1, {"firewall": "ok"})
    (error,) = outcome.of("error")
    assert f"rule for 22/tcp from {gateway}" in error["text"]
    assert "a fresh login failed" in error["text"]
    assert error["text"].endswith("it was rolled back, and logins work again")
    assert fact(harness, "gitlab", "ufw status numbered") == before
    harness.lab.inside("gitlab", "ufw delete deny 22")
    outcome = twice(harness, "firewall")
    assert outcome.changes() == [f"remove the rule for 22/tcp from {gateway}"]
    assert timers(harness, "gitlab") == ""
