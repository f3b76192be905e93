"""Settings that the installed GitLab has removed are named before anything is changed: its reconfigure would abort on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness
from tests.support.faults import on_host, pending
from tests.support.runs import applied, reconfigures, refused, settled, succeeds, untouched, without_s3

RB = "/etc/gitlab/gitlab.rb"
KEPT = ("/etc/gitlab", "/var/lib/provision", "/var/opt/gitlab")


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """GitLab 19.3, with everything in force."""
    harness = without_s3(harness_factory(LabHost("gitlab")))
    applied(harness, "server")
    return harness


def settings(**changes: Any) -> Mapping[str, Any]:
    """The inventory with more settings of GitLab's."""
    return {"gitlab": {"settings": changes}}


def test_somebodys_removed_setting(harness: Harness) -> None:
    """It stands in gitlab.rb since an older version: line, name and version are told; taken out by hand, it goes on."""
    before, changes = reconfigures(harness), settings(gitlab_rails={"time_zone": "Rome"})
    line = "mattermost_external_url 'https://chat.example.com'"
    with (
        on_host(harness, "gitlab", f'echo "{line}" >> {RB}', f"sed -i '/^mattermost/d' {RB}"),
        untouched(harness, "gitlab", *KEPT),
    ):
        outcome = refused(harness, "server", changes=changes)
        (error,) = outcome.of("error")
        assert (error["error"], error["task"]) == ("Refused", "gitlab")
        assert "GitLab 19.3.0 cannot be reconfigured: line " in error["text"]
        assert ": mattermost_external_url (removed in 19.0" in error["text"]
        assert "release notes" in error["hint"]
    assert (reconfigures(harness), pending(harness, "gitlab")) == (before, [])
    applied(harness, "server", changes=changes)
    settled(harness, "server", changes=changes)


def test_one_that_the_inventory_asks_for(harness: Harness) -> None:
    """The same when it is we who would set it: nothing is written."""
    with untouched(harness, "gitlab", *KEPT):
        outcome = refused(harness, "server", changes=settings(mattermost={"enable": True}))
    assert ": mattermost (removed in 19.0" in outcome.errors
    assert "[gitlab.settings]" in outcome.errors


def test_one_of_ours_that_is_taken_out(harness: Harness) -> None:
    """Set by us for an older version and since dropped from the inventory: the edit that takes it out is not refused."""
    state = "/var/lib/provision/state.json"
    harness.lab.inside("gitlab", f"echo \"mattermost['enable'] = false\" >> {RB}")
    harness.lab.inside(
        "gitlab",
        f'sed -i \'s/\\("gitlab.rb.gitlab": \\[\\)/\\1["mattermost", "enable"],/\' {state} && python3 -m json.tool {state}',
    )
    outcome = applied(harness, "server")
    assert "mattermost['enable']" in outcome.changes()[0]
    assert not succeeds(harness, "gitlab", f"grep -q '^mattermost' {RB}")
    settled(harness, "server")
