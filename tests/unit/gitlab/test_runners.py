"""`RunnerCreator` against a real HTTP server on loopback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from provision.errors import ApiFailed, ChangeFailed
from provision.gitlab.api import Api
from provision.gitlab.runners import RunnerCreator
from provision.secret import Secret
from provision.url import Url

Serve = Callable[..., Any]
TOKEN = Secret("glpat-the-api-token")
NAME = "gitlab.internal.invalid"  # resolved nowhere


class TestCreating:
    """Creating a runner."""

    def test_by_the_api(self, serve: Serve, reply: Any) -> None:
        """Only the fields that are set, and the type."""
        web = serve(lambda _: reply(201, {"id": 7, "token": "glrt-x"}))
        runner = RunnerCreator(
            Api(Url.parse(web.url), TOKEN), {"description": "b", "tag_list": None, "run_untagged": False}
        ).create()
        assert (runner.id, runner.token) == (7, Secret("glrt-x"))
        assert "glrt-x" not in repr(runner)
        assert web.asked[0].fields == {"description": "b", "run_untagged": False, "runner_type": "instance_type"}

    @pytest.mark.parametrize(
        ("scope", "owner", "expected"),
        [
            ("project_type", 3, {"project_id": 3}),
            ("project_type", "sammy/hello", {"project_id": 42}),
            ("group_type", "sammy", {"group_id": 42}),
            ("group_type", None, {}),
            ("instance_type", 3, {}),
        ],
    )
    def test_for_a_project_or_group(self, serve: Serve, reply: Any, scope: str, owner: Any, expected: Any) -> None:
        """By number, or by a path that is looked up."""
        web = serve(
            lambda asked: reply(200, {"id": 42}) if asked.method == "GET" else reply(201, {"id": 7, "token": "t"})
        )
        RunnerCreator(Api(Url.parse(web.url), TOKEN), {}, scope, owner).create()
        assert web.asked[-1].fields == {"runner_type": scope, **expected}

    def test_with_a_registration_token(self, serve: Serve, reply: Any) -> None:
        """The legacy way."""
        web = serve(lambda _: reply(201, {"id": 7, "token": "t"}))
        RunnerCreator(
            Api(Url.parse(web.url), Secret("")), {"description": "b"}, registration_token=Secret("GR13-legacy")
        ).create()
        assert web.asked[0].path == "/api/v4/runners"
        assert web.asked[0].fields == {"description": "b", "token": "GR13-legacy"}

    def test_registration_tokens_are_off(self, serve: Serve, reply: Any) -> None:
        """410: the hint says what to use instead."""
        web = serve(lambda _: reply(410, {"message": "410 Gone - runner registration disallowed"}))
        with pytest.raises(ApiFailed, match="410") as caught:
            RunnerCreator(Api(Url.parse(web.url), Secret("")), {}, registration_token=Secret("GR13")).create()
        assert "gitlab.api_token" in caught.value.hint

    def test_an_answer_without_a_token(self, serve: Serve, reply: Any) -> None:
        """The error names its keys, not its values."""
        web = serve(lambda _: reply(201, {"id": 7, "secret": "value"}))
        with pytest.raises(ChangeFailed, match=r"returned no token: \['id', 'secret'\]") as caught:
            RunnerCreator(Api(Url.parse(web.url), TOKEN), {}).create()
        assert "value" not in caught.value.text


class TestUnused:
    """A runner that a killed run created, and that never contacted GitLab."""

    MARK = "made by provision for web1: builder"

    def creator(self, url: str) -> RunnerCreator:
        """With a marker."""
        return RunnerCreator(
            Api(Url.parse(url), TOKEN), {"description": "builder", "maintenance_note": "ask ops"}, marker=self.MARK
        )

    def test_it_is_taken_over(self, serve: Serve, reply: Any) -> None:
        """It is found by the marker; it gets a new token, and no second runner is created."""
        notes = {1: "by hand", 2: f"ask ops\n{self.MARK}"}

        def answer(asked: Any) -> Any:
            path = urlsplit(asked.path).path
            if path == "/api/v4/runners/all":
                assert parse_qs(urlsplit(asked.path).query)["status"] == ["never_contacted"]
                return reply(
                    200, [{"id": 9, "description": "other"}, *({"id": n, "description": "builder"} for n in notes)]
                )
            if asked.method == "GET":
                note = notes[int(path.rpartition("/")[2])]
                return reply(200, {"id": 1, "runner_type": "instance_type", "maintenance_note": note})
            return reply(201, {"token": "glrt-fresh", "token_expires_at": None})

        web = serve(answer)
        runner = self.creator(web.url).create()
        assert (runner.id, runner.token.reveal()) == (2, "glrt-fresh")
        assert web.asked[-1].path == "/api/v4/runners/2/reset_authentication_token"
        assert not any(one.path == "/api/v4/user/runners" for one in web.asked)

    @pytest.mark.parametrize(
        ("scope", "owner", "found", "adopted"),
        [
            ("project_type", 42, {"projects": [{"id": 42}]}, True),
            ("project_type", "sammy/hello", {"projects": [{"id": 42}]}, True),
            ("project_type", "sammy/hello", {"projects": [{"id": 43}]}, False),
            ("project_type", 42, {"projects": [{"id": 43}, {"id": 42}]}, False),
            ("project_type", 42, {"projects": []}, False),
            ("project_type", 42, {}, False),
            ("group_type", 42, {"groups": [{"id": 42}]}, True),
            ("group_type", "sammy", {"groups": [{"id": 43}]}, False),
            ("group_type", 42, {"projects": [{"id": 42}]}, False),
            ("group_type", 42, {"runner_type": "instance_type", "groups": [{"id": 42}]}, False),
            ("instance_type", None, {"runner_type": "project_type", "projects": [{"id": 42}]}, False),
        ],
    )
    def test_only_one_of_the_same_owner(
        self, serve: Serve, reply: Any, scope: str, owner: Any, found: dict[str, Any], adopted: bool
    ) -> None:
        """A runner of another project or group stays as it is, though host, name and note are the same."""
        runner = {"id": 9, "description": "builder", "runner_type": scope, "maintenance_note": self.MARK, **found}

        def answer(asked: Any) -> Any:
            path = urlsplit(asked.path).path
            if asked.method != "GET":
                return reply(201, {"id": 7, "token": "glrt-new"})
            if path.startswith(("/api/v4/projects/", "/api/v4/groups/")):
                return reply(200, {"id": 42})
            return reply(200, runner if path.endswith("/9") else [runner])

        web = serve(answer)
        fields = {"description": "builder"}
        made = RunnerCreator(Api(Url.parse(web.url), TOKEN), fields, scope, owner, marker=self.MARK).create()
        assert made.id == (9 if adopted else 7)
        touched = [one.path for one in web.asked if one.method != "GET" and one.path.startswith("/api/v4/runners/9")]
        assert bool(touched) == adopted

    def test_there_is_none(self, serve: Serve, reply: Any) -> None:
        """The runner is created, with the marker after the user's own note."""
        web = serve(lambda asked: reply(200, []) if asked.method == "GET" else reply(201, {"id": 7, "token": "t"}))
        self.creator(web.url).create()
        assert web.asked[-1].fields["maintenance_note"] == f"ask ops\n{self.MARK}"

    def test_a_token_that_may_only_create(self, serve: Serve, reply: Any) -> None:
        """It cannot list runners: the runner is created."""
        web = serve(
            lambda asked: (
                reply(403, {"message": "no"}) if asked.method == "GET" else reply(201, {"id": 7, "token": "t"})
            )
        )
        assert self.creator(web.url).create().id == 7

    def test_gitlab_reports_an_error(self, serve: Serve, reply: Any) -> None:
        """Unknown is not none: nothing is created."""
        web = serve(lambda _: reply(500, {"message": "no"}))
        with pytest.raises(ApiFailed, match="500"):
            self.creator(web.url).create()
        assert {one.method for one in web.asked} == {"GET"}
