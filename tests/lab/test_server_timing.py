"""The cost of `provision server`: one reconfigure for any number of changes, few round trips for none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness
from provision_lab.proxy import Proxy
from tests.support.runs import applied, reconfigures, unchanged, without_s3


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A GitLab host that is converged."""
    return without_s3(harness_factory(LabHost("gitlab", prepared="server")))


def keys(count: int, value: str) -> Mapping[str, Any]:
    """The inventory with that many more settings."""
    return {"gitlab": {"settings": {"gitlab_rails": {f"setting_{number}": value for number in range(count)}}}}


@pytest.mark.parametrize("count", [1, 30])
def test_one_reconfigure_whatever_is_set(harness: Harness, count: int) -> None:
    """1 or 30 keys: one edit and one reconfigure to add, to change and to remove them."""
    for wanted in (keys(count, "a"), keys(count, "b"), {}):
        before = reconfigures(harness)
        outcome = applied(harness, "server", changes=wanted)
        assert [one.partition(" ")[0] for one in outcome.changes()] == ["set", "reconfigure"], outcome.changes()
        assert reconfigures(harness) == before + 1
        unchanged(harness, "server", changes=wanted)


def test_two_tasks_edit_and_one_reconfigure_follows(harness: Harness) -> None:
    """GitLab's settings and the registry's port change: two edits, one reconfigure."""
    before = reconfigures(harness)
    changes = {**keys(3, "c"), "registry": {"external_url": "https://gitlab.lab.test:5556"}}
    outcome = applied(harness, "server", changes=changes)
    assert sum(one.startswith("set ") for one in outcome.changes()) == 2
    assert reconfigures(harness) == before + 1
    unchanged(harness, "server", changes=changes)
    applied(harness, "server")


def test_round_trips_when_nothing_is_to_do(harness: Harness) -> None:
    """At most 9 with the connection, counted by a proxy; the run reports the same number."""
    unchanged(harness, "server")
    # Where a busy machine pauses us between two packets of one message, an answer slips in, and is counted.
    assert min(cold_round_trips(harness) for _ in range(3)) <= 9


def cold_round_trips(harness: Harness) -> int:
    """The round trips of a run without changes, counted by a proxy."""
    host = harness.lab.machine("gitlab").host
    with Proxy(host.address, host.sshd_port, round_trip=0.05) as proxy:
        key = harness.lab.host_keys["gitlab"].split()
        line = f"[{proxy.address}]:{proxy.port} {key[0]} {key[1]}\n"
        known = harness.folder / "known"
        known.write_text(line)
        table = {"address": proxy.address, "ssh": {"port": proxy.port, "known_hosts": str(known)}}
        changes = {"hosts": {"gitlab": table}}
        outcome = unchanged(harness, "server", changes=changes)
        assert proxy.connections == 1
        assert 0 < outcome.summary["hosts"]["gitlab"]["round_trips"] <= 9
        return proxy.round_trips
