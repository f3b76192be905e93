"""`RunnerSettings`: what GitLab keeps of a runner, against a real server."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from provision.errors import ApiFailed
from provision.gitlab.api import Api
from provision.host.state import HostState
from provision.resources import RunnerSettings
from provision.resources.base import ApiAction, Change, Observation
from provision.resources.runner.entries import settings_key
from provision.resources.runner.registrations import RunnerRecord
from provision.secret import Secret
from provision.testing import LocalSession, notes, observe_on, planned
from provision.url import Url

Serve = Callable[..., Any]
FIELDS = {"description": "builder", "tag_list": ["docker", "big"], "paused": False}
ENTRIES = {"config.toml": {"runners": {"builder": {"id": 7}}}}
RUNNER = {"id": 7, "description": "builder", "tag_list": ["big", "docker"], "paused": False, "locked": True}


class Host:
    """A host with our records and a system id, and a GitLab."""

    def __init__(self, folder: Path, serve: Serve, reply: Any) -> None:
        self.runner: Any = dict(RUNNER)
        self.status = 200
        (folder / "gitlab-runner").mkdir()
        (folder / "gitlab-runner/.runner_system_id").write_text("s_0123456789ab\n")
        (folder / "home").mkdir()
        self.folder = folder
        self.session = LocalSession(
            {"/var/lib/provision": folder / "home", "/etc/gitlab-runner": folder / "gitlab-runner"}
        )
        self.web = serve(lambda asked: self.answer(asked, reply))
        self.records: Mapping[str, Any] = ENTRIES

    def answer(self, asked: Any, reply: Any) -> Any:
        """GitLab."""
        if self.status != 200:
            return reply(self.status, {"message": "no"})
        return reply(200, {"id": 7} if asked.path.endswith("/verify") else self.runner)

    def settings(self, token: str | None = None, **fields: Any) -> RunnerSettings:
        """The resource."""
        return RunnerSettings(
            "builder",
            Api(Url.parse(self.web.url), Secret("glpat-x")),
            {**FIELDS, **fields},
            Secret(token) if token else None,
            lambda records: {
                name: RunnerRecord.parse(one) for name, one in records.get("config.toml", {}).get("runners", {}).items()
            },
        )

    def observe(self, resource: RunnerSettings, due: bool = False) -> Observation:
        """What is observed, with the records of the task `register` on the host."""
        (self.folder / "home/state.json").write_text(HostState({"owners": {"register": self.records}}).text())
        return observe_on(self.session, resource, owner="register", due=due)

    def plan(self, resource: RunnerSettings, due: bool = False) -> list[Change]:
        """The changes."""
        return planned(resource, self.observe(resource, due))

    @property
    def asked(self) -> list[str]:
        """The requests that GitLab received."""
        return [f"{one.method} {one.path.removeprefix('/api/v4')}" for one in self.web.asked]


@pytest.fixture
def host(tmp_path: Path, serve: Serve, reply: Any) -> Host:
    """The host."""
    return Host(tmp_path, serve, reply)


def test_bare(host: Host) -> None:
    """Not created yet: there is nothing to compare."""
    host.records = {}
    assert host.plan(host.settings()) == []
    assert host.asked == []


def test_equal_settings_are_recorded(host: Host) -> None:
    """Tags have no order; settings that the inventory does not mention do not count. A comparison is no change."""
    (comparison,) = host.plan(host.settings())
    assert (comparison.summary, comparison.verification) == ("compare runner builder with GitLab", True)
    assert comparison.record
    assert host.asked == ["GET /runners/7"]


def test_converged(host: Host) -> None:
    """These settings were compared before: GitLab is not asked again."""
    (comparison,) = host.plan(host.settings())
    host.records = {**ENTRIES, settings_key("builder"): comparison.record}
    assert host.plan(host.settings()) == []
    assert len(host.asked) == 1


def test_other_settings_are_compared_again(host: Host) -> None:
    """Another value, another token; and whenever a verification is due."""
    (comparison,) = host.plan(host.settings())
    host.records = {**ENTRIES, settings_key("builder"): comparison.record}
    assert len(host.plan(host.settings(paused=True))) == 1
    assert len(host.plan(host.settings(token="glrt-x"))) == 1
    host.plan(host.settings(), due=True)
    assert host.asked == ["GET /runners/7"] * 4


def test_partly_applied(host: Host) -> None:
    """Only what differs is set."""
    host.runner |= {"tag_list": ["docker"], "paused": True}
    (change,) = host.plan(host.settings())
    assert change.summary == "set tag_list, paused of runner builder in GitLab"
    assert change.diff.splitlines()[2:] == [
        "-tag_list: docker",
        "+tag_list: docker, big",
        "-paused: True",
        "+paused: False",
    ]
    assert isinstance(change.run, ApiAction)
    assert change.run.make() is None
    assert change.record
    put = host.web.asked[-1]
    assert (put.method, put.path) == ("PUT", "/api/v4/runners/7")
    sent = json.loads(put.body) if put.body.startswith(b"{") else parse_qs(put.body.decode())
    assert sent == {"tag_list": "docker,big", "paused": False}


def test_its_number_is_found_by_its_token(host: Host) -> None:
    """The number of a runner that somebody else created is not recorded; the host's own id is sent along."""
    host.records = {}
    host.plan(host.settings(token="glrt-given"))
    assert host.asked == ["POST /runners/verify", "GET /runners/7"]
    assert b"s_0123456789ab" in host.web.asked[0].body
    assert b"glrt-given" in host.web.asked[0].body


def test_without_the_hosts_id_nothing_is_verified(host: Host) -> None:
    """It would add an unnamed machine to GitLab's list."""
    host.records = {}
    (host.folder / "gitlab-runner/.runner_system_id").unlink()
    assert host.plan(host.settings(token="glrt-given")) == []
    assert host.asked == []


def test_deleted_in_gitlab(host: Host) -> None:
    """`RunnerEntries` handles that."""
    host.status = 404
    assert host.plan(host.settings()) == []


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_may_not_read_it(host: Host, status: int) -> None:
    """A note says what it would take; it is recorded, so that GitLab is not asked in every run."""
    host.status = status
    resource = host.settings()
    seen = host.observe(resource)
    (note,) = notes(resource, seen)
    assert "that takes a token with scope api" in note
    (change,) = planned(resource, seen)
    assert change.verification
    assert change.record


@pytest.mark.parametrize("status", [429, 500, 503])
def test_broken(host: Host, status: int) -> None:
    """Unknown is not converged: a verification that fails, after everything else."""
    host.status = status
    (comparison,) = host.plan(host.settings())
    assert comparison.verification
    assert isinstance(comparison.run, ApiAction)
    with pytest.raises(ApiFailed, match=rf"compare runner builder with GitLab: .*{status}") as caught:
        comparison.run.make()
    assert "when GitLab answers" in caught.value.hint
