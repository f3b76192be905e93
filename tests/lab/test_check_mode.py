"""`--check` on real hosts: a complete plan, no change on any host, and the format of `--json`.

The tests run in order: bare hosts first, then the same hosts converged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness, changed
from tests.support.runs import Outcome, applied, provision, without_s3

HOSTS = ("gitlab", "runner-1")
FIELDS = {
    "start": {"type", "schema", "names", "hosts", "check", "plays"},
    "task": {"type", "host", "task", "status", "seconds"},
    "change": {"type", "host", "task", "resource", "action", "summary", "diff", "applied", "predicted", "requires"},
    "message": {"type", "host", "task", "text", "kind"},
    "error": {"type", "host", "task", "resource", "error", "text", "hint"},
    "summary": {"type", "check", "changed", "failed", "unreachable", "seconds", "hosts"},
}
PER_HOST = {"ok", "changed", "failed", "skipped", "unreachable", "round_trips", "seconds"}


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """Two bare hosts, with an inventory that uses every task."""
    return without_s3(harness_factory(*map(LabHost, HOSTS)))


# GitLab notes there when a runner last asked it for jobs, which the service on the other host does all the time.
DATABASE = "var/opt/gitlab/standin/db.json"


def snapshots(harness: Harness) -> dict[str, dict[str, str]]:
    """The whole file system of every host."""
    seen = {host: harness.snapshot(host) for host in HOSTS}
    seen["gitlab"].pop(DATABASE, None)
    return seen


def differences(before: dict[str, dict[str, str]], after: dict[str, dict[str, str]]) -> dict[str, Any]:
    """The paths that differ, by host."""
    return {host: paths for host in HOSTS if (paths := changed(before[host], after[host]))}


@pytest.fixture(scope="module")
def bare(harness: Harness) -> tuple[Outcome, dict[str, Any], str]:
    """The events of a check on bare hosts, what it changed there, and its text output."""
    before = snapshots(harness)
    outcome = provision(harness, "all", "--check", "--diff")
    shown = harness.run("all", "--check", "--diff")
    assert (shown.returncode, shown.stderr) == (0, "")
    return outcome, differences(before, snapshots(harness)), shown.stdout


def test_bare_hosts_are_unchanged(bare: tuple[Outcome, dict[str, Any], str]) -> None:
    """Exit code 0, and no byte, owner, mode or time differs on any host."""
    outcome, differing, _ = bare
    assert outcome.code == 0, outcome.errors
    assert differing == {}


def test_the_plan_of_bare_hosts_is_whole(bare: tuple[Outcome, dict[str, Any], str]) -> None:
    """Every task is in the plan; what depends on packages still to come is marked as predicted, with its diff."""
    outcome, _, _ = bare
    tasks = {"gitlab": "gitlab registry firewall", "runner-1": "docker runner register"}
    for host, names in tasks.items():
        for name in names.split():
            assert outcome.changes(host=host, task=name), name
        assert set(outcome.statuses(host).values()) <= {"changed", "ok"}
    predicted = [one for one in outcome.of("change") if one["predicted"]]
    assert {one["resource"].split()[0] for one in predicted} == {"RubySettings", "RegistryEndpoint", "RunnerEntries"}
    rb = next(one for one in predicted if one["task"] == "registry")
    assert "+registry_external_url 'https://gitlab.lab.test:5555'\n" in rb["diff"]
    assert not [one for one in outcome.of("change") if one["applied"]]
    for summary in ("install gitlab-ce", "reconfigure GitLab", "allow 5555/tcp", "switch ufw on", "restart docker"):
        assert summary in outcome.changes()


def test_people_are_shown_the_same_plan(bare: tuple[Outcome, dict[str, Any], str]) -> None:
    """The text names every change with its diff and how many are pending."""
    outcome, _, text = bare
    missing = [summary for summary in outcome.changes() if summary not in text]
    assert missing == []
    assert f"{outcome.summary['changed']} changes pending" in text
    assert '+  "log-driver": "json-file",' in text


def test_no_secret_is_in_the_plan(harness: Harness, bare: tuple[Outcome, dict[str, Any], str]) -> None:
    """Neither the events nor the text contain tokens or passwords."""
    outcome, _, text = bare
    for name in ("api_token", "registry_password"):
        assert harness.lab.secret(name) not in text
        assert harness.lab.secret(name) not in repr(outcome.events)


def test_the_exit_code_shows_pending_changes(harness: Harness) -> None:
    """--fail-on-change: 3."""
    assert provision(harness, "all", "--check", "--fail-on-change").code == 3


def test_fail_on_change_goes_with_check(harness: Harness) -> None:
    """Without --check it is bad usage (2), and nothing was contacted."""
    outcome = provision(harness, "all", "--fail-on-change")
    assert (outcome.code, outcome.events) == (2, ())
    assert "--check" in outcome.stderr


@pytest.fixture(scope="module")
def converged(harness: Harness, bare: object) -> Outcome:  # noqa: ARG001 - bare hosts are looked at before
    """The same hosts, converged."""
    return applied(harness, "all")


def test_the_planned_changes_are_applied(converged: Outcome, bare: tuple[Outcome, dict[str, Any], str]) -> None:
    """Every change that was applied had been planned, except what the package had done already."""
    foreseen = {(one["host"], one["resource"]) for one in bare[0].of("change")}
    done = {(one["host"], one["resource"]) for one in converged.of("change")}
    assert done <= foreseen
    assert {resource for _, resource in foreseen - done} <= {"Service docker", "Service gitlab-runner"}


@pytest.mark.usefixtures("converged")
def test_converged_hosts_are_unchanged(harness: Harness) -> None:
    """Nothing is pending: --fail-on-change exits 0, and no file system differs."""
    before = snapshots(harness)
    outcome = provision(harness, "all", "--check", "--fail-on-change")
    assert (outcome.code, outcome.summary["changed"]) == (0, 0)
    assert differences(before, snapshots(harness)) == {}


@pytest.mark.usefixtures("converged")
def test_drift_is_found_and_left(harness: Harness) -> None:
    """A manual change is shown with its diff (exit code 3) and stays."""
    harness.lab.inside("runner-1", "sed -i s/json-file/local/ /etc/docker/daemon.json")
    harness.lab.inside(
        "runner-1",
        "systemctl stop gitlab-runner; sed -i 's/concurrent = 2/concurrent = 9/' /etc/gitlab-runner/config.toml",
    )
    before = snapshots(harness)
    outcome = provision(harness, "all", "--check", "--diff", "--fail-on-change")
    assert outcome.code == 3
    assert outcome.changes() == [
        "update /etc/docker/daemon.json",
        "restart docker",
        "start gitlab-runner",
        "set concurrent",
    ]
    assert '-  "log-driver": "local"' in outcome.of("change")[0]["diff"]
    assert "-concurrent = 9\n+concurrent = 2\n" in outcome.of("change", task="register")[0]["diff"]
    assert differences(before, snapshots(harness)) == {}


def hold(outcome: Outcome) -> None:
    """Asserts the format that scripts with `--json` rely on."""
    first, last = outcome.events[0], outcome.events[-1]
    assert (first["type"], first["schema"], last["type"]) == ("start", 1, "summary")
    assert [one["type"] for one in outcome.events].count("start") == 1
    assert [one["type"] for one in outcome.events].count("summary") == 1
    for one in outcome.events:
        assert set(one) == FIELDS[one["type"]], one
    for one in outcome.of("change"):
        assert one["action"] in ("create", "update", "delete", "run")
        assert one["applied"] is (not first["check"])
    for one in outcome.of("task"):
        assert one["status"] in ("ok", "changed", "failed", "skipped", "unreachable")
    assert set(last["hosts"]) == set(first["hosts"])
    for host, counts in last["hosts"].items():
        assert set(counts) == PER_HOST
        assert counts["changed"] == len(outcome.of("change", host=host))
        statuses = list(outcome.statuses(host).values())
        assert counts["failed"] == statuses.count("failed")
        assert counts["skipped"] == statuses.count("skipped")
        assert counts["ok"] == statuses.count("ok") + statuses.count("changed")
        assert counts["round_trips"] > 0
    assert last["changed"] == sum(one["changed"] for one in last["hosts"].values())
    assert last["check"] is first["check"]


def test_the_events_hold_what_is_promised(converged: Outcome, bare: tuple[Outcome, dict[str, Any], str]) -> None:
    """Types, fields, first and last line, and consistent counts, for a plan and for a run."""
    assert bare[0].events[0]["names"] == ["all"]
    assert bare[0].events[0]["check"] is True
    hold(bare[0])
    hold(converged)


@pytest.mark.usefixtures("converged")
def test_the_events_of_a_failure_hold_it_too(harness: Harness) -> None:
    """A host that fails: an error with what, where and the next step; its later tasks are skipped."""
    harness.lab.inside("runner-1", "echo '{ broken' > /etc/docker/daemon.json")
    outcome = provision(harness, "runners")
    assert outcome.code == 1
    hold(outcome)
    (error,) = outcome.of("error")
    assert (error["host"], error["task"], error["error"]) == ("runner-1", "docker", "Refused")
    assert error["resource"] == "JsonSettings /etc/docker/daemon.json"
    assert "/etc/docker/daemon.json line 1: not JSON" in error["text"]
    assert error["hint"]
    assert outcome.statuses("runner-1") == {"docker": "failed", "runner": "skipped", "register": "skipped"}
    assert (outcome.summary["failed"], outcome.summary["hosts"]["runner-1"]["skipped"]) == (1, 2)
