"""The task `gitlab`: installed, configured, reconfigured exactly when needed, and rolled back when it fails.

The tests run in order on one host, with a second one that was started by hand.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness
from tests.support.gitlab import rails_boots
from tests.support.labs import release
from tests.support.runs import (
    applied,
    reconfigures,
    refused,
    succeeds,
    twice,
    unchanged,
    untouched,
    without_registry,
)

RB = "/etc/gitlab/gitlab.rb"
BY_HAND = """\
# Ask Anna before you touch this.
external_url "http://old.lab.test"   # was the old name

gitlab_rails['smtp_enable']   = true  # keep
gitlab_rails[ 'time_zone' ]   = 'Europe/Lisbon'
puma['worker_processes'] = 2;  puma['per_worker_max_memory_mb'] = 1024
if File.exist?("/etc/gitlab/extra.rb") then from_file "/etc/gitlab/extra.rb" end
"""


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A bare host, and one where GitLab 18.11.5 was installed and configured by hand."""
    harness = without_registry(
        harness_factory(LabHost("bare", gitlab=True), LabHost("byhand", gitlab=True, names=("old.lab.test",)))
    )
    harness.inventory["hosts"]["byhand"]["gitlab"] = {"version": "18.11.5"}
    return harness


def old_source(harness: Harness) -> str:
    """The line of an old-style list file."""
    url = harness.inventory["apt"]["gitlab"]["url"]
    return f"deb [signed-by=/usr/share/keyrings/gitlab.asc] {url} {release(harness.lab, 'byhand')[1]} main\n"


@pytest.fixture(scope="module", autouse=True)
def half_done(harness: Harness) -> None:
    """GitLab from an old-style list file, and a gitlab.rb that was edited by hand."""
    inside = harness.lab.inside
    key = (harness.lab.folder / "gitlab.asc").read_text()
    inside("byhand", "cat > /usr/share/keyrings/gitlab.asc", stdin=key)
    inside("byhand", "cat > /etc/apt/sources.list.d/gitlab_gitlab-ce.list", stdin=old_source(harness))
    inside("byhand", "apt-get -q update && apt-get install -qy gitlab-ce=18.11.5-ce.0")
    inside("byhand", f"cat > {RB} && gitlab-ctl reconfigure", stdin=BY_HAND)


def in_force(harness: Harness, host: str = "bare") -> dict[str, Any]:
    """The configuration that GitLab itself derives from its gitlab.rb."""
    text = harness.lab.inside(host, "gitlab-ctl show-config")
    found: dict[str, Any] = json.loads(text[text.index("{") : text.rindex("}") + 1])
    return found


def rb(harness: Harness, host: str = "bare") -> str:
    """gitlab.rb."""
    return harness.lab.inside(host, f"cat {RB}")


def test_a_bare_host(harness: Harness) -> None:
    """Installed and reconfigured once; GitLab answers on its URL; the second run changes nothing."""
    outcome = twice(harness, "gitlab", "--limit", "bare")
    assert "first password for its user root will be in /etc/gitlab/initial_root_password" in outcome.messages()
    assert reconfigures(harness, "bare") == 1
    # Under another locale GitLab's database would have the wrong collation for good: omnibus_helper.rb, check_locale.
    assert not succeeds(harness, "bare", "grep -q 'non-UTF-8 locale' /var/log/gitlab/reconfigure/*.log")
    there = harness.host("bare")
    assert there.package("gitlab-ce").version == "19.3.0-ce.0"
    assert (there.file(RB).mode, there.file(RB).user) == (0o600, "root")
    wanted = in_force(harness)
    assert (wanted["external_url"], wanted["gitlab_rails"]["time_zone"]) == ("https://gitlab.lab.test", "UTC")
    url = "https://gitlab.lab.test/users/sign_in"
    assert there.check_output(f"curl -sk -o /dev/null -w '%{{http_code}}' {url}") == "200"


def test_a_host_set_up_by_hand_is_taken_over(harness: Harness) -> None:
    """Its own repository entry is a comment now; the pinned version stays; every line of others stays."""
    twice(harness, "gitlab", "--limit", "byhand")
    there = harness.host("byhand")
    assert there.package("gitlab-ce").version == "18.11.5-ce.0"
    assert there.check_output("apt-mark showhold") == "gitlab-ce"
    (entry,) = there.file("/etc/apt/sources.list.d/gitlab_gitlab-ce.list").content_string.splitlines()
    assert entry.startswith(f"# {old_source(harness).rstrip()} # disabled: ")
    assert rb(harness, "byhand").splitlines()[:7] == [
        "# Ask Anna before you touch this.",
        "external_url 'https://gitlab.lab.test'   # was the old name",
        "",
        "gitlab_rails['smtp_enable']   = true  # keep",
        "gitlab_rails[ 'time_zone' ]   = 'UTC'",
        "puma['worker_processes'] = 2;  puma['per_worker_max_memory_mb'] = 1024",
        'if File.exist?("/etc/gitlab/extra.rb") then from_file "/etc/gitlab/extra.rb" end',
    ]
    wanted = in_force(harness, "byhand")
    assert (wanted["gitlab_rails"]["smtp_enable"], wanted["puma"]["worker_processes"]) == (True, 2)


def test_settings_are_added_and_changed_by_one_reconfigure(harness: Harness) -> None:
    """Three edits, one reconfigure; every value is active."""
    settings = harness.inventory["gitlab"]["settings"]
    settings["gitlab_rails"] |= {"time_zone": "Europe/Paris", "trusted_proxies": ["198.18.0.0/15", "10.0.0.1"]}
    settings["nginx"]["client_max_body_size"] = "250m"
    before = reconfigures(harness, "bare")
    twice(harness, "gitlab", "--limit", "bare")
    assert reconfigures(harness, "bare") == before + 1
    wanted = in_force(harness)
    assert wanted["gitlab_rails"]["time_zone"] == "Europe/Paris"
    assert wanted["gitlab_rails"]["trusted_proxies"] == ["198.18.0.0/15", "10.0.0.1"]
    assert wanted["nginx"]["client_max_body_size"] == "250m"


def test_a_dropped_setting_is_taken_out(harness: Harness) -> None:
    """A setting that the inventory no longer has is removed; others' settings stay; one reconfigure."""
    harness.lab.inside("bare", f"echo \"gitlab_rails['smtp_enable'] = true # mine\" >> {RB}; gitlab-ctl reconfigure")
    del harness.inventory["gitlab"]["settings"]["gitlab_rails"]["trusted_proxies"]
    before = reconfigures(harness, "bare")
    outcome = twice(harness, "gitlab", "--limit", "bare")
    assert reconfigures(harness, "bare") == before + 1
    assert "gitlab_rails['trusted_proxies']" in outcome.changes()[0]
    assert "trusted_proxies" not in in_force(harness)["gitlab_rails"]
    assert rb(harness).endswith("gitlab_rails['smtp_enable'] = true # mine\n")


def test_a_later_line_that_overrides_ours_is_fixed(harness: Harness) -> None:
    """A later line that overrides ours is found, because Ruby's last assignment wins, and is replaced."""
    harness.lab.inside("bare", f"echo \"gitlab_rails['time_zone'] = 'Mars/Olympus'\" >> {RB}")
    twice(harness, "gitlab", "--limit", "bare")
    assert in_force(harness)["gitlab_rails"]["time_zone"] == "Europe/Paris"


@pytest.mark.parametrize("switch", ["fail-next-reconfigure", "fail-next-reconfigure-late"])
def test_a_failed_reconfigure_is_rolled_back(harness: Harness, switch: str) -> None:
    """Chef's error, exit code 1, the previous gitlab.rb is active, nothing is pending; then it succeeds."""
    good, wanted = rb(harness), {"gitlab": {"settings": {"gitlab_rails": {"time_zone": f"Etc/{switch.upper()}"}}}}
    harness.lab.inside("bare", f"echo 'Chef::Exceptions::Exec: the disk is on fire' > /etc/gitlab-standin/{switch}")
    before = reconfigures(harness, "bare")
    outcome = refused(harness, "gitlab", "--limit", "bare", changes=wanted)
    (error,) = outcome.of("error")
    assert (error["error"], error["resource"]) == ("ChangeFailed", "reconfigure")
    assert (
        "There was an error running gitlab-ctl reconfigure:\nChef::Exceptions::Exec: the disk is on fire"
        in error["text"]
    )
    assert f"rolled back to the previous {RB}" in error["text"]
    assert rb(harness) == good
    assert reconfigures(harness, "bare") == before + 2
    assert in_force(harness)["gitlab_rails"]["time_zone"] == "Europe/Paris"
    assert not succeeds(harness, "bare", "ls /var/lib/provision/pending /var/lib/provision/rollback")
    unchanged(harness, "gitlab", "--limit", "bare")
    twice(harness, "gitlab", "--limit", "bare", changes=wanted)
    twice(harness, "gitlab", "--limit", "bare")


def test_a_failure_does_not_forget_a_setting_to_remove(harness: Harness) -> None:
    """The reconfigure failed and restored a setting to remove: the next run still removes it."""
    dropped = harness.inventory["gitlab"]["settings"]["nginx"].pop("client_max_body_size")
    harness.lab.inside("bare", "echo no > /etc/gitlab-standin/fail-next-reconfigure")
    refused(harness, "gitlab", "--limit", "bare")
    assert in_force(harness)["nginx"]["client_max_body_size"] == dropped
    twice(harness, "gitlab", "--limit", "bare")
    assert "client_max_body_size" not in in_force(harness)["nginx"]


def test_a_setting_that_gitlab_refuses_is_rolled_back(harness: Harness) -> None:
    """GitLab's error names the setting, and the previous configuration is active."""
    good = rb(harness)
    outcome = refused(
        harness, "gitlab", "--limit", "bare", changes={"gitlab": {"settings": {"gitlab_rayls": {"x": 1}}}}
    )
    assert "gitlab_rayls" in outcome.errors
    assert rb(harness) == good
    unchanged(harness, "gitlab", "--limit", "bare")


def test_a_broken_gitlab_rb_is_refused_and_left(harness: Harness) -> None:
    """The line is named, nothing changes, GitLab keeps running; once fixed, the run succeeds."""
    good = rb(harness)
    harness.lab.inside("bare", f"printf 'gitlab_rails[\"x\" = {{\\n' >> {RB}")
    before = reconfigures(harness, "bare")
    with untouched(harness, "bare", "/etc", "/var/lib/provision", "/var/opt/gitlab/nginx"):
        outcome = refused(harness, "gitlab", "--limit", "bare")
    assert f"{RB}" in outcome.errors
    assert f"line {len(good.splitlines()) + 1}" in outcome.errors
    assert reconfigures(harness, "bare") == before
    harness.lab.inside("bare", f"cat > {RB}", stdin=good)
    unchanged(harness, "gitlab", "--limit", "bare")


def pinned(version: str) -> dict[str, Any]:
    """The host with another version of GitLab."""
    return {"hosts": {"byhand": {"gitlab": {"version": version}}}}


def test_an_upgrade_over_a_required_stop_is_refused(harness: Harness) -> None:
    """Before anything is downloaded; with a version that names no release, by the package itself. Nothing changes."""
    applied(harness, "gitlab", "--limit", "byhand")
    with untouched(harness, "byhand", "/etc", "/opt/gitlab", "/var/lib/dpkg"):
        outcome = refused(harness, "gitlab", "--limit", "byhand", changes=pinned("19.3.0"))
    (error,) = outcome.of("error")
    assert error["text"] == "GitLab 18.11.5 cannot be upgraded to 19.3.0 at once: it must go through 19.2"
    assert 'gitlab.version = "19.2.*"' in error["hint"]
    outcome = refused(harness, "gitlab", "--limit", "byhand", changes=pinned("19.*"))
    (error,) = outcome.of("error")
    assert "the package's script printed:" in error["text"]
    assert "It is required to upgrade to the latest 19.2.x version first before proceeding." in error["text"]
    assert harness.host("byhand").package("gitlab-ce").version == "18.11.5-ce.0"
    # An installation that failed may have stopped GitLab: the next run waits until it is ready.
    assert applied(harness, "gitlab", "--limit", "byhand").changes() == ["wait until GitLab is ready"]
    unchanged(harness, "gitlab", "--limit", "byhand")


def test_a_version_that_nobody_offers_leaves_nothing(harness: Harness) -> None:
    """apt finds no candidate, and dpkg never runs: no handler is pending."""
    outcome = refused(harness, "gitlab", "--limit", "byhand", changes=pinned("18.11.99"))
    (error,) = outcome.of("error")
    assert "gitlab-ce is offered as: " in error["text"]
    assert not succeeds(harness, "byhand", "ls /var/lib/provision/pending")
    unchanged(harness, "gitlab", "--limit", "byhand")


def test_an_older_version_is_refused(harness: Harness) -> None:
    """GitLab's database does not go back."""
    outcome = refused(harness, "gitlab", "--limit", "byhand", changes=pinned("18.0.0"))
    assert "GitLab 18.11.5 is installed, and gitlab.version asks for an older one: 18.0.0" in outcome.errors


def test_a_backup_that_fails_stops_the_upgrade(harness: Harness) -> None:
    """The package's own advice is in the message; the old version runs."""
    harness.lab.inside("byhand", "touch /etc/gitlab-standin/fail-backup")
    outcome = refused(harness, "gitlab", "--limit", "byhand", changes=pinned("19.2.*"))
    harness.lab.inside("byhand", "rm /etc/gitlab-standin/fail-backup")
    assert "Database backup failed! If you want to skip this backup" in outcome.errors
    assert "sudo touch /etc/gitlab/skip-auto-backup" in outcome.errors
    assert harness.host("byhand").package("gitlab-ce").version == "18.11.5-ce.0"


def test_a_pin_that_rises_upgrades(harness: Harness) -> None:
    """18.11.5 to 19.2.4 to 19.3.0, although it is held; gitlab.rb is unchanged. Puma's restart is waited for."""
    with untouched(harness, "byhand", RB), rails_boots(harness, 6, "byhand"):
        for version in ("19.2.*", "19.3.0"):
            outcome = twice(harness, "gitlab", "--limit", "byhand", changes=pinned(version))
            assert outcome.changes()[-1] == "wait until GitLab is ready"
            assert outcome.summary["hosts"]["byhand"]["seconds"] > 6
    there = harness.host("byhand")
    assert there.package("gitlab-ce").version == "19.3.0-ce.0"
    assert there.check_output("apt-mark showhold") == "gitlab-ce"


def test_somebody_elses_installation_is_only_configured(harness: Harness) -> None:
    """install = false: no source, no package, but settings."""
    harness.inventory["hosts"]["byhand"]["gitlab"] = {"install": False, "settings": {"nginx": {"gzip_enabled": False}}}
    harness.lab.inside("byhand", "rm /etc/apt/sources.list.d/gitlab.sources")
    twice(harness, "gitlab", "--limit", "byhand")
    assert not harness.host("byhand").file("/etc/apt/sources.list.d/gitlab.sources").exists
    assert in_force(harness, "byhand")["nginx"]["gzip_enabled"] is False


def test_both_hosts_at_once(harness: Harness) -> None:
    """The whole group converges in one run."""
    applied(harness, "gitlab")
    unchanged(harness, "gitlab")
