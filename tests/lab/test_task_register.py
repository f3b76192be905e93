"""The task `register`: config.toml key by key, beside others' entries, without a restart and without a lost job.

test_runners_life.py tests runners in GitLab (names, tokens, tags, deletions). The tests run in order on one host.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from typing import Any

import pytest

from provision_lab.harness import Harness
from tests.support.gitlab import CONFIG, Server, estate
from tests.support.runs import Outcome, applied, provision, refused, succeeds, twice, unchanged, untouched
from tests.support.waiting import wait_for

HOST = "runner-1"
BY_HAND = """\
# The other team's runner. Do not touch: ask Anna.
check_interval   = 7      # theirs

[[runners]]
  name = "theirs"   # odd   spacing
  url = 'https://elsewhere.lab.test/'
  token = "glrt-somebodyelses00000"
  executor = "shell"
  [runners.feature_flags]
    FF_X = true # why?

  # the end
"""


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A GitLab, a host with gitlab-runner and a config.toml of others; the inventory has one runner."""
    harness = estate(harness_factory, HOST)
    harness.lab.inside(HOST, f"cat > {CONFIG} && chmod 600 {CONFIG}", stdin=BY_HAND)
    harness.inventory["runners"] = [
        {
            "name": "docker-builder",
            "executor": "docker",
            "environment": ["A=b", 'Q="quoted"'],
            "docker": {"image": "docker:28", "privileged": True, "volumes": ["/certs/client", "/cache"]},
        }
    ]
    return harness


@pytest.fixture(scope="module", autouse=True)
def process(harness: Harness) -> str:
    """The service's process, which must stay the same."""
    return pid(harness)


def pid(harness: Harness) -> str:
    """The process of gitlab-runner."""
    return harness.lab.inside(HOST, "systemctl show gitlab-runner -p MainPID --value").strip()


def config(harness: Harness) -> str:
    """config.toml."""
    return harness.lab.inside(HOST, f"cat {CONFIG}")


def ours(harness: Harness) -> dict[str, Any]:
    """Our entry."""
    (found,) = [one for one in tomllib.loads(config(harness))["runners"] if one["name"] == "docker-builder"]
    return dict(found)


def entry(harness: Harness) -> dict[str, Any]:
    """The inventory's only runner."""
    table: dict[str, Any] = harness.inventory["runners"][0]
    return table


def theirs(harness: Harness) -> str:
    """The other team's lines of the file, without the top-level keys that we set."""
    text = config(harness)
    return text[: text.index("# the end\n") + len("# the end\n")].replace("concurrent = 2\n", "")


def test_a_runner_beside_somebody_elses(harness: Harness) -> None:
    """One entry is added with a valid token; the other team's bytes are unchanged."""
    twice(harness, "register")
    assert theirs(harness).replace("\n\n", "\n") == BY_HAND.replace("\n\n", "\n")
    found = ours(harness)
    assert found["url"] == "https://gitlab.lab.test"
    assert found["environment"] == ["A=b", 'Q="quoted"']
    assert found["docker"] == entry(harness)["docker"]
    assert harness.host(HOST).file(CONFIG).mode == 0o600
    assert "Verifying runner... is valid" in verified(harness)


def verified(harness: Harness) -> str:
    """The output of `gitlab-runner verify`, without colours."""
    return harness.lab.inside(
        HOST, "gitlab-runner verify --name docker-builder 2>&1 | sed 's/\\x1b\\[[0-9;]*m//g'; true"
    )


def test_the_service_reloads_the_file(harness: Harness, process: str) -> None:
    """The same process reloads the file."""
    loaded = "journalctl -u gitlab-runner | grep -q 'Configuration loaded.*max_builds=2'"
    wait_for(lambda: succeeds(harness, HOST, loaded), "the new file is loaded")
    assert pid(harness) == process


def test_settings_are_reconciled_key_by_key(harness: Harness) -> None:
    """Keys that are changed, added, nested and removed: exactly those lines differ."""
    wanted = entry(harness)
    wanted["limit"] = 3
    wanted["docker"] |= {"image": "docker:29", "pull_policy": ["if-not-present"], "services": [{"name": "redis:7"}]}
    del wanted["environment"]
    before = config(harness).splitlines()
    outcome = twice(harness, "register")
    after = config(harness).splitlines()
    gone, new = [one for one in before if one not in after], [one for one in after if one not in before]
    assert [line.strip() for line in gone] == ['environment = ["A=b", "Q=\\"quoted\\""]', 'image = "docker:28"']
    assert {line.strip() for line in new if line.strip()} >= {'image = "docker:29"', "limit = 3"}
    assert ours(harness)["docker"] == wanted["docker"]
    diff = outcome.of("change")[0]["diff"]
    assert '-    image = "docker:28"\n+    image = "docker:29"\n' in diff
    assert ours(harness)["token"] not in diff


def test_what_was_edited_by_hand_inside_our_entry(harness: Harness) -> None:
    """Our keys are restored; a key that we never set, and a comment, stay."""
    script = f"sed -i 's/limit = 3/limit = 9/; s/^\\( *\\)privileged = true/&  # needed for dind\\n\\1memory = \"2g\"/' {CONFIG}"
    harness.lab.inside(HOST, script)
    twice(harness, "register")
    found = ours(harness)
    assert (found["limit"], found["docker"]["memory"]) == (3, "2g")
    assert "privileged = true  # needed for dind\n" in config(harness)


def test_top_level_keys_come_and_go(harness: Harness) -> None:
    """Our keys are set and removed again; check_interval, which we never set, stays."""
    harness.inventory["runner"] |= {"log_level": "warn", "concurrent": 5}
    twice(harness, "register")
    found = tomllib.loads(config(harness))
    assert (found["concurrent"], found["log_level"], found["check_interval"]) == (5, "warn", 7)
    harness.inventory["runner"] = {"concurrent": 2}
    twice(harness, "register")
    found = tomllib.loads(config(harness))
    assert (found["concurrent"], found.get("log_level"), found["check_interval"]) == (2, None, 7)


def test_a_running_job_goes_on(harness: Harness, process: str) -> None:
    """An edit while a job runs neither cancels nor restarts it."""
    harness.lab.inside(HOST, "mkdir -p /etc/gitlab-runner-standin; echo 'sleep 20' > /etc/gitlab-runner-standin/job")
    wait_for(lambda: succeeds(harness, HOST, "test -e /etc/gitlab-runner-standin/job-1.running"), "a job runs")
    entry(harness)["limit"] = 4
    twice(harness, "register")
    assert not succeeds(harness, HOST, "test -e /etc/gitlab-runner-standin/job-1.done")
    wait_for(lambda: succeeds(harness, HOST, "test -e /etc/gitlab-runner-standin/job-1.done"), "the job is done", 40)
    assert harness.lab.inside(HOST, "cat /etc/gitlab-runner-standin/job-1.done") == "success\n"
    assert pid(harness) == process


def test_a_refused_token_changes_nothing(harness: Harness) -> None:
    """GitLab answers 403: the error names the runner, not the token; exit code 1, and no file changes."""
    token = "glrt-nobodyknowsthisone"
    wrong = [*harness.inventory["runners"], {"name": "second", "executor": "shell", "token": token}]
    with untouched(harness, HOST, "/etc", "/var/lib/provision"):
        outcome = refused(harness, "register", changes={"runners": wrong})
    assert "GitLab at https://gitlab.lab.test refuses the token of runner second" in outcome.errors
    assert token not in repr(outcome)


def test_gitlab_being_down_is_no_reason_to_forget_runners(harness: Harness) -> None:
    """Without an answer, nothing changes; the error has the cause, exit code 1; later the run succeeds."""
    more = [*harness.inventory["runners"], {"name": "second", "executor": "shell"}]
    harness.lab.inside("gitlab", "gitlab-ctl stop nginx")
    try:
        with untouched(harness, HOST, "/etc", "/var/lib/provision"):
            for changes in ({}, {"runners": more}):
                outcome = refused(harness, "register", changes=changes)
                assert "the connection is refused" in outcome.messages() + outcome.errors
                assert outcome.changes() == []
    finally:
        harness.lab.inside("gitlab", "gitlab-ctl start nginx")
    wait_for(lambda: provision(harness, "register").code == 0, "GitLab answers again")
    unchanged(harness, "register")


def test_a_broken_config_is_refused_and_left(harness: Harness) -> None:
    """An invalid file is not overwritten: the line is named; once fixed, the run succeeds."""
    good = config(harness)
    harness.lab.inside(HOST, f"sed -i 's/^check_interval.*/check_interval = = 7/' {CONFIG}")
    line = 1 + next(number for number, text in enumerate(config(harness).splitlines()) if "= =" in text)
    with untouched(harness, HOST, "/etc", "/var/lib/provision"):
        outcome = refused(harness, "register")
    assert outcome.of("error")[0]["resource"] == f"RunnerEntries {CONFIG}"
    assert f"config.toml is not valid TOML: line {line}" in outcome.errors
    harness.lab.inside(HOST, f"cat > {CONFIG}", stdin=good)
    unchanged(harness, "register")


def test_a_lost_file_is_written_anew(harness: Harness) -> None:
    """config.toml is lost: our runner is created again, one in GitLab and one in the file."""
    harness.lab.inside(HOST, f"mv {CONFIG} /root/")
    outcome = twice(harness, "register")
    assert "docker-builder" in outcome.changes()[0]
    assert [one["name"] for one in tomllib.loads(config(harness))["runners"]] == ["docker-builder"]
    assert harness.host(HOST).file(CONFIG).mode == 0o600
    assert "is valid" in verified(harness)


def test_after_all_of_it_the_service_was_never_restarted(harness: Harness, process: str) -> None:
    """The process is the same; GitLab has exactly one working runner of ours."""
    assert pid(harness) == process
    known = [one for one in Server(harness).runners if one["description"] == "docker-builder"]
    assert ours(harness)["token"] in [one["token"] for one in known]


def test_check_mode_plans_and_changes_nothing(harness: Harness) -> None:
    """The plan has the diff; neither the file nor GitLab changes."""
    known = Server(harness).runners
    more = [*harness.inventory["runners"], {"name": "second", "executor": "shell"}]
    with untouched(harness, HOST, "/etc", "/var/lib/provision"):
        outcome: Outcome = provision(harness, "register", "--check", "--diff", changes={"runners": more})
    assert outcome.code == 0
    assert '+  name = "second"\n' in outcome.of("change")[0]["diff"]
    assert [one["id"] for one in Server(harness).runners] == [one["id"] for one in known]
    applied(harness, "register")
