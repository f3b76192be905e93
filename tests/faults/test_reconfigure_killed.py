"""kill -9 at each step between an edit of gitlab.rb and the health check: of the controller, or of everything."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness
from tests.support.faults import Live, fact, pending, wait_until_free, zone, zone_in_force
from tests.support.holding import POINTS, can_be_held, hold, kill_all
from tests.support.runs import applied, reconfigures, succeeds, unchanged, without_s3
from tests.support.waiting import wait_for

JOB = "/var/lib/provision/job/reconfigure"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A converged GitLab host on which a run can be paused."""
    harness = without_s3(harness_factory(LabHost("gitlab", prepared="server")))
    can_be_held(harness)
    return harness


def content(harness: Harness) -> str:
    """gitlab.rb without the time zone's value."""
    return fact(
        harness, "gitlab", "sed \"s/^\\(gitlab_rails.'time_zone'. = \\).*/\\1/\" /etc/gitlab/gitlab.rb | sha256sum"
    )


def converges(harness: Harness, name: str, *, at_most: int, before: int) -> None:
    """A run converges, the next changes nothing, and nothing of the killed run is left."""
    applied(harness, "server", changes=zone(name))
    assert zone_in_force(harness) == name
    assert before < reconfigures(harness) <= before + at_most
    unchanged(harness, "server", changes=zone(name))
    left = "ls -d /etc/gitlab/.gitlab.rb.* /etc/gitlab/*.new /run/provision-* /var/lib/provision/* 2>/dev/null; true"
    assert fact(harness, "gitlab", left).split() == ["/var/lib/provision/backup", "/var/lib/provision/state.json"]


@pytest.mark.parametrize("point", POINTS)
def test_the_controller_is_killed(harness: Harness, point: str) -> None:
    """The host finishes its step; one reconfigure in total, by the next run if it had not begun."""
    before, name, old, rest = reconfigures(harness), f"Zone/{next(_numbers)}", zone_in_force(harness), content(harness)
    gate = hold(harness, point)
    run = Live(harness, "server", changes=zone(name))
    gate.wait()
    run.kill()
    assert zone_in_force(harness) == (old if point == "write" else name)
    gate.open()
    wait_until_free(harness, "gitlab")
    assert (zone_in_force(harness), content(harness)) == (name, rest)
    if point != "write":
        wait_for(lambda: succeeds(harness, "gitlab", f"test -e {JOB}/done"), "it ends by itself", 60)
        assert reconfigures(harness) == before + 1
    converges(harness, name, at_most=1, before=before)


@pytest.mark.parametrize("point", POINTS)
def test_all_is_killed(harness: Harness, point: str) -> None:
    """Controller and step are killed: gitlab.rb is the whole old or new one; the next run reconfigures again."""
    before, name, old, rest = reconfigures(harness), f"Zone/{next(_numbers)}", zone_in_force(harness), content(harness)
    gate = hold(harness, point)
    run = Live(harness, "server", changes=zone(name))
    gate.wait()
    run.kill()
    kill_all(harness)
    wait_until_free(harness, "gitlab")
    assert (zone_in_force(harness), content(harness)) == (old if point == "write" else name, rest)
    assert pending(harness, "gitlab") == ["reconfigure"]
    assert succeeds(harness, "gitlab", "ruby -c /etc/gitlab/gitlab.rb")
    converges(harness, name, at_most=2 if point == "health" else 1, before=before)


def test_cut_short_and_then_unreadable(harness: Harness) -> None:
    """A reconfigure was killed and the file broken since: the backup of before both is restored and active."""
    before, name, old = reconfigures(harness), f"Zone/{next(_numbers)}", zone_in_force(harness)
    gate = hold(harness, "health")
    run = Live(harness, "server", changes=zone(name))
    gate.wait()
    run.kill()
    kill_all(harness)
    wait_until_free(harness, "gitlab")
    harness.lab.inside("gitlab", "echo \"raise 'the vault is sealed'\" >> /etc/gitlab/gitlab.rb")
    outcome = Live(harness, "registry", changes=zone(name)).end()
    assert (outcome.code, "the vault is sealed" in outcome.errors) == (1, True), outcome.errors
    assert "rolled back to the previous " in outcome.errors
    assert (zone_in_force(harness), pending(harness, "gitlab"), reconfigures(harness)) == (old, [], before + 2)
    converges(harness, name, at_most=3, before=before)
