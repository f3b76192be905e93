"""kill -9 of the controller, or of the connection, around GitLab's reconfigure: it runs exactly once, by the next run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness
from tests.support.faults import Gate, Live, pending, wait_until_free, with_playbooks, zone, zone_in_force
from tests.support.runs import applied, provision, reconfigures, succeeds, unchanged, without_s3
from tests.support.waiting import wait_for

LOCK = "/opt/gitlab/embedded/cookbooks/cache/cinc-client-running.pid"
JOB = "/var/lib/provision/job/reconfigure"
Tables = Mapping[str, Any]


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A converged GitLab host."""
    return without_s3(with_playbooks(harness_factory(LabHost("gitlab", prepared="server"))))


def next_run_reconfigures_once(harness: Harness, before: int, changes: Tables, *names: str) -> None:
    """The next run reconfigures (or continues a started one), once in total; the one after changes nothing."""
    outcome = applied(harness, *names, changes=changes)
    assert outcome.changes() == ["reconfigure GitLab"]
    assert reconfigures(harness) == before + 1
    assert pending(harness, "gitlab") == []
    unchanged(harness, *names, changes=changes)
    assert reconfigures(harness) == before + 1
    assert not succeeds(harness, "gitlab", f"test -e {JOB} || test -e /var/lib/provision/rollback")


@contextmanager
def another_reconfigure(harness: Harness) -> Iterator[None]:
    """A reconfigure by others: ours waits for it, as gitlab-ctl does."""
    holder = harness.lab.inside("gitlab", f"setsid flock {LOCK} sleep 600 >/dev/null 2>&1 </dev/null & echo $!").strip()
    wait_for(lambda: not succeeds(harness, "gitlab", f"flock -n {LOCK} true"), "the lock is held")
    yield
    harness.lab.inside("gitlab", f"pkill -P {holder}; kill {holder} 2>/dev/null; true")


def waits(harness: Harness) -> bool:
    """Whether our reconfigure has started and waits."""
    return succeeds(harness, "gitlab", f"grep -q 'waiting until another reconfigure ends' {JOB}/out")


def is_done(harness: Harness) -> bool:
    """Whether our reconfigure has ended and no run has read its result."""
    return succeeds(harness, "gitlab", f"test -e {JOB}/done")


def test_killed_between_edit_and_reconfigure(harness: Harness) -> None:
    """gitlab.rb is written, the controller is killed: the reconfigure is pending and runs once."""
    before, changes = reconfigures(harness), zone("Berlin")
    gate = Gate(harness, "gitlab")
    run = Live(harness, "paused", changes=changes)
    gate.wait()
    run.kill()
    assert (zone_in_force(harness), pending(harness, "gitlab"), reconfigures(harness)) == (
        "Berlin",
        ["reconfigure"],
        before,
    )
    gate.open()
    wait_until_free(harness, "gitlab")
    assert reconfigures(harness) == before
    next_run_reconfigures_once(harness, before, changes, "server")


def test_killed_at_the_event_of_the_edit(harness: Harness) -> None:
    """`provision server` is killed at its event of gitlab.rb."""
    before, changes = reconfigures(harness), zone("Paris")
    with another_reconfigure(
        harness
    ):  # so that ours has not ended before the signal arrives, be the machine ever so busy
        run = Live(harness, "server", changes=changes)
        run.until("change", resource="RubySettings /etc/gitlab/gitlab.rb")
        run.kill()
        assert (zone_in_force(harness), pending(harness, "gitlab")) == ("Paris", ["reconfigure"])
        wait_until_free(harness, "gitlab")
    next_run_reconfigures_once(harness, before, changes, "server")


def test_single_tasks_run_pending_handlers_too(harness: Harness) -> None:
    """After the kill, `provision registry`, which edits nothing, reconfigures."""
    before, changes = reconfigures(harness), zone("Rome")
    gate = Gate(harness, "gitlab")
    run = Live(harness, "paused", changes=changes)
    gate.wait()
    run.kill()
    gate.open()
    wait_until_free(harness, "gitlab")
    check = provision(harness, "registry", "--check", changes=changes)
    assert (check.code, check.changes(), reconfigures(harness)) == (0, ["reconfigure GitLab"], before)
    next_run_reconfigures_once(harness, before, changes, "registry")


def test_killed_during_the_reconfigure(harness: Harness) -> None:
    """The reconfigure continues; the next run uses its result and starts none."""
    before, changes = reconfigures(harness), zone("Madrid")
    with another_reconfigure(harness):
        run = Live(harness, "server", changes=changes)
        wait_for(lambda: waits(harness), "our reconfigure waits", 60)
        run.kill()
        wait_until_free(harness, "gitlab")
        assert reconfigures(harness) == before
    wait_for(lambda: is_done(harness), "our reconfigure ends by itself", 60)
    assert reconfigures(harness) == before + 1
    next_run_reconfigures_once(harness, before, changes, "server")


def test_the_next_run_waits_for_it(harness: Harness) -> None:
    """The next run comes while it still runs: it waits for it and starts none."""
    before, changes = reconfigures(harness), zone("Lisbon")
    with another_reconfigure(harness):
        run = Live(harness, "server", changes=changes)
        wait_for(lambda: waits(harness), "our reconfigure waits", 60)
        run.kill()
        wait_until_free(harness, "gitlab")
        second = Live(harness, "server", changes=changes)
        wait_for(lambda: follows(harness), "the second run follows it", 60)
    outcome = second.end()
    assert (outcome.code, outcome.changes(), outcome.summary["changed"]) == (0, ["reconfigure GitLab"], 1)
    assert reconfigures(harness) == before + 1
    unchanged(harness, "server", changes=changes)


def follows(harness: Harness) -> bool:
    """Whether a run reads the output of a reconfigure on the host."""
    return succeeds(harness, "gitlab", f"pgrep -f '^tail .*{JOB}/out'")


def test_an_edit_after_it_began_is_not_considered_done(harness: Harness) -> None:
    """The inventory has changed since a killed run's reconfigure started: its result does not count."""
    before = reconfigures(harness)
    with another_reconfigure(harness):
        run = Live(harness, "server", changes=zone("Vienna"))
        wait_for(lambda: waits(harness), "our reconfigure waits", 60)
        run.kill()
        wait_until_free(harness, "gitlab")
        second = Live(harness, "server", changes=zone("Prague"))
        second.until("change", resource="RubySettings /etc/gitlab/gitlab.rb")
    outcome = second.end()
    assert (outcome.code, outcome.changes()[-1], zone_in_force(harness)) == (0, "reconfigure GitLab", "Prague"), (
        outcome.errors
    )
    assert reconfigures(harness) == before + 2
    unchanged(harness, "server", changes=zone("Prague"))


def test_the_connection_breaks_during_the_reconfigure(harness: Harness) -> None:
    """sshd's session is killed: exit code 4, the message names the next run; the reconfigure ends by itself."""
    before, changes = reconfigures(harness), zone("Athens")
    with another_reconfigure(harness):
        run = Live(harness, "server", changes=changes)
        wait_for(lambda: waits(harness), "our reconfigure waits", 60)
        harness.lab.inside("gitlab", "pkill -9 -f '^sshd-session: ubuntu'")
        outcome = run.end()
        (error,) = outcome.of("error")
        assert (outcome.code, error["error"], error["task"]) == (4, "ConnectionLost", "registry")
        assert error["hint"]
        wait_until_free(harness, "gitlab")
    wait_for(lambda: is_done(harness), "our reconfigure ends by itself", 60)
    next_run_reconfigures_once(harness, before, changes, "server")


def test_a_failure_without_a_connection(harness: Harness) -> None:
    """It fails without a connection and rolls back; the next run starts again."""
    before, now, changes = reconfigures(harness), zone_in_force(harness), zone("Dublin")
    harness.lab.inside("gitlab", "echo 'no such database' > /etc/gitlab-standin/fail-next-reconfigure")
    with another_reconfigure(harness):
        run = Live(harness, "server", changes=changes)
        wait_for(lambda: waits(harness), "our reconfigure waits", 60)
        run.kill()
        wait_until_free(harness, "gitlab")
    wait_for(lambda: is_done(harness), "our reconfigure ends by itself", 60)
    assert (zone_in_force(harness), pending(harness, "gitlab"), reconfigures(harness)) == (now, [], before + 2)
    outcome = applied(harness, "server", changes=changes)
    assert (outcome.changes()[-1], zone_in_force(harness), reconfigures(harness)) == (
        "reconfigure GitLab",
        "Dublin",
        before + 3,
    )
    unchanged(harness, "server", changes=changes)


def test_a_failed_rollback_is_reported_by_the_next_run(harness: Harness) -> None:
    """It and its rollback fail without a connection: it stays pending; the next run reports why, the one after succeeds."""
    changes, before = zone("Oslo"), zone_in_force(harness)
    fail = "cd /etc/gitlab-standin && echo 'no such database' > fail-next-reconfigure"
    with another_reconfigure(harness):
        run = Live(harness, "server", changes=changes)
        wait_for(lambda: waits(harness), "our reconfigure waits", 60)
        run.kill()
        wait_until_free(harness, "gitlab")
        harness.lab.inside("gitlab", f"{fail}; echo 'file /nowhere is gone' > fail-next-reconfigure-late")
    wait_for(lambda: is_done(harness), "our reconfigure ends by itself", 60)
    assert (zone_in_force(harness), pending(harness, "gitlab")) == (before, ["reconfigure"])
    outcome = provision(harness, "server", changes=zone(before))
    assert (outcome.code, outcome.of("error")[0]["resource"]) == (1, "reconfigure")
    assert "no such database" in outcome.errors
    assert "cannot be reconfigured with it either" in outcome.errors
    assert "file /nowhere is gone" in outcome.errors
    applied(harness, "server", changes=changes)
    assert zone_in_force(harness) == "Oslo"
    unchanged(harness, "server", changes=changes)
