"""The task `firewall` on a host with a disabled ufw and rules of others, and on a host with sshd on 2222.

The tests run in order; each starts where the one before ended.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness
from tests.support.runs import applied, provision, twice, unchanged, untouched

OWN, OTHER = "own", "other"
FOREIGN = [
    "ufw allow 9100/tcp comment 'monitoring, ask Anna'",
    "ufw allow 5555/tcp",
    "ufw deny from 203.0.113.9",
    "ufw limit 2022/tcp",
]


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """Two hosts of the GitLab kind."""
    harness = harness_factory(LabHost(OWN, gitlab=True), LabHost(OTHER, gitlab=True, sshd_port=2222))
    set_firewall(harness, enable=False, allow=["80/tcp", "443/tcp"])
    return harness


def set_firewall(harness: Harness, **keys: Any) -> None:
    """Changes [firewall] of both hosts."""
    for host in (OWN, OTHER):
        harness.inventory["hosts"][host]["firewall"].update(keys)


@pytest.fixture(scope="module", autouse=True)
def half_done(harness: Harness) -> None:
    """Rules of others, one of which is the registry's already."""
    harness.lab.inside(OWN, " && ".join(FOREIGN))


def added(harness: Harness, host: str) -> list[str]:
    """ufw's rules, enabled or not."""
    return harness.lab.inside(host, "ufw show added").splitlines()[1:]


def is_on(harness: Harness, host: str) -> bool:
    """Whether ufw filters."""
    return harness.lab.inside(host, "ufw status").startswith("Status: active")


def reaches(harness: Harness, host: str, port: int) -> bool:
    """Whether a connection from the other host passes; the port does not need to answer."""
    there = harness.lab.machine(host).host.address
    probe = f"timeout 2 bash -c 'exec 3<>/dev/tcp/{there}/{port}'; [ $? != 124 ]"
    return harness.lab.ssh(OTHER if host == OWN else OWN, probe).returncode == 0


def test_rules_are_added_and_ufw_stays_off(harness: Harness) -> None:
    """Without firewall.enable, rules are added, ufw stays disabled, and a note says so."""
    outcome = twice(harness, "firewall")
    assert "ufw is off" in outcome.messages()
    assert not is_on(harness, OWN)
    assert not is_on(harness, OTHER)
    assert outcome.changes(host=OWN) == ["allow 22/tcp", "allow 80/tcp", "allow 443/tcp"]
    assert outcome.changes(host=OTHER) == ["allow 2222/tcp", "allow 5555/tcp", "allow 80/tcp", "allow 443/tcp"]


def test_enabled_it_filters_and_allows_logins(harness: Harness) -> None:
    """Each host's sshd port stays open, a new login works, and other ports are closed."""
    set_firewall(harness, enable=True)
    twice(harness, "firewall")
    for host, port in ((OWN, 22), (OTHER, 2222)):
        assert is_on(harness, host)
        assert f"ufw allow {port}/tcp comment 'provision: ssh'" in added(harness, host)
        assert harness.lab.ssh(host, "true").returncode == 0
        assert reaches(harness, host, port)
        assert reaches(harness, host, 5555)
        assert not reaches(harness, host, 8099)
    assert not reaches(harness, OTHER, 22)


def test_rules_of_others_are_unchanged(harness: Harness) -> None:
    """Comments, denials, limits and order of others' rules stay; the registry's rule is not added twice."""
    rules = added(harness, OWN)
    assert rules[:4] == FOREIGN[:1] + FOREIGN[1:]
    assert [rule for rule in rules if "5555" in rule] == ["ufw allow 5555/tcp"]


def test_sources_ranges_and_protocols(harness: Harness) -> None:
    """An address, a network, IPv6, a range, both protocols: written as ufw does, and found again."""
    allow = [
        *("80/tcp", "443/tcp"),
        "6000:6007/udp",
        "1194",
        {"port": "9187/tcp", "from": ["198.18.0.0/15", "203.0.113.7", "2001:db8::/32"]},
    ]
    set_firewall(harness, allow=allow)
    twice(harness, "firewall", "--limit", OWN)
    rules = added(harness, OWN)
    for rule in (
        "allow 6000:6007/udp",
        "allow 1194",
        "allow from 198.18.0.0/15 to any port 9187 proto tcp",
        "allow from 203.0.113.7 to any port 9187 proto tcp",
        "allow from 2001:db8::/32 to any port 9187 proto tcp",
    ):
        assert f"ufw {rule} comment 'provision'" in rules, "\n".join(rules)


def test_dropped_rules_go_and_foreign_ones_stay(harness: Harness) -> None:
    """A rule that the inventory no longer has is removed; 5555, which others had added, stays."""
    set_firewall(harness, allow=["443/tcp"])
    kept = harness.inventory["registry"]
    harness.inventory["registry"] = kept | {"external_url": "https://gitlab.lab.test:5556"}
    twice(harness, "firewall")
    assert added(harness, OWN) == [
        *FOREIGN,
        "ufw allow 22/tcp comment 'provision: ssh'",
        "ufw allow 443/tcp comment 'provision'",
        "ufw allow 5556/tcp comment 'provision: registry'",
    ]
    assert not [rule for rule in added(harness, OTHER) if "5555" in rule or " 80/" in rule]
    harness.inventory["registry"] = kept


def test_a_rule_deleted_by_hand_is_added_again(harness: Harness) -> None:
    """A rule that was deleted by hand is added again, and a disabled ufw is enabled."""
    applied(harness, "firewall")
    harness.lab.inside(OWN, "ufw delete allow 443/tcp; ufw disable")
    outcome = twice(harness, "firewall", "--limit", OWN)
    assert outcome.changes() == ["allow 443/tcp", "switch ufw on"]
    assert is_on(harness, OWN)


def test_half_of_a_rule_is_completed(harness: Harness) -> None:
    """Its IPv6 part is missing: the rule is added again, once."""
    harness.lab.inside(OWN, "sed -i '/443/d' /etc/ufw/user6.rules && ufw reload")
    twice(harness, "firewall", "--limit", OWN)
    rules = harness.lab.inside(OWN, "ufw status")
    assert len(re.findall(r"^443/tcp", rules, re.MULTILINE)) == 2, rules


def test_check_mode_changes_nothing(harness: Harness) -> None:
    """The plan names the changes."""
    with untouched(harness, OWN, "/etc/ufw", "/var/lib/provision"):
        outcome = provision(
            harness,
            "firewall",
            "--check",
            "--limit",
            OWN,
            changes={"hosts": {OWN: {"firewall": {"allow": ["8443/tcp"]}}}},
        )
    assert outcome.changes() == ["allow 8443/tcp", "remove the rule for 443/tcp"]


def test_no_longer_enabled_it_is_left_on(harness: Harness) -> None:
    """With enable = false, ufw is never disabled."""
    set_firewall(harness, enable=False)
    unchanged(harness, "firewall")
    assert is_on(harness, OWN)


def test_from_everywhere_in_one_family(harness: Harness) -> None:
    """ufw writes 0.0.0.0/0 and ::/0 as "any": the second run finds the rules, and each is removed alone."""
    every = [{"port": "9100/tcp", "from": ["0.0.0.0/0"]}, {"port": "9101/tcp", "from": ["::/0"]}]
    set_firewall(harness, allow=["443/tcp", *every, {"port": "9102/tcp", "from": ["0.0.0.0/0", "::/0"]}])
    twice(harness, "firewall", "--limit", OTHER)
    tuples = "grep -h 'tuple.* 91' /etc/ufw/user.rules; echo; grep -h 'tuple.* 91' /etc/ufw/user6.rules"
    four, six = harness.lab.inside(OTHER, tuples).split("\n\n")
    assert [line.split()[5] for line in four.splitlines()] == ["9100", "9102"]
    assert [line.split()[5] for line in six.splitlines()] == ["9101", "9102"]
    set_firewall(harness, allow=["443/tcp", {"port": "9102/tcp", "from": ["::/0"]}])
    twice(harness, "firewall", "--limit", OTHER)
    four, _, six = harness.lab.inside(OTHER, tuples).partition("\n")
    assert (four, [line.split()[5] for line in six.splitlines()]) == ("", ["9102"])


def test_ssh_from_one_network(harness: Harness) -> None:
    """Only the administrators' network, which contains this machine, may connect: port 2222 is not opened to others."""
    network = f"{harness.lab.gateway.rpartition('.')[0]}.0/24"
    rules = [f"ufw allow from {network} to any port 2222 proto tcp", "ufw deny 2222/tcp"]
    harness.lab.inside(OTHER, "; ".join(["ufw --force reset", *rules]))
    set_firewall(harness, enable=True, allow=[])
    outcome = twice(harness, "firewall", "--limit", OTHER)
    assert outcome.changes() == ["allow 5555/tcp", "switch ufw on"]
    assert added(harness, OTHER)[:2] == rules
    assert is_on(harness, OTHER)
    assert harness.lab.ssh(OTHER, "true").returncode == 0
