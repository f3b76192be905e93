"""From bare hosts to an app that answers, with an inventory without a token: killed 20 times on the way, then changed.

GitLab is new. `provision all` makes the token, a user and her project, pushes the source, waits for the pipeline that
builds, tests and releases the image in containers, and runs the image.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness
from provision_lab.hosts import Server
from tests.support.canaries import Canaries, files, watched
from tests.support.faults import Live, killed_run, wait_until_free
from tests.support.gitlab import URL, entries
from tests.support.images import answer
from tests.support.pages import DOCS
from tests.support.runs import Outcome, provision, succeeds, unchanged
from tests.support.waiting import wait_for

EXAMPLE = DOCS.parent / "examples/hello_hapi"
PROJECT = "anna/hello_hapi"
ROOT = "correct-horse-battery-7"
ANNA = "another-horse-battery-8"
_SWITCH = "/etc/gitlab-standin/rails-runner-exit-seconds"
_DATABASE = "/var/opt/gitlab/standin/db.json"
_EARLY_KILLS = 14  # while packages are installed on both hosts
# The first test installs all in some 20 runs, while hosts of other tests boot.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A GitLab host without users and projects, and a runner host; nothing is installed."""
    harness = harness_factory(LabHost("gitlab"), LabHost("runner-1"), server=Server(seeded=False))
    gitlab = harness.inventory["gitlab"]
    del gitlab["api_token"], harness.inventory["registry"]["login"]
    gitlab |= {"root_password": ROOT, "users": {"anna": {"email": "anna@example.com", "password": ANNA}}}
    source = shutil.copytree(EXAMPLE, harness.folder / "hello_hapi")
    harness.inventory["projects"] = {
        PROJECT: {
            "create": True,
            "runners": ["docker-builder"],
            "source": str(source),
            "pipeline": {"template": "registry", "build": "socket", "test": "npm test"},
            "wait": True,
        }
    }
    harness.inventory["docker"]["daemon"] |= harness.lab.docker_hub
    harness.inventory["runners"][0] |= {
        "project": PROJECT,
        "docker": {
            "image": "docker:28-cli",
            "volumes": ["/var/run/docker.sock:/var/run/docker.sock", "/cache"],
            "extra_hosts": [f"gitlab.lab.test:{harness.lab.machine('gitlab').host.address}"],
        },
    }
    harness.inventory["apps"] = [
        {
            "name": "hello_hapi",
            "image": f"{PROJECT}:latest",
            "ports": ["3000:3000"],
            "check": {"url": "http://localhost:3000/hello/test", "contains": ", test!"},
            "login": {"username": "anna", "password": ANNA},
        }
    ]
    return harness


def change(harness: Harness, file: str, old: str, new: str) -> None:
    """Changes a line of the source."""
    path = harness.folder / "hello_hapi" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def greeting(harness: Harness) -> str:
    """What the app answers over HTTP."""
    return answer(harness, "runner-1", "/hello/test", 3000)


def pipelines(harness: Harness) -> list[str]:
    """The states of all pipelines, the oldest first."""
    return [one["status"] for one in database(harness)["pipelines"]]


def database(harness: Harness) -> dict[str, Any]:
    """What GitLab stores."""
    text = harness.lab.inside("gitlab", f"cat {_DATABASE} 2>/dev/null || echo '{{}}'")
    return dict(json.loads(text))


def tokens(harness: Harness) -> list[dict[str, Any]]:
    """The tokens that are not revoked."""
    return [one for one in database(harness).get("tokens", []) if not one.get("revoked")]


@pytest.fixture(scope="module")
def killed(harness: Harness) -> list[dict[str, Any]]:
    """The living tokens after a run that was killed when GitLab had stored the token and the host had not.

    Earlier runs are killed at their first change: on the GitLab host or on the runner host, as both are set up at once.
    """
    for _ in range(_EARLY_KILLS):
        killed_and_free(harness)
    assert tokens(harness) == []
    harness.lab.inside("gitlab", f"mkdir -p /etc/gitlab-standin; echo 12 > {_SWITCH}")
    run = Live(harness, "all")
    wait_for(lambda: tokens(harness) != [], "GitLab has the token", 240)
    run.kill()
    found = tokens(harness)
    assert not succeeds(harness, "gitlab", "test -e /var/lib/provision/api_token")
    harness.lab.inside("gitlab", f"rm {_SWITCH}")
    free(harness)
    return found


def killed_and_free(harness: Harness, news: str = "") -> None:
    """A run that is killed at its first change, or at a message with `news`; then its steps on the hosts have ended."""
    killed_run(harness, "all", news=news)
    free(harness)


def free(harness: Harness) -> None:
    """Waits until all steps of earlier runs have ended."""
    for host in ("gitlab", "runner-1"):
        wait_until_free(harness, host)


@pytest.fixture(scope="module")
def canaries(killed: list[dict[str, Any]]) -> Canaries:
    """The token and the passwords."""
    (token,) = killed
    return Canaries({"token": token["token"], "root": ROOT, "anna": ANNA})


@pytest.fixture(scope="module")
def first(harness: Harness, canaries: Canaries) -> Outcome:
    """The runs after it, all but the last one killed, with all processes of the hosts and of this machine watched."""
    kills = _EARLY_KILLS + 1
    with watched(harness, canaries):
        while not pipelines(harness):
            killed_and_free(harness)
            kills += 1
        for _ in range(3):
            killed_and_free(harness, "pipeline #1")
            kills += 1
        outcome = provision(harness, "all")
    assert outcome.code == 0, f"{outcome.errors}\n{outcome.stderr}"
    assert kills >= 20
    return outcome


def test_the_token(first: Outcome, killed: list[dict[str, Any]], harness: Harness) -> None:
    """The token of the killed run is the only one. Only root of the GitLab host can read it."""
    (token,) = tokens(harness)
    assert token == killed[0]
    assert (token["user"], token["scopes"]) == ("root", ["api"])
    file = harness.host("gitlab").file("/var/lib/provision/api_token")
    assert (file.mode, file.user) == (0o600, "root")
    assert token["token"] in file.content_string
    assert first.summary["failed"] == 0


def test_no_secret_elsewhere(first: Outcome, harness: Harness, canaries: Canaries) -> None:
    """No event, argument, environment, file of the runner host or other file of the GitLab host has one of them."""
    assert canaries.samples > 100
    assert [one for one in canaries.seen if one[0] in canaries.texts] == []
    assert canaries.inside(json.dumps(first.events).encode() + first.stderr.encode()) == []
    assert leaks(harness, "runner-1", canaries) == set()
    assert leaks(harness, "gitlab", canaries) <= {"/var/lib/provision/api_token", _DATABASE}


def leaks(harness: Harness, host: str, canaries: Canaries) -> set[str]:
    """The host's files that have one of these secrets."""
    root = harness.lab.machine(host).root
    searched = (root / top for top in ("etc", "home", "root", "run", "tmp", "var"))
    found = [file for top in searched for file in files(top) if canaries.inside(file.read_bytes())]
    return {f"/{file.relative_to(root)}" for file in found}


def test_what_was_made(first: Outcome, harness: Harness) -> None:
    """A user, her project, and a runner that is locked to it; an image was pushed and pulled, and its login is gone."""
    stored = database(harness)
    assert {one["username"] for one in stored["users"]} == {"root", "anna"}
    assert [one["path_with_namespace"] for one in stored["projects"]] == [PROJECT]
    (runner,) = stored["runners"]
    assert (runner["runner_type"], runner["locked"]) == ("project_type", True)
    assert [one["url"] for one in entries(harness, "runner-1")] == [URL]
    assert first.statuses("runner-1")["verify"] == "ok"
    bots = [one["revoked"] for one in stored["tokens"] if "bot_of" in one]
    assert bots, "an image was pushed and pulled by one"
    assert all(bots)


def test_the_first_password(first: Outcome, harness: Harness) -> None:
    """Root logs in with the password of the inventory, and no file has another one."""
    assert first.summary["failed"] == 0
    login = f"curl -sk -o /dev/null -w '%{{http_code}}' -K - '{URL}/jwt/auth?service=container_registry'"
    assert harness.lab.inside("gitlab", login, stdin=f'user = "root:{ROOT}"\n') == "200"
    assert not succeeds(harness, "gitlab", "test -e /etc/gitlab/initial_root_password")


def test_the_pipeline_released_what_the_source_says(first: Outcome, harness: Harness) -> None:
    """One pipeline, however often the run was killed; its image answers."""
    assert first.summary["failed"] == 0
    assert pipelines(harness) == ["success"]
    assert greeting(harness) == "Hello, test!\n"


def test_the_next_run_changes_nothing(first: Outcome, harness: Harness) -> None:
    """Every task is ok, within 9 round trips; GitLab's API is not asked, and Rails not started."""
    assert first.summary["failed"] == 0
    harness.lab.inside("gitlab", "mkdir -p /etc/gitlab-standin; echo 600 > /etc/gitlab-standin/rails-runner-seconds")
    again = unchanged(harness, "all")
    assert again.statuses("gitlab")["access"] == "ok"
    assert max(one["round_trips"] for one in again.summary["hosts"].values()) <= 9


def test_a_changed_line_is_released(first: Outcome, harness: Harness) -> None:
    """Pushed, built, tested, released and deployed in one run, which touches nothing else."""
    assert first.summary["failed"] == 0
    change(harness, "server.js", "Hello, ", "Good morning, ")
    change(harness, "test/server.test.js", "Hello, test!", "Good morning, test!")
    outcome = provision(harness, "all")
    assert outcome.code == 0, outcome.errors
    push, wait, replace = outcome.changes()
    assert push.startswith("push 2 files of hello_hapi to branch main")
    assert wait.startswith("wait for the pipeline of commit ")
    assert replace.startswith("replace hello_hapi: ")
    assert greeting(harness) == "Good morning, test!\n"
    assert pipelines(harness) == ["success", "success"]
    unchanged(harness, "all")
