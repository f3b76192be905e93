"""Projects and pipelines that cannot be set up: one message each, and nothing half done in GitLab or on the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from provision_lab.harness import Harness
from tests.support.gitlab import Server, estate
from tests.support.runs import Outcome, applied, provision, unchanged, untouched

PROJECT = "root/hello_hapi"
DATABASE = "/var/opt/gitlab/standin/db.json"
Tables = Mapping[str, Any]


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A GitLab with a project that is set up, and a template of the user's that is no pipeline."""
    harness = estate(harness_factory)
    harness.inventory["gitlab"]["ready_timeout"] = 0  # the faults here stay
    folder = harness.folder / "templates/pipelines"
    folder.mkdir(parents=True)
    (folder / "wrong.gitlab-ci.yml.j2").write_text("build:\n  stage: nowhere\n  scrpt: [make]\n")
    (folder / "broken.gitlab-ci.yml.j2").write_text("build: {{ nobody_gives_this }}\n")
    table = {"shared_runners": False, "variables": {"A": "1"}, "pipeline": {"template": "registry", "test": "true"}}
    harness.inventory["projects"] = {PROJECT: table}
    Server(harness).make("docker-builder")
    applied(harness, "project", "pipeline")
    return harness


def wants(**project: Any) -> Tables:
    """The inventory with other settings of the project, and another change that would be possible."""
    return {"projects": {PROJECT: {"registry": "disabled", **project}}}


def fails_with(outcome: Outcome, code: int, *words: str) -> None:
    """Asserts one error with this text and a remedy."""
    assert outcome.code == code, outcome.errors or outcome.stderr
    message = outcome.errors if code == 1 else outcome.stderr
    assert [word for word in words if word not in message] == []
    if code == 1:
        (error,) = outcome.of("error")
        assert error["hint"]
    else:
        assert "→" in message
        assert outcome.events == ()


INPUT = {
    "unmaskable": (wants(variables={"B": {"value": "short", "masked": True}}), ("variables.B", "8")),
    "unmaskable, fetched": (
        wants(variables={"B": {"value": {"command": ["printf", "two words"]}, "hidden": True}}),
        (f'projects."{PROJECT}".variables.B', "it cannot be masked"),
    ),
    "no template": (wants(pipeline={"template": "registri"}), ('did you mean "registry"',)),
    "a broken template": (wants(pipeline={"template": "broken"}), ("broken.gitlab-ci.yml.j2", "nobody_gives_this")),
}


@pytest.mark.parametrize("kind", INPUT)
def test_bad_input(harness: Harness, kind: str) -> None:
    """The error has its place, and nothing is contacted."""
    changes, words = INPUT[kind]
    with Server(harness).counted() as seen:
        fails_with(provision(harness, "project", "pipeline", changes=changes), 2, *words)
    assert dict(seen) == {}


REFUSED = {
    "an unknown runner": (wants(runners=["docker-bilder"]), ("docker-bilder", 'did you mean "docker-builder"?')),
    "an instance's runner": (wants(runners=["docker-builder"]), ("instance_type",)),
    "no such project": (
        {"projects": {PROJECT: {"variables": {"B": "2"}}, "root/helo": {"registry": "enabled"}}},
        ("root/helo does not exist",),
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_gitlab_has_not(harness: Harness, kind: str) -> None:
    """Nothing is changed, not even the other change; check mode reports the same."""
    changes, words = REFUSED[kind]
    with untouched(harness, "gitlab", DATABASE, "/var/lib/provision"):
        fails_with(provision(harness, "project", changes=changes), 1, *words)
        fails_with(provision(harness, "project", "--check", changes=changes), 1, *words)


def test_gitlabs_lint_refuses(harness: Harness) -> None:
    """Lint's error; nothing is committed."""
    with untouched(harness, "gitlab", DATABASE, "/var/lib/provision"):
        outcome = provision(harness, "pipeline", changes=wants(pipeline={"template": "wrong"}))
        fails_with(outcome, 1, "config contains unknown keys: scrpt", "chosen stage nowhere does not exist")


@pytest.mark.parametrize(("status", "words"), [(401, "api_token"), (403, "owner"), (500, "gitlab-ctl tail")])
@pytest.mark.parametrize("task", ["project", "pipeline"])
def test_gitlab_refuses(harness: Harness, task: str, status: int, words: str) -> None:
    """GitLab's answer and the remedy; when it answers again, the same command succeeds."""
    fault = {"path": "/api/v4/projects/*", "status": status}
    with untouched(harness, "gitlab", DATABASE, "/var/lib/provision"), Server(harness).faults(fault):
        fails_with(provision(harness, task, changes=wants(pipeline={"test": "false"})), 1, str(status), words)
    unchanged(harness, task)


def test_gitlab_fails_in_the_middle(harness: Harness) -> None:
    """What was done stays and is recorded; the next run does the rest only."""
    variables = {"variables": {"B": "2", "C": "3"}}
    with Server(harness).faults({"method": "POST", "path": "*/variables", "status": 502}):
        outcome = provision(harness, "project", changes=wants(**variables))
    assert outcome.changes() == [f"set container_registry_access_level of project {PROJECT}"]
    fails_with(outcome, 1, "502")
    again = applied(harness, "project", changes=wants(**variables))
    assert again.changes() == [f"create variable {one} of project {PROJECT}" for one in "BC"]
    unchanged(harness, "project", changes=wants(**variables))
