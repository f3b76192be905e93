"""A runner's life on a host with others' runners: registered, renamed, rotated, retagged, deleted, removed.

The tests run in order; each starts where the one before ended.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provision_lab.harness import Harness
from tests.support.gitlab import CONFIG, URL, Server, config, entries, estate, listed, process, writes
from tests.support.runs import Outcome, applied, provision, refused, succeeds, unchanged, untouched
from tests.support.waiting import wait_for

HOST = "runner-1"
FOREIGN = f"""# This host belongs to two teams. Ask before you touch anything.
concurrent = 3   # as many as it has disks
check_interval = 0

[session_server]
  session_timeout = 1800

[[runners]]           # the other team's
  name = 'theirs'     # do not rename
  url  = "{URL}/"
  token = "glrt-of-the-other-team"
  executor = "shell"
  [runners.custom_build_dir]
"""


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A GitLab and a host with another team's config.toml: comments and a runner of their own."""
    harness = estate(harness_factory, HOST)
    harness.lab.inside(HOST, f"cat > {CONFIG} && chmod 600 {CONFIG}", stdin=FOREIGN)
    del harness.inventory["runner"]
    return harness


@pytest.fixture(scope="module")
def server(harness: Harness) -> Server:
    """The GitLab."""
    return Server(harness)


@pytest.fixture(scope="module")
def runners(harness: Harness, server: Server) -> list[dict[str, Any]]:
    """The inventory's runners, which tests change: one created in the UI with its token, two to create."""
    cache = {"Type": "s3", "Shared": True, "s3": {"BucketName": "cache", "SecretKey": "cache-secret-0123"}}
    privileged = {"image": "docker:28", "privileged": True, "volumes": ["/certs/client", "/cache"]}
    harness.inventory["runners"] = [
        {"name": "given", "executor": "shell", "token": server.make("given"), "cache": cache},
        {"name": "docker-builder", "executor": "docker", "tags": ["docker", "build"], "docker": privileged},
        {"name": "spare", "executor": "shell", "maximum_timeout": 3600, "locked": True},
    ]
    return list(harness.inventory["runners"])


@pytest.fixture
def by_name(runners: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same by name."""
    return {one["name"]: one for one in runners}


def ours(harness: Harness) -> str:
    """Our part of the file, after the other team's part, which must be unchanged."""
    text = config(harness, HOST)
    assert text.startswith(FOREIGN)
    return text[len(FOREIGN) :]


def sections(harness: Harness) -> dict[str, str]:
    """The text of our entries by name."""
    texts = ours(harness).split("[[runners]]")[1:]
    return {tomllib.loads(one)["name"]: one.rstrip() for one in texts}


def unchanged_after(harness: Harness, *names: str) -> None:
    """`register`, or the named tasks, change nothing and send no write request to GitLab."""
    with Server(harness).counted() as seen:
        unchanged(harness, *(names or ("register",)))
    assert writes(seen) == {}


def token_of(harness: Harness, name: str) -> str:
    """The token of an entry."""
    (found,) = [one["token"] for one in entries(harness, HOST) if one["name"] == name]
    return str(found)


@pytest.mark.usefixtures("runners")
def test_check_makes_no_runner(harness: Harness, server: Server) -> None:
    """The plan has everything with the file's diff; GitLab, host and output are free of changes and secrets."""
    with server.counted() as seen, untouched(harness, HOST, "/etc/gitlab-runner", "/var/lib/provision"):
        done = harness.run("register", "--check", "--diff")
    assert done.returncode == 0, done.stderr
    assert writes(seen) == {}
    assert "create docker-builder, spare in GitLab" in done.stdout
    assert '+  name = "docker-builder"' in done.stdout
    assert '+  token = "***"' in done.stdout
    assert '+      BucketName = "cache"' in done.stdout
    message = done.stdout + done.stderr
    assert [one for one in ("cache-secret-0123", "glrt-", harness.lab.secret("api_token")) if one in message] == []


def test_each_is_registered_once(harness: Harness, server: Server, by_name: dict[str, Any]) -> None:
    """One POST for each runner to create, none for the existing one; the service keeps running."""
    before = process(harness, HOST)
    with server.counted() as seen:
        outcome = applied(harness, "register")
    assert writes(seen) == {"POST /user/runners": 2}
    assert process(harness, HOST) == before
    unchanged_after(harness)
    assert list(sections(harness)) == list(by_name)
    assert harness.host(HOST).file(CONFIG).mode == 0o600
    output = json.dumps(outcome.events) + outcome.stderr
    assert [one for one in ("cache-secret-0123", "glrt-") if one in output] == []
    assert "glrt-" not in harness.lab.inside(HOST, "cat /var/lib/provision/state.json")


def test_gitlab_has_what_the_inventory_says(server: Server) -> None:
    """Description, tags and settings; a runner with tags runs only tagged jobs unless the inventory says otherwise."""
    builder, spare = server.runner("docker-builder"), server.runner("spare")
    assert (builder["tag_list"], builder["run_untagged"], builder["locked"]) == (["build", "docker"], False, False)
    assert (spare["tag_list"], spare["run_untagged"], spare["locked"]) == ([], True, True)
    assert (spare["maximum_timeout"], spare["runner_type"]) == (3600, "instance_type")
    assert spare["maintenance_note"] == f"made by provision for {HOST}: spare"


def test_list_file_and_server_agree(harness: Harness, server: Server) -> None:
    """The privileged docker runner has the same token and name everywhere, and one manager: this host."""
    (entry,) = [one for one in entries(harness, HOST) if one["name"] == "docker-builder"]
    known = server.runner("docker-builder")
    assert listed(harness, HOST)["docker-builder"] == entry["token"] == known["token"]
    assert (entry["executor"], entry["url"]) == ("docker", URL)
    assert entry["docker"] == {"image": "docker:28", "privileged": True, "volumes": ["/certs/client", "/cache"]}
    verified = harness.lab.inside(HOST, "gitlab-runner verify -n docker-builder 2>&1")
    assert "is valid" in verified
    system = harness.lab.inside(HOST, "cat /etc/gitlab-runner/.runner_system_id").strip()
    for name in ("docker-builder", "given"):
        assert [one["system_id"] for one in server.runner(name)["managers"]] == [system]
    harness.lab.inside(HOST, f"gitlab-runner lint --config {CONFIG}")


def test_a_new_name_is_no_new_runner(harness: Harness, server: Server, by_name: dict[str, Any]) -> None:
    """Renamed in the inventory: one PUT changes GitLab's description, one line of the file changes."""
    before, old = config(harness, HOST), process(harness, HOST)
    by_name["given"]["name"] = "renamed"
    with server.counted() as seen:
        outcome = applied(harness, "register")
    assert writes(seen) == {f"PUT /runners/{server.runner('renamed')['id']}": 1}
    assert outcome.changes() == ["renamed: set name", "set description of runner renamed in GitLab"]
    assert config(harness, HOST) == before.replace('"given"', '"renamed"')
    assert len(server.runners) == 3
    assert process(harness, HOST) == old
    unchanged_after(harness)


def test_a_new_name_for_one_that_we_made(harness: Harness, server: Server, by_name: dict[str, Any]) -> None:
    """It is the same runner in GitLab, with the same token."""
    before, known = config(harness, HOST), server.runner("spare")
    by_name["spare"]["name"] = "reserve"
    with server.counted() as seen:
        applied(harness, "register")
    assert writes(seen) == {f"PUT /runners/{known['id']}": 1}
    assert server.runner("reserve")["token"] == known["token"]
    assert config(harness, HOST) == before.replace('"spare"', '"reserve"')
    unchanged_after(harness)


def test_a_new_token_changes_one_value(harness: Harness, server: Server, by_name: dict[str, Any]) -> None:
    """A token reset in the UI and in the inventory: one value of one entry changes."""
    before, old = config(harness, HOST), token_of(harness, "renamed")
    number = server.runner("renamed")["id"]
    fresh = server.ask("POST", f"/runners/{number}/reset_authentication_token")["token"]
    by_name["renamed"]["token"] = fresh
    with server.counted() as seen:
        outcome = applied(harness, "register")
    assert writes(seen) == {}
    assert config(harness, HOST) == before.replace(old, fresh)
    assert fresh not in json.dumps(outcome.events)
    assert listed(harness, HOST)["renamed"] == fresh
    unchanged_after(harness)


def test_a_token_of_another_runner_in_its_place(harness: Harness, server: Server, by_name: dict[str, Any]) -> None:
    """The token of another runner: the same entry, with one value changed."""
    before, old = config(harness, HOST), token_of(harness, "renamed")
    other = by_name["renamed"]["token"] = server.make("renamed")
    server.ask("DELETE", f"/runners/{server.runners[0]['id']}")
    applied(harness, "register")
    assert config(harness, HOST) == before.replace(old, other)
    unchanged_after(harness)


def test_tags_are_one_put(harness: Harness, server: Server, by_name: dict[str, Any]) -> None:
    """GitLab stores tags: the host's file is unchanged."""
    by_name["docker-builder"]["tags"] = ["docker", "arm64"]
    number = server.runner("docker-builder")["id"]
    with server.counted() as seen, untouched(harness, HOST, "/etc/gitlab-runner"):
        outcome = applied(harness, "register")
    assert writes(seen) == {f"PUT /runners/{number}": 1}
    assert outcome.changes() == ["set tag_list of runner docker-builder in GitLab"]
    assert "-tag_list: build, docker\n+tag_list: docker, arm64" in outcome.of("change")[0]["diff"]
    assert server.runner("docker-builder")["tag_list"] == ["arm64", "docker"]
    unchanged_after(harness)


def test_what_was_changed_in_the_ui_is_noticed(harness: Harness, server: Server) -> None:
    """The inventory's settings are restored; settings that it does not mention stay."""
    number = server.runner("docker-builder")["id"]
    server.ask("PUT", f"/runners/{number}", tag_list=["docker"], paused=True)
    with server.counted() as seen:
        planned = applied(harness, "register", "--check")
        assert writes(seen) == {}
        applied(harness, "register")
    assert planned.changes() == ["set tag_list of runner docker-builder in GitLab"]
    assert writes(seen) == {f"PUT /runners/{number}": 1}
    after = server.runner("docker-builder")
    assert (after["tag_list"], after["paused"]) == (["arm64", "docker"], True)
    unchanged_after(harness)


def test_one_that_we_made_and_somebody_deleted(harness: Harness, server: Server) -> None:
    """It is created again, with a note, in its entry's place: the other entries are unchanged."""
    before, old = config(harness, HOST), token_of(harness, "docker-builder")
    number = server.runner("docker-builder")["id"]
    server.delete("docker-builder")
    with server.counted() as seen:
        outcome = applied(harness, "register")
    assert writes(seen) == {"POST /user/runners": 1}
    assert f"GitLab at {URL} no longer knows runner docker-builder: it is created again" in outcome.messages()
    known = server.runner("docker-builder")
    assert config(harness, HOST).replace(f"id = {known['id']}", f"id = {number}") == before.replace(old, known["token"])
    assert known["tag_list"] == ["arm64", "docker"]
    unchanged_after(harness)


def test_a_given_one_that_somebody_deleted(harness: Harness, server: Server, by_name: dict[str, Any]) -> None:
    """Its token comes from the inventory: an error with the next step; nothing changes on the host or in GitLab."""
    server.delete("renamed")
    with server.counted() as seen, untouched(harness, HOST, "/etc/gitlab-runner", "/var/lib/provision"):
        outcome = refused(harness, "register")
    assert writes(seen) == {}
    assert f"GitLab at {URL} refuses the token of runner renamed" in outcome.errors
    assert "it was deleted or reset there" in outcome.errors
    by_name["renamed"]["token"] = server.make("renamed")
    applied(harness, "register")
    unchanged_after(harness)


def test_check_plans_all_and_deletes_nothing(harness: Harness, server: Server) -> None:
    """Two runners are removed from the inventory: the plan has the changes in GitLab and on the host."""
    kept = [one for one in harness.inventory["runners"] if one["name"] == "docker-builder"]
    with server.counted() as seen, untouched(harness, HOST, "/etc/gitlab-runner", "/var/lib/provision"):
        outcome = applied(harness, "register", "--check", changes={"runners": kept})
    assert writes(seen) == {}
    assert outcome.changes() == [
        f"unregister renamed ({URL}), reserve ({URL}) from GitLab",
        f"remove runner reserve ({URL}): no longer wanted; remove runner renamed ({URL}): no longer wanted",
    ]


def test_dropped_ones_leave_gitlab_and_the_file(harness: Harness, server: Server) -> None:
    """A runner that we created is deleted in GitLab; of the given one, only this host's manager and entry."""
    before = sections(harness)
    harness.inventory["runners"] = [one for one in harness.inventory["runners"] if one["name"] == "docker-builder"]
    with server.counted() as seen:
        applied(harness, "register")
    assert writes(seen) == {"DELETE /runners": 1, "DELETE /runners/managers": 1}
    assert {one["description"] for one in server.runners} == {"renamed", "docker-builder"}
    # The runner itself may have asked for a job between the two, and be entered anew: the request is what counts.
    assert sections(harness) == {"docker-builder": before["docker-builder"]}
    unchanged_after(harness)


def test_no_runner_at_all(harness: Harness, server: Server) -> None:
    """Our last runner is removed by a run that contacts the host for another task: the other team's file is unchanged."""
    harness.inventory["runners"] = []
    assert provision(harness, "register").code == 2, "register alone has nothing to do, and contacts no host"
    applied(harness, "docker", "register")
    assert config(harness, HOST).rstrip("\n") == FOREIGN.rstrip("\n")
    assert [one["description"] for one in server.runners] == ["renamed"]
    unchanged_after(harness, "docker", "register")


def test_an_entry_that_was_written_by_hand_is_adopted(harness: Harness, server: Server) -> None:
    """An entry of `gitlab-runner register` with the inventory's token is adopted; none is added."""
    token = server.make("by-hand")
    harness.lab.inside(HOST, f"gitlab-runner register -n --url {URL} --token {token} --executor shell --name by-hand")
    before = entries(harness, HOST)
    harness.inventory["runners"] = [{"name": "by-hand", "executor": "shell", "limit": 2, "token": token}]
    with server.counted() as seen:
        outcome: Outcome = provision(harness, "register")
    assert (outcome.code, outcome.changes()) == (0, ["by-hand: set limit"])
    assert writes(seen) == {}
    after = entries(harness, HOST)
    assert [{**one, "limit": 2} if one["name"] == "by-hand" else one for one in before] == after
    unchanged_after(harness)


def test_the_command_line_in_the_docs_and_its_inventory_lines(harness: Harness, server: Server) -> None:
    """docs/runners.md: both lead to the same runner; `register` only adds its defaults."""
    page = Path(__file__).resolve().parents[2].joinpath("docs/runners.md").read_text()
    command, lines = (re.search(rf"```{kind}\n(.*?)```", page, re.DOTALL) for kind in ("sh", "toml"))
    assert command is not None
    assert lines is not None
    token = server.make("docker-builder")
    script = command[1].replace("https://gitlab.example.com", URL)
    harness.lab.inside(HOST, "mkdir /run/by-hand && ln -s /etc/gitlab-runner/certs /run/by-hand/certs")
    harness.lab.inside(
        HOST, f"RUNNER_TOKEN={token}; {script.replace(' -n ', ' -n --config /run/by-hand/config.toml ')}"
    )
    (by_hand,) = tomllib.loads(harness.lab.inside(HOST, "cat /run/by-hand/config.toml"))["runners"]
    (wanted,) = tomllib.loads(lines[1])["runners"]
    applied(harness, "register", changes={"runners": [wanted | {"token": token}]})
    (ours,) = [one for one in entries(harness, HOST) if one["name"] == "docker-builder"]
    docker = by_hand.pop("docker")
    assert ours.pop("docker").items() <= docker.items()
    assert ours.items() <= by_hand.items()
    assert {name for name, value in docker.items() if value} == {"image", "privileged", "volumes"}


def test_settings_of_an_entry_while_its_job_runs(harness: Harness, server: Server) -> None:
    """The same process uses the new settings, and the job succeeds."""
    runner = {"name": "docker-builder", "executor": "docker", "token": server.runner("docker-builder")["token"]}
    runner |= {"docker": {"image": "docker:28", "pull_policy": "if-not-present"}, "limit": 2}
    jobs, before = "/etc/gitlab-runner-standin", process(harness, HOST)
    harness.lab.inside(HOST, f"mkdir -p {jobs} && echo 'until [ -e /run/end ]; do sleep 0.1; done' > {jobs}/job")
    wait_for(lambda: succeeds(harness, HOST, f"test -e {jobs}/job-1.running"), "the job is taken")
    outcome = applied(harness, "register", changes={"runners": [runner]})
    assert outcome.changes() == [
        "docker-builder: set limit, set docker.pull_policy, remove docker.privileged, remove docker.volumes"
    ]
    harness.lab.inside(HOST, "touch /run/end")
    wait_for(lambda: succeeds(harness, HOST, f"test -e {jobs}/job-1.done"), "the job ends")
    assert harness.lab.inside(HOST, f"cat {jobs}/job-1.done") == "success\n"
    assert process(harness, HOST) == before


def test_both_ways_to_build_images_at_once(harness: Harness, server: Server) -> None:
    """docker-in-docker and the host's socket together: a warning with the next step, applied as requested."""
    both = ["/certs/client", "/var/run/docker.sock:/var/run/docker.sock", "/cache"]
    runner = {"name": "docker-builder", "executor": "docker", "token": server.runner("docker-builder")["token"]}
    runner |= {"docker": {"image": "docker:28", "privileged": True, "volumes": both}}
    outcome = applied(harness, "register", changes={"runners": [runner]})
    assert "runner docker-builder has docker-in-docker (/certs/client) and the host's socket" in outcome.messages()
    assert [one["docker"]["volumes"] for one in entries(harness, HOST) if "docker" in one] == [both]
