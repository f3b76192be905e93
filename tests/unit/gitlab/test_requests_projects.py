"""Requests of `project` and `pipeline` to GitLab's API, compared with GitLab's own description.

Branches and merge requests are not in that description: their requests are held against the shape that the documentation
gives (docs.gitlab.com/api/branches, docs.gitlab.com/api/merge_requests).
"""

from __future__ import annotations

import base64
import re
import shutil
from dataclasses import replace
from typing import Any

import pytest

from provision.gitlab.repository import Repository
from provision.resources import PipelineFile, ProjectSettings, Resource, WantedProject, WantedVariable
from provision.resources.base import ApiAction
from provision.secret import Secret
from provision.testing import LocalSession, observe_on, planned
from tests.unit.gitlab.test_requests_openapi import DESCRIPTION, Between, Sent, between, check, described

__all__ = ["between", "described"]
pytestmark = [
    pytest.mark.skipif(not DESCRIPTION.exists(), reason=f"{DESCRIPTION.name} is not beside the checkout"),
    pytest.mark.skipif(shutil.which("ruby") is None, reason="the lab's CI lint reads YAML with ruby"),
]
PLACE = "/projects/root%2Fone"
# Method and path → what may be given: required and optional names, in query or body, and good statuses.
BY_HAND = {
    r"GET /projects/[^/]+/repository/branches/[^/]+": (set(), set(), (200, 404)),
    r"DELETE /projects/[^/]+/repository/branches/[^/]+": (set(), set(), (204,)),
    r"GET /projects/[^/]+/merge_requests": (
        set(),
        {"state", "source_branch", "target_branch", "page", "per_page"},
        (200,),
    ),
    r"POST /projects/[^/]+/merge_requests": (
        {"source_branch", "target_branch", "title"},
        {"description", "remove_source_branch", "squash", "labels"},
        (201, 409),
    ),
}


def apply(resource: Resource, host: LocalSession) -> None:
    """Observes, and makes the changes at the API."""
    for change in planned(resource, observe_on(host, resource)):
        if isinstance(change.run, ApiAction):
            change.run.make()


def checked(described: Any, between: Between, *calls: str) -> None:
    """These calls and no others were sent, each as described, or by hand where it is not described."""
    assert [f"{one.method} {one.path.removeprefix('/api/v4')} {one.status}" for one in between.sent] == list(calls)
    for one in between.sent:
        if not _by_hand(one):
            # That a file may be missing is in the documentation, and not in the description.
            check(described, replace(one, status=200) if (one.method, one.status) == ("GET", 404) else one)


def _by_hand(sent: Sent) -> bool:
    for pattern, (required, optional, statuses) in BY_HAND.items():
        if re.fullmatch(pattern, f"{sent.method} {sent.path.removeprefix('/api/v4')}"):
            given = {**sent.query, **sent.body}
            assert required <= given.keys() <= required | optional
            assert all(isinstance(given[name], str) for name in required)
            assert sent.status in statuses
            return True
    return False


@pytest.fixture
def host(tmp_path: Any) -> LocalSession:
    """A host without a record."""
    (tmp_path / "home").mkdir()
    return LocalSession({"/var/lib/provision": tmp_path / "home"})


def test_a_project(described: Any, between: Between, host: LocalSession) -> None:
    """Settings, a runner, variables of every kind: created, changed, replaced."""
    between.api.post(
        "/user/runners", {"runner_type": "project_type", "project_id": 1, "description": "r", "locked": False}
    )
    between.api.put("/runners/1", {"locked": False})
    variables = (
        WantedVariable("A", "plain", "production", protected=True, raw=True, description="for the web"),
        WantedVariable("B", Secret("masked-value"), masked=True),
        WantedVariable("C", Secret("hidden-value"), hidden=True),
        WantedVariable("D", "a\nb\n", type="file"),
    )
    settings = {"shared_runners_enabled": False, "container_registry_access_level": "private"}
    wanted = WantedProject("root/one", settings, ("r",), (), variables)
    del between.sent[:]
    apply(ProjectSettings(wanted, between.api), host)
    looks = (f"GET {PLACE} 200", f"GET {PLACE}/variables 200", "GET /runners/all 200", "GET /runners/1 200")
    checked(described, between, *looks, f"PUT {PLACE} 200", "PUT /runners/1 200", *[f"POST {PLACE}/variables 201"] * 4)
    del between.sent[:]
    other = (WantedVariable("A", "other", "production"), WantedVariable("B", Secret("masked-value"), hidden=True))
    apply(ProjectSettings(WantedProject("root/one", variables=other), between.api), host)
    checked(
        described,
        between,
        f"GET {PLACE} 200",
        f"GET {PLACE}/variables 200",
        f"PUT {PLACE}/variables/A 200",
        f"DELETE {PLACE}/variables/B 204",
        f"POST {PLACE}/variables 201",
    )


def test_assigning_a_runner(described: Any, between: Between, host: LocalSession) -> None:
    """One that is locked to another project is unlocked for it."""
    made = {"runner_type": "project_type", "project_id": 1, "description": "r", "locked": True}
    between.api.post("/user/runners", made)
    del between.sent[:]
    apply(ProjectSettings(WantedProject("root/two", runners=("r",)), between.api), host)
    place = "/projects/root%2Ftwo"
    looks = (f"GET {place} 200", "GET /runners/all 200", "GET /runners/1 200")
    steps = ("GET /runners/1 200", "PUT /runners/1 200", f"POST {place}/runners 201", "PUT /runners/1 200")
    checked(described, between, *looks, *steps)


TEXT = "build:\n  script: [make]\n"
FILE = f"{PLACE}/repository/files/.gitlab-ci.yml"


def test_committing_a_pipeline(described: Any, between: Between, host: LocalSession) -> None:
    """A first commit, a change, and a new branch."""
    apply(PipelineFile("root/one", between.api, TEXT, "first"), host)
    checked(described, between, f"GET {PLACE} 200", "POST /projects/1/ci/lint 200", f"POST {FILE} 201")
    del between.sent[:]
    apply(PipelineFile("root/one", between.api, TEXT + "# two\n", "second"), host)
    steps = (f"GET {PLACE} 200", f"GET {FILE} 200", "POST /projects/1/ci/lint 200", f"PUT {FILE} 200")
    checked(described, between, *steps)
    del between.sent[:]
    apply(PipelineFile("root/one", between.api, TEXT, "third", "ci"), host)
    steps = (f"GET {PLACE} 200", f"GET {FILE} 404", f"GET {PLACE}/repository/branches/ci 404", f"GET {FILE} 200")
    checked(described, between, *steps, "POST /projects/1/ci/lint 200", f"PUT {FILE} 200")
    assert between.sent[-1].body["start_branch"] == "main"


def test_a_merge_request(described: Any, between: Between, host: LocalSession) -> None:
    """A branch of ours with a merge request; an outdated one is created again."""
    repository = Repository(between.api, PLACE)
    repository.commit("README.md", "hello\n", None, {"branch": "main"}, "first")
    repository.commit("x", "stale\n", None, {"branch": "ours", "start_branch": "main"}, "stale")
    del between.sent[:]
    apply(PipelineFile("root/one", between.api, TEXT, "second", ours="ours"), host)
    branch = f"{PLACE}/repository/branches/ours"
    checked(
        described,
        between,
        f"GET {PLACE} 200",
        f"GET {FILE} 404",
        f"GET {FILE} 404",
        f"GET {branch} 200",
        f"GET {PLACE}/merge_requests 200",
        "POST /projects/1/ci/lint 200",
        f"DELETE {branch} 204",
        f"POST {FILE} 201",
        f"POST {PLACE}/merge_requests 201",
    )
    found = between.api.get(FILE, {"ref": "ours"})
    assert base64.b64decode(found["content"]).decode() == TEXT
