"""Twenty hosts register at once: one runner for each.

The hosts are bare. A registration does not need gitlab-runner, and installing twenty of them would take long.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from provision_lab.harness import Harness
from tests.support.gitlab import Server, docker_runner, entries, estate, writes
from tests.support.runs import applied, unchanged

HOSTS = [f"runner-{number:02}" for number in range(1, 21)]


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A GitLab and twenty hosts."""
    harness = estate(harness_factory, *HOSTS, prepared="")
    harness.inventory["runners"] = [docker_runner("builder", tags=["docker"])]
    return harness


@pytest.fixture(scope="module")
def server(harness: Harness) -> Server:
    """The GitLab."""
    return Server(harness)


def test_twenty_hosts_register_at_once(harness: Harness, server: Server) -> None:
    """Twenty runners are created; each host has the token of its own."""
    with server.counted() as seen:
        outcome = applied(harness, "register", "--forks", "20")
    assert writes(seen) == {"POST /user/runners": 20}
    assert outcome.summary["changed"] >= 20
    made = {one["maintenance_note"]: one["token"] for one in server.runners}
    assert made == {f"made by provision for {host}: builder": entries(harness, host)[0]["token"] for host in HOSTS}
    assert len(set(made.values())) == 20


def test_the_next_run_makes_none(harness: Harness, server: Server) -> None:
    """All twenty exist: nothing is changed."""
    with server.counted() as seen:
        unchanged(harness, "register", "--forks", "20")
    assert writes(seen) == {}


def test_a_few_that_are_limited_wait_for_themselves(harness: Harness, server: Server) -> None:
    """A second runner for all while GitLab limits some requests: each host gets exactly one."""
    harness.inventory["runners"] = [*harness.inventory["runners"], docker_runner("second")]
    limit = {"path": "/api/v4/user/runners", "status": 429, "headers": {"Retry-After": "1"}, "times": 5}
    with server.faults(limit):
        applied(harness, "register", "--forks", "20")
    assert len(server.runners) == 40
    assert {len(entries(harness, host)) for host in HOSTS} == {2}


def test_all_leave_at_once(harness: Harness, server: Server) -> None:
    """Removed from the inventory: no runner is left in GitLab or on a host."""
    harness.inventory["runners"] = []
    applied(harness, "register", "--forks", "20")
    assert server.runners == []
    assert [entries(harness, host) for host in HOSTS] == [[]] * 20
