"""What GitLab refuses by role, scope and rate limit, as the product reports it. The lab's GitLab answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provision.errors import ApiFailed, Refused
from provision.gitlab.api import Api, pause
from provision.gitlab.runners import RunnerCreator
from provision.resources import PipelineFile, ProjectSettings, Resource, WantedProject, WantedVariable
from provision.resources.base import ApiAction
from provision.secret import Secret
from provision.testing import LocalSession, observe_on, planned
from provision.url import Url
from provision_lab.standins.gitlab_ce.loopback import serve

pytestmark = pytest.mark.slow

SHOP = "acme/web/shop"
MEMBERS = ("guest", "developer", "maintainer", "owner")
SEED: dict[str, Any] = {
    "api_token": "glpat-root",
    "users": {"root": "pw", **dict.fromkeys(MEMBERS, "pw")},
    "groups": {"acme": {}, "acme/web": {}},
    "projects": [SHOP],
    "members": [{"user": one, "path": "acme", "role": one} for one in MEMBERS],
    "tokens": [
        *({"token": f"glpat-{one}", "user": one, "scopes": ["api"]} for one in MEMBERS),
        {"token": "glpat-plain-root", "user": "root", "scopes": ["api"]},
    ],
}
WANTED = WantedProject(SHOP, {"shared_runners_enabled": False}, (), (), (WantedVariable("ENV", Secret("x")),))


class GitLab:
    """An instance; `switch` changes its settings."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = Url.parse(url)
        self._folder = folder

    def api(self, name: str) -> Api:
        """The client with the token of a user."""
        return Api(self._url, Secret(f"glpat-{name}"))

    def switch(self, **settings: Any) -> None:
        """Changes settings, as an administrator does in the admin area."""
        (self._folder / "etc/gitlab-standin/settings.json").write_text(json.dumps(settings))


@pytest.fixture
def gitlab(tmp_path: Path) -> Iterator[GitLab]:
    """An instance whose project has a member of each role, by its group."""
    with serve(tmp_path, SEED) as url:
        yield GitLab(url, tmp_path)


@pytest.fixture
def host(tmp_path: Path) -> LocalSession:
    """A host without a record."""
    (tmp_path / "home").mkdir()
    return LocalSession({"/var/lib/provision": tmp_path / "home"})


def apply(resource: Resource, host: LocalSession) -> None:
    """Observes, and makes the changes at the API."""
    for change in planned(resource, observe_on(host, resource)):
        if isinstance(change.run, ApiAction):
            change.run.make()


def test_a_project_needs_its_maintainer(gitlab: GitLab, host: LocalSession) -> None:
    """The role is named; the variables are read first, and GitLab lets no Developer read them."""
    with pytest.raises(ApiFailed, match="403 403 Forbidden") as caught:
        apply(ProjectSettings(WANTED, gitlab.api("developer")), host)
    assert caught.value.status == 403
    assert "the role Maintainer" in caught.value.hint
    apply(ProjectSettings(WANTED, gitlab.api("maintainer")), host)
    assert gitlab.api("root").get(WANTED.address)["shared_runners_enabled"] is False


def test_a_pipeline_on_a_protected_branch(gitlab: GitLab, host: LocalSession) -> None:
    """A Developer is told about the merge request, and may open one."""
    text = "a: {script: [b]}\n"
    with pytest.raises(ApiFailed, match="not allowed to push into this branch") as caught:
        apply(PipelineFile(SHOP, gitlab.api("developer"), text, "m"), host)
    assert "branch main is protected" in caught.value.hint
    assert "merge_request = true" in caught.value.hint
    apply(PipelineFile(SHOP, gitlab.api("maintainer"), text, "m"), host)
    apply(PipelineFile(SHOP, gitlab.api("developer"), text * 2, "m", ours="provision/pipeline"), host)
    (request,) = gitlab.api("root").get_list(f"{WANTED.address}/merge_requests", {"state": "opened"})
    assert request["source_branch"] == "provision/pipeline"


def test_a_guest_sees_no_files(gitlab: GitLab, host: LocalSession) -> None:
    """The refusal names the project."""
    with pytest.raises(Refused, match=f"pipeline of project {SHOP}: .* 403 Forbidden") as caught:
        apply(PipelineFile(SHOP, gitlab.api("guest"), "a: {script: [b]}\n", "m"), host)
    assert "the role Maintainer" in caught.value.hint


def test_group_runners_need_the_owner(gitlab: GitLab) -> None:
    """A Maintainer of the group is refused; the owner's runner serves the group's projects."""
    creator = lambda name: RunnerCreator(gitlab.api(name), {"description": "x"}, "group_type", "acme", marker="m")  # noqa: E731
    with pytest.raises(ApiFailed, match="403 Forbidden - Insufficient permissions") as caught:
        creator("maintainer").create()
    assert "runners of a group the role Owner" in caught.value.hint
    made = creator("owner").create()
    assert [one["id"] for one in gitlab.api("maintainer").get_list(f"{WANTED.address}/runners", {})] == [made.id]
    # A killed run's runner is taken over, by the owner's list of runners.
    assert creator("owner").create().id == made.id


def test_admin_mode(gitlab: GitLab, host: LocalSession) -> None:
    """Without the scope admin_mode an administrator sees no project of others: the hint names the scope."""
    gitlab.switch(admin_mode=True)
    apply(ProjectSettings(WANTED, gitlab.api("root")), host)
    with pytest.raises(Refused, match=r"does not exist, or gitlab\.api_token may not see it") as caught:
        apply(ProjectSettings(WantedProject(SHOP, {"shared_runners_enabled": True}), gitlab.api("plain-root")), host)
    assert "in admin mode an administrator's token also needs the scope admin_mode" in caught.value.hint
    with pytest.raises(ApiFailed, match="403") as refused:
        RunnerCreator(gitlab.api("plain-root"), {}).create()
    assert "admin_mode" in refused.value.hint


def test_a_rate_limit_is_waited_for(gitlab: GitLab) -> None:
    """As long as GitLab asks: until its next period begins."""
    gitlab.switch(api_throttle={"requests": 2, "period": 2})
    waits: list[str] = []
    by_default = pause.get()

    def wait(seconds: float, reason: str) -> None:
        waits.append(reason)
        by_default(seconds, reason)

    token = pause.set(wait)
    for _ in range(5):
        assert gitlab.api("owner").get("/user")["username"] == "owner"
    pause.reset(token)
    assert waits
    assert set(waits) <= {f"GitLab at {gitlab.api('owner').url} limits requests and asks to wait {n} s" for n in (1, 2)}


def test_an_hour_is_not_waited_for(gitlab: GitLab) -> None:
    """GitLab's own period is an hour long."""
    gitlab.switch(api_throttle={"requests": 0, "period": 1 << 30})
    with pytest.raises(ApiFailed, match=r"limits requests \(429\) and asks to wait [0-9]+ s; one request"):
        gitlab.api("owner").get("/user")
