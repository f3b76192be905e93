"""Settings that the installed GitLab has removed are named before anything is changed: its reconfigure would abort on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from provision_lab import LabHost
from provision_lab.trial import Trial
from tests.support.faults import on_host, pending
from tests.support.runs import applied, reconfigures, refused, settled, succeeds, untouched, without_s3

RB = "/etc/gitlab/gitlab.rb"
KEPT = ("/etc/gitlab", "/var/lib/provision", "/var/opt/gitlab")


@pytest.fixture(scope="module")
def trial(trial_factory: Callable[..., Trial]) -> Trial:
    """GitLab 19.3, with everything in force."""
    trial = without_s3(trial_factory(LabHost("gitlab")))
    applied(trial, "server")
    return trial


def settings(**changes: Any) -> Mapping[str, Any]:
    """The inventory with more settings of GitLab's."""
    return {"gitlab": {"settings": changes}}


def test_somebodys_removed_setting(trial: Trial) -> None:
    """It stands in gitlab.rb since an older version: line, name and version are told; taken out by hand, it goes on."""
    before, changes = reconfigures(trial), settings(gitlab_rails={"time_zone": "Rome"})
    line = "mattermost_external_url 'https://chat.example.com'"
    with (
        on_host(trial, "gitlab", f'echo "{line}" >> {RB}', f"sed -i '/^mattermost/d' {RB}"),
        untouched(trial, "gitlab", *KEPT),
    ):
        outcome = refused(trial, "server", changes=changes)
        (error,) = outcome.of("error")
        assert (error["error"], error["task"]) == ("Refused", "gitlab")
        assert "GitLab 19.3.0 refuses to be reconfigured with: line " in error["text"]
        assert ": mattermost_external_url (removed in 19.0" in error["text"]
        assert "release notes" in error["hint"]
    assert (reconfigures(trial), pending(trial, "gitlab")) == (before, [])
    applied(trial, "server", changes=changes)
    settled(trial, "server", changes=changes)


def test_one_that_the_inventory_asks_for(trial: Trial) -> None:
    """The same when it is we who would set it: nothing is written."""
    with untouched(trial, "gitlab", *KEPT):
        outcome = refused(trial, "server", changes=settings(mattermost={"enable": True}))
    assert ": mattermost (removed in 19.0" in outcome.errors
    assert "[gitlab.settings]" in outcome.errors


def test_one_of_ours_that_is_taken_out(trial: Trial) -> None:
    """Set by us for an older version and since dropped from the inventory: the edit that takes it out is not refused."""
    state = "/var/lib/provision/state.json"
    trial.lab.inside("gitlab", f"echo \"mattermost['enable'] = false\" >> {RB}")
    trial.lab.inside(
        "gitlab",
        f'sed -i \'s/\\("gitlab.rb.gitlab": \\[\\)/\\1["mattermost", "enable"],/\' {state} && python3 -m json.tool {state}',
    )
    outcome = applied(trial, "server")
    assert "mattermost['enable']" in outcome.changes()[0]
    assert not succeeds(trial, "gitlab", f"grep -q '^mattermost' {RB}")
    settled(trial, "server")
