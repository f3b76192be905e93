"""Registration when GitLab refuses, limits, fails or does not answer, and when config.toml changes meanwhile.

The tests run in order; each starts where the one before ended.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from provision_lab.harness import Harness
from tests.support.faults import Live, on_host, wait_until_free
from tests.support.gitlab import CONFIG, URL, Server, config, docker_runner, entries, estate, process, writes
from tests.support.runs import applied, provision, refused, unchanged, untouched
from tests.support.waiting import wait_for

HOST = "runner-1"
MAKING = "/api/v4/user/runners"
VERIFYING = "/api/v4/runners/verify"
# In gitlab-runner's place: its lint comes at the moment between our look and our write.
BUSY = """#!/bin/sh
if [ "$1 $2" = "lint --config" ] && [ -s /run/rewrite ]; then sh /run/rewrite; fi
exec /usr/bin/gitlab-runner.real "$@"
"""


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A GitLab and a host with two registered runners: `kept` was created by us, `given` in the UI."""
    harness = estate(harness_factory, HOST)
    harness.inventory["gitlab"]["ready_timeout"] = 0  # the faults here stay
    harness.inventory["runners"] = [
        docker_runner("kept", tags=["a"]),
        {"name": "given", "executor": "shell", "token": Server(harness).make("given")},
    ]
    applied(harness, "register")
    unchanged(harness, "register")
    return harness


@pytest.fixture(scope="module")
def server(harness: Harness) -> Server:
    """The GitLab."""
    return Server(harness)


def more(harness: Harness, *runners: Mapping[str, Any]) -> dict[str, Any]:
    """The inventory with these runners in addition."""
    return {"runners": [*harness.inventory["runners"], *runners]}


@pytest.fixture
def nothing_happens(harness: Harness, server: Server) -> Iterator[None]:
    """Asserts that the host's files and GitLab's runners are unchanged."""
    before = [(one["id"], one["token"], one["tag_list"]) for one in server.runners]
    with untouched(harness, HOST, "/etc/gitlab-runner", "/var/lib/provision"):
        yield
    assert [(one["id"], one["token"], one["tag_list"]) for one in server.runners] == before


@pytest.mark.usefixtures("nothing_happens")
def test_gitlab_is_down(harness: Harness, server: Server) -> None:
    """No runner is considered deleted; the exit code shows that the state is unknown; creating a runner waits."""
    with server.down():
        known = refused(harness, "register")
        new = refused(harness, "register", changes=more(harness, docker_runner("new")))
        checked = provision(harness, "register", "--check")
    assert "verify with GitLab the tokens of kept, given" in known.errors
    assert known.messages().count("the connection is refused): its entry stays unchanged") == 2
    assert "cannot create new in GitLab" in new.errors
    assert "that the service runs" in new.errors
    assert new.messages().count("its entry stays unchanged") == 2
    assert (checked.code, checked.changes()) == (0, [])
    assert checked.messages().count("its entry stays unchanged") == 2


def test_what_needs_no_gitlab_is_done_without_it(harness: Harness, server: Server) -> None:
    """With GitLab down, a setting of the file is applied, and the exit code still shows the unknown part."""
    with server.down():
        outcome = refused(harness, "register", changes={"runner": {"concurrent": 5}})
    assert outcome.changes() == ["set concurrent"]
    assert "concurrent = 5" in config(harness, HOST)
    applied(harness, "register")
    unchanged(harness, "register")


@pytest.mark.usefixtures("nothing_happens")
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"status": 500}, ("knows runner kept is unknown (it answers 500)",)),
        ({"status": 502, "body": "<html>Bad Gateway</html>"}, ("(it answers 502)",)),
        ({"status": 403, "body": "Forbidden\n"}, ("it answers every request of the host with 403",)),
        ({"status": 429, "headers": {"Retry-After": "7200"}}, ("(it answers 429)",)),
        ({"drop": True}, ("its entry stays unchanged",)),
    ],
    ids=["500", "502", "a ban", "429", "dropped"],
)
def test_an_unexpected_answer_does_not_mean_deleted(
    harness: Harness, server: Server, fault: dict[str, Any], words: tuple[str, ...]
) -> None:
    """GitLab or a proxy answers a token with something other than yes or no."""
    with server.faults({"path": VERIFYING, **fault}), server.counted() as seen:
        outcome = refused(harness, "register")
    assert writes(seen) == {}
    assert [one for one in words if one not in outcome.messages()] == []


@pytest.mark.usefixtures("nothing_happens")
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"status": 401}, ("refused /user/runners: 401", "gitlab.api_token is not valid")),
        ({"status": 403}, ("refused /user/runners: 403", "projects need the role Maintainer")),
        ({"status": 404}, ("refused /user/runners: 404", "check the project or group")),
        ({"status": 422, "body": {"message": "422 Tags are odd"}}, ("422 422 Tags are odd",)),
        ({"status": 500}, ("refused /user/runners: 500", "GitLab itself reports an error")),
        ({"status": 503, "body": "<html>maintenance</html>"}, ("503", "GitLab itself reports an error")),
        ({"status": 201, "body": {}}, ("created a runner but returned no token",)),
        ({"drop": True}, ("refused /user/runners: 502", "GitLab itself reports an error")),
    ],
    ids=["401", "403", "404", "422", "500", "503", "no token", "dropped"],
)
def test_gitlab_refuses_to_create(
    harness: Harness, server: Server, fault: dict[str, Any], words: tuple[str, ...]
) -> None:
    """GitLab's error and the next step; the file is unchanged."""
    with server.faults({"path": MAKING, "method": "POST", **fault}):
        outcome = refused(harness, "register", changes=more(harness, docker_runner("new")))
    assert [one for one in words if one not in outcome.errors] == []


@pytest.mark.usefixtures("nothing_happens")
@pytest.mark.parametrize("status", [403, 422])
def test_a_token_that_gitlab_refuses(harness: Harness, server: Server, status: int) -> None:
    """A deleted, reset, foreign or orphaned token: nothing is written, and the token is not shown."""
    token = "glrt-of-nobody-in-here"
    wrong = {"name": "wrong", "executor": "shell", "token": token}
    fault = [{"path": VERIFYING, "status": 422, "body": {"message": "422 Runner is orphaned"}}] if status == 422 else []
    with server.faults(*fault):
        outcome = refused(harness, "register", changes={"runners": [wrong]} if fault else more(harness, wrong))
    assert f"GitLab at {URL} refuses the token of runner wrong" in outcome.errors
    assert "give a valid one" in outcome.errors
    assert token not in json.dumps(outcome.events) + outcome.stderr


@pytest.mark.usefixtures("nothing_happens")
def test_registration_tokens_are_off(harness: Harness, server: Server) -> None:
    """410: what it means, since when, and what to do instead."""
    old = docker_runner("old-way", registration_token="GR1348941-the-old-way")
    with server.counted() as seen:
        outcome = refused(harness, "register", changes=more(harness, old))
    assert "registration tokens are off (the default since GitLab 17.0)" in outcome.errors
    assert "give gitlab.api_token" in outcome.errors
    assert writes(seen) == {"POST /runners": 1}
    assert "GR1348941" not in json.dumps(outcome.events) + outcome.stderr


def test_a_registration_token_is_exchanged_once(harness: Harness, server: Server) -> None:
    """Where they are still enabled: one POST without an API token; removed later, it leaves GitLab.

    GitLab is somebody else's here: for its own GitLab the program makes a token.
    """
    old = docker_runner("old-way", tags=["legacy"], registration_token="GR1348941-the-old-way")
    changes = more(harness, old) | {"gitlab": {**harness.inventory["gitlab"], "api_token": "", "install": False}}
    del changes["gitlab"]["api_token"]
    kept = harness.inventory["gitlab"].pop("api_token")
    try:
        with server.settings(legacy_registration=True, registration_token="GR1348941-the-old-way"):
            with server.counted() as seen:
                applied(harness, "register", changes=changes)
            unchanged(harness, "register", changes=changes)
        assert writes(seen) == {"POST /runners": 1}
        assert server.runner("old-way")["tag_list"] == ["legacy"]
        assert entries(harness, HOST)[-1]["token"] == server.runner("old-way")["token"]
    finally:
        harness.inventory["gitlab"]["api_token"] = kept
    applied(harness, "register")
    assert [one["description"] for one in server.runners] == ["given", "kept"]


@pytest.mark.parametrize("path", [MAKING, VERIFYING])
def test_limited_requests_wait(harness: Harness, server: Server, path: str) -> None:
    """429 with Retry-After, here or on the host: waited for, then everything succeeds with one new runner."""
    limit = {"path": path, "method": "POST", "status": 429, "headers": {"Retry-After": "2"}, "times": 1}
    with server.faults(limit), server.counted() as seen:
        outcome = applied(harness, "register", changes=more(harness, docker_runner("late")))
    assert seen["POST /user/runners"] == (2 if path == MAKING else 1)
    assert outcome.summary["seconds"] >= 2
    assert len([one for one in server.runners if one["description"] == "late"]) == 1
    applied(harness, "register")
    assert [one["description"] for one in server.runners] == ["given", "kept"]


def test_settings_that_the_token_may_not_change(harness: Harness, server: Server) -> None:
    """With create_runner only, settings cannot be compared: one note with the scope needed; the rest is done."""
    server.ask("PUT", f"/runners/{server.runner('kept')['id']}", tag_list=["b"])
    with server.faults({"path": "/api/v4/runners/*", "method": "GET", "status": 403}), server.counted() as seen:
        outcome = applied(harness, "register")
    assert writes(seen) == {}
    assert "the settings of runner kept are not compared with GitLab" in outcome.messages()
    assert "scope api" in outcome.messages()
    applied(harness, "register")
    assert server.runner("kept")["tag_list"] == ["a"]


@pytest.mark.usefixtures("nothing_happens")
def test_a_setting_that_gitlab_refuses(harness: Harness, server: Server) -> None:
    """PUT is answered 400: GitLab's reason, and the next run tries again."""
    changed = {"runners": [dict(harness.inventory["runners"][0], tags=["z"]), harness.inventory["runners"][1]]}
    refusal = {"path": "/api/v4/runners/*", "method": "PUT", "status": 400, "body": {"message": "400 Tags are odd"}}
    with server.faults(refusal):
        outcome = refused(harness, "register", changes=changed)
    assert "Tags are odd" in outcome.errors


def test_killed_between_creating_and_writing(harness: Harness, server: Server) -> None:
    """Killed after GitLab created the runner and before its token was read: the next run adopts it."""
    wanted = docker_runner("orphan", tags=["first"])
    with server.faults({"path": MAKING, "method": "POST", "delay": 2, "times": 1}):
        run = Live(harness, "register", changes=more(harness, wanted))
        wait_for(lambda: "delay" not in harness.lab.inside("gitlab", "cat /etc/gitlab-standin/api-faults.json"), "POST")
        run.kill()
        wait_for(lambda: len(server.runners) == 3, "GitLab has made it")
    orphan = server.runner("orphan")
    assert [one["name"] for one in entries(harness, HOST)] == ["kept", "given"]
    wait_until_free(harness, HOST)
    changes = more(harness, {**wanted, "tags": ["second"]})
    with server.counted() as seen:
        applied(harness, "register", changes=changes)
    number = orphan["id"]
    assert writes(seen) == {f"PUT /runners/{number}": 1, f"POST /runners/{number}/reset_authentication_token": 1}
    after = server.runner("orphan")
    assert (after["id"], after["tag_list"]) == (number, ["second"])
    assert entries(harness, HOST)[-1]["token"] == after["token"] != orphan["token"]
    unchanged(harness, "register", changes=changes)
    applied(harness, "register")
    assert [one["description"] for one in server.runners] == ["given", "kept"]


def test_gitlab_refuses_to_delete(harness: Harness, server: Server) -> None:
    """DELETE is answered 500: the entry stays, so that the next run can delete it."""
    dropped = {"runners": harness.inventory["runners"][1:]}
    before = config(harness, HOST)
    with server.faults({"path": "/api/v4/runners", "method": "DELETE", "status": 500}):
        outcome = refused(harness, "register", changes=dropped)
    assert "did not delete the runner: 500" in outcome.errors
    assert config(harness, HOST) == before
    unchanged(harness, "register")


@pytest.mark.parametrize("known_by", ["given", "made"])
def test_lint_refuses_before_anything_is_replaced(harness: Harness, server: Server, known_by: str) -> None:
    """A key in `extra` that gitlab-runner does not know: its error; the file is unchanged, no second runner is created."""
    runner = docker_runner("typo", docker={"image": "docker:28", "extra": {"privelegd": True}})
    if known_by == "given":
        runner["token"] = server.make("typo")
    with untouched(harness, HOST, CONFIG):
        for _ in range(2):
            outcome = refused(harness, "register", changes=more(harness, runner))
            assert "unknown key" in outcome.errors
            assert "privelegd" in outcome.errors
    assert len([one for one in server.runners if one["description"] == "typo"]) == 1
    server.delete("typo")
    unchanged(harness, "register")


def test_the_runner_rewrites_the_file_meanwhile(harness: Harness) -> None:
    """config.toml changes between observing and writing: detected and observed again; both changes stay."""
    rewrite = f"rm /run/rewrite; sed -i 's/^check_interval.*/check_interval = 9/; 1i # rotated' {CONFIG}"
    with on_host(
        harness,
        HOST,
        "mv /usr/bin/gitlab-runner /usr/bin/gitlab-runner.real; cat > /usr/bin/gitlab-runner <<'END'\n"
        f'{BUSY}END\nchmod 755 /usr/bin/gitlab-runner; echo "{rewrite}" > /run/rewrite',
        "mv -f /usr/bin/gitlab-runner.real /usr/bin/gitlab-runner; rm -f /run/rewrite",
    ):
        before = process(harness, HOST)
        outcome = applied(harness, "register", changes={"runner": {"concurrent": 8}})
        assert "changed by another program in the meantime: observing again" in outcome.messages()
        assert config(harness, HOST).startswith("# rotated\n")
        assert "concurrent = 8" in config(harness, HOST)
        assert process(harness, HOST) == before
        harness.lab.inside(HOST, f"echo \"printf '# again\\n' >> {CONFIG}\" > /run/rewrite")
        endless = refused(harness, "register", changes={"runner": {"concurrent": 9}})
        assert "ChangedMeanwhile" in endless.errors
        assert "concurrent = 8" in config(harness, HOST)
    unchanged(harness, "register", changes={"runner": {"concurrent": 8}})


def test_two_runs_at_once(harness: Harness, server: Server) -> None:
    """The second is refused and names the first; the first creates one runner."""
    changes = more(harness, docker_runner("once"))
    with server.faults({"path": MAKING, "method": "POST", "delay": 10, "times": 1}):
        first = Live(harness, "register", changes=changes)
        wait_for(lambda: "delay" not in harness.lab.inside("gitlab", "cat /etc/gitlab-standin/api-faults.json"), "POST")
        second = refused(harness, "register", changes=changes)
    (error,) = second.of("error")
    assert error["error"] == "Locked"
    assert str(first.process.pid) in error["text"]
    assert first.end().code == 0
    assert len([one for one in server.runners if one["description"] == "once"]) == 1
    unchanged(harness, "register", changes=changes)
