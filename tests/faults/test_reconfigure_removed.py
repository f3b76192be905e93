"""Settings that the installed GitLab has removed are named before anything changes, because they abort a reconfigure."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness
from tests.support.faults import gitlab_settings, on_host, pending
from tests.support.runs import applied, reconfigures, refused, succeeds, unchanged, untouched, without_s3

RB = "/etc/gitlab/gitlab.rb"
KEPT = ("/etc/gitlab", "/var/lib/provision", "/var/opt/gitlab")


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A converged GitLab 19.3."""
    return without_s3(harness_factory(LabHost("gitlab", prepared="server")))


def test_somebodys_removed_setting(harness: Harness) -> None:
    """A setting of an older version in gitlab.rb: line, name and version are named; once removed, the run succeeds."""
    before, changes = reconfigures(harness), gitlab_settings(gitlab_rails={"time_zone": "Rome"})
    line = "spamcheck['enable'] = false"
    with (
        on_host(harness, "gitlab", f'echo "{line}" >> {RB}', f"sed -i '/^spamcheck/d' {RB}"),
        untouched(harness, "gitlab", *KEPT),
    ):
        outcome = refused(harness, "server", changes=changes)
        (error,) = outcome.of("error")
        assert (error["error"], error["task"]) == ("Refused", "gitlab")
        assert "GitLab 19.3.0 cannot be reconfigured: line " in error["text"]
        assert ": spamcheck (removed in 19.0" in error["text"]
        assert "release notes" in error["hint"]
    assert (reconfigures(harness), pending(harness, "gitlab")) == (before, [])
    applied(harness, "server", changes=changes)
    unchanged(harness, "server", changes=changes)


def test_one_that_the_inventory_asks_for(harness: Harness) -> None:
    """The same for a setting of the inventory: nothing is written."""
    with untouched(harness, "gitlab", *KEPT):
        outcome = refused(harness, "server", changes=gitlab_settings(mattermost={"enable": True}))
    assert ": mattermost['enable'] (removed in 19.0" in outcome.errors
    assert "[gitlab.settings]" in outcome.errors


def test_one_of_ours_that_is_taken_out(harness: Harness) -> None:
    """A setting that we had set and the inventory no longer has: the edit that removes it is not refused."""
    state = "/var/lib/provision/state.json"
    harness.lab.inside("gitlab", f"echo \"mattermost['enable'] = false\" >> {RB}")
    record = """
import json, sys
with open(sys.argv[1]) as file:
    state = json.load(file)
state["owners"]["gitlab"]["gitlab.rb"].insert(0, ["mattermost", "enable"])
with open(sys.argv[1], "w") as file:
    json.dump(state, file)
"""
    harness.lab.inside("gitlab", f"python3 - {state}", stdin=record)
    outcome = applied(harness, "server")
    assert "mattermost['enable']" in outcome.changes()[0]
    assert not succeeds(harness, "gitlab", f"grep -q '^mattermost' {RB}")
    unchanged(harness, "server")
