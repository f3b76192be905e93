"""Requests to GitLab's API, compared with GitLab's own generated description: paths, names, types, choices.

Sent by the code that runs, to the lab's API on loopback, which answers; recorded on the way. The description is
Swagger 2, generated, and loose: see `meant`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jsonschema
import pytest
import yaml

from provision.editing.toml.model import Entry
from provision.errors import ApiFailed
from provision.gitlab.api import Api
from provision.gitlab.runners import RunnerCreator
from provision.resources import RunnerSettings
from provision.resources.base import ApiAction, Change
from provision.resources.runner.registrations import ask_tokens, unregister
from provision.secret import Secret
from provision.testing import LocalSession, observe_on, planned
from provision.url import Url
from provision_lab.standins.gitlab_ce.loopback import serve as gitlab
from tests.support.data import DATA
from tests.support.web import forwarded

DESCRIPTION = DATA / "gitlab-openapi_v2.relevant.yaml"
pytestmark = [
    pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl"),
]
SEED = {"api_token": "T", "users": {"root": "p"}, "projects": ["root/one", "root/two"]}
OWNERS = {"group_type": "group_id", "project_type": "project_id"}
ALL = {
    "description": "builder",
    "tag_list": "docker,build",
    "run_untagged": False,
    "locked": True,
    "paused": False,
    "access_level": "ref_protected",
    "maximum_timeout": 3600,
    "maintenance_note": "rack 7",
}


@dataclass(frozen=True)
class Sent:
    """One request, as it was sent, and the status it was answered with."""

    method: str
    path: str
    query: dict[str, str]
    body: dict[str, Any]
    status: int


@dataclass(frozen=True)
class Between:
    """A recorder in front of GitLab."""

    url: str
    sent: list[Sent]

    @property
    def api(self) -> Api:
        """A connection through it."""
        return Api(Url.parse(self.url), Secret("T"))


@pytest.fixture
def between(serve: Callable[..., Any], tmp_path: Path) -> Iterator[Between]:
    """The lab's API with a recorder in front of it."""
    folder = tmp_path / "gitlab"
    folder.mkdir()
    sent: list[Sent] = []
    with gitlab(folder, SEED) as behind:
        switches = folder / "etc/gitlab-standin/settings.json"
        switches.write_text(json.dumps({"legacy_registration": True, "registration_token": "old"}))

        def forward(asked: Any) -> Any:
            answer = forwarded(asked, behind)
            where = urlsplit(asked.path)
            sent.append(Sent(asked.method, where.path, dict(parse_qsl(where.query)), asked.fields, answer.status))
            return answer

        yield Between(serve(forward).url, sent)


@pytest.fixture(scope="module")
def described() -> Any:
    """The description."""
    return yaml.safe_load(DESCRIPTION.read_text())


def operation(described: Any, sent: Sent) -> Any:
    """The description of that method and path; the template with the fewest parameters counts."""
    found = [
        (template.count("{"), template)
        for template, operations in described["paths"].items()
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), sent.path) and sent.method.lower() in operations
    ]
    assert found, f"{sent.method} {sent.path} is not described"
    return described["paths"][min(found)[1]][sent.method.lower()]


def meant(described: Any, schema: dict[str, Any]) -> dict[str, Any]:
    """A body's schema as it is meant: no unknown names; lists may be texts with commas, as GitLab takes both.

    The description requires every kind of owner: only the one of the runner's type is meant.
    """
    if "$ref" in schema:
        schema = described["definitions"][schema["$ref"].rpartition("/")[2]]
    properties = {
        name: {"type": ["array", "string"]} if one.get("type") == "array" else one
        for name, one in schema.get("properties", {}).items()
        if one.get("type") != "file"  # Swagger's own; none is sent
    }
    required = [name for name in schema.get("required", []) if name not in OWNERS.values()]
    owners = [
        {
            "if": {"properties": {"runner_type": {"const": kind}}, "required": ["runner_type"]},
            "then": {"required": [name]},
            "else": {"not": {"required": [name]}},
        }
        for kind, name in OWNERS.items()
    ]
    return {**schema, "properties": properties, "additionalProperties": False, "required": required, "allOf": owners}


def check(described: Any, sent: Sent) -> None:
    """Checks names, types, choices and what is required, and that the status is a described one."""
    known = operation(described, sent)
    assert str(sent.status) in known["responses"]
    parameters = {one["name"]: one for one in known.get("parameters", []) if one["in"] == "query"}
    given = sent.query
    body = next((one["schema"] for one in known.get("parameters", []) if one["in"] == "body"), None)
    if body is not None:
        jsonschema.validate(sent.body, meant(described, body))
    elif sent.method == "DELETE":  # described as part of the address; GitLab takes the body too, and logs less
        given = {**given, **sent.body}
    else:
        assert sent.body == {}
    assert given.keys() <= parameters.keys()
    assert [name for name, one in parameters.items() if one.get("required") and name not in given] == []
    for name, value in given.items():
        assert value in parameters[name].get("enum", [value])


def checked(described: Any, between: Between, *calls: str) -> None:
    """These calls and no others were sent, each as described."""
    assert [f"{one.method} {one.path.removeprefix('/api/v4')} {one.status}" for one in between.sent] == list(calls)
    for one in between.sent:
        check(described, one)


@pytest.mark.parametrize(
    ("scope", "owner", "listed", "before"),
    [
        ("instance_type", None, "/runners/all", []),
        ("project_type", "root/one", "/runners", ["GET /projects/root%2Fone 200"]),
        ("project_type", 1, "/runners", []),
    ],
)
def test_creating_a_runner(
    described: Any, between: Between, scope: str, owner: str | int | None, listed: str, before: list[str]
) -> None:
    """Looked for among unused ones, then created with every field that the inventory can give."""
    runner = RunnerCreator(between.api, ALL, scope, owner, marker="made by provision for host: builder").create()
    assert runner.token.reveal().startswith("glrt-")
    checked(described, between, f"GET {listed} 200", *before, "POST /user/runners 201")
    assert between.sent[-1].body["maintenance_note"] == "rack 7\nmade by provision for host: builder"


def test_creating_a_runner_of_a_group(described: Any, between: Between) -> None:
    """The lab has no groups; the request is as described."""
    with pytest.raises(ApiFailed, match="403"):
        RunnerCreator(between.api, {"description": "builder"}, "group_type", 7).create()
    checked(described, between, "POST /user/runners 403")


def test_taking_over_an_unused_runner(described: Any, between: Between) -> None:
    """It gets the fields that are wanted now, and a new token."""
    first = RunnerCreator(between.api, ALL, marker="made by provision for host: builder").create()
    del between.sent[:]
    again = RunnerCreator(between.api, {**ALL, "paused": True}, marker="made by provision for host: builder").create()
    assert again.id == first.id
    checked(
        described,
        between,
        "GET /runners/all 200",
        f"GET /runners/{first.id} 200",
        f"PUT /runners/{first.id} 200",
        f"POST /runners/{first.id}/reset_authentication_token 201",
    )


def test_registration_token(described: Any, between: Between) -> None:
    """With a registration token."""
    RunnerCreator(
        between.api, ALL, registration_token=Secret("old"), marker="made by provision for host: builder"
    ).create()
    checked(described, between, "POST /runners 201")


def test_comparing_and_changing_settings(described: Any, between: Between, tmp_path: Path) -> None:
    """A runner that is known by its token: its number and settings are read, and what differs is set."""
    runner = RunnerCreator(between.api, {"description": "old"}).create()
    (tmp_path / ".runner_system_id").write_text("s_0123456789ab\n")
    (tmp_path / "home").mkdir()
    host = LocalSession({"/etc/gitlab-runner": tmp_path, "/var/lib/provision": tmp_path / "home"})
    wanted = {**ALL, "tag_list": ["docker", "build"]}
    del wanted["maintenance_note"], between.sent[:]
    resource = RunnerSettings("builder", between.api, wanted, runner.token)
    (change,) = planned(resource, observe_on(host, resource))
    assert isinstance(change, Change)
    assert isinstance(change.run, ApiAction)
    change.run.make()
    number = runner.id
    checked(described, between, "POST /runners/verify 200", f"GET /runners/{number} 200", f"PUT /runners/{number} 200")
    del between.sent[:]
    (comparison,) = planned(resource, observe_on(host, resource))  # nothing differs any more
    assert comparison.verification


def test_what_the_host_asks(described: Any, between: Between, tmp_path: Path) -> None:
    """Tokens are verified, and runners deleted: one that was given, one that we created."""
    (tmp_path / ".runner_system_id").write_text("s_0123456789ab\n")
    host = LocalSession({"/etc/gitlab-runner": tmp_path})
    one, two = (RunnerCreator(between.api, {"description": name}).create().token for name in ("one", "two"))
    del between.sent[:]
    for command in (
        ask_tokens(str(tmp_path / "config.toml"), [between.url], [(between.url, one)]),
        ask_tokens(str(tmp_path / "config.toml"), [between.url], []),
        *[
            change.run
            for change in unregister(
                [
                    (Entry(0, "one", between.url, one.reveal()), False),
                    (Entry(1, "two", between.url, two.reveal()), True),
                ]
            )
        ],
    ):
        assert not isinstance(command, ApiAction)
        assert host.run(command, deadline=30).code == 0
    checked(
        described,
        between,
        "POST /runners/verify 200",
        "GET /version 401",
        "DELETE /runners/managers 204",
        "DELETE /runners 204",
    )
