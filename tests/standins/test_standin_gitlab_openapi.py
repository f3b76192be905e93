"""The API compared with GitLab's own generated description.

The description is Swagger 2 and imprecise: unknown types are `type: string`, arrays lose their brackets, and null is not
mentioned. `strict` shows how it is read here. Names, statuses and documented types must match.
"""

import json
import re
import urllib.error
import urllib.request
from urllib.parse import parse_qsl, urlsplit

import jsonschema
import pytest
import yaml

from provision_lab.standins.gitlab_ce.loopback import serve
from tests.support.data import DATA

DESCRIPTION = DATA / "gitlab-openapi_v2.relevant.yaml"


SEED = {"api_token": "T", "users": {"root": "p"}, "projects": ["root/one", "root/two"], "groups": {"acme": {}}}

COMMIT = {"branch": "main", "commit_message": "m"}
# (method, address, body, status), in an order that makes each possible.
CALLS = [
    ("POST", "/user/runners", {"runner_type": "instance_type", "tag_list": ["a"], "description": "d"}, 201),
    ("POST", "/user/runners", {"runner_type": "project_type", "project_id": 1, "maximum_timeout": 3600}, 201),
    ("POST", "/user/runners", {"runner_type": "project_type"}, 400),
    ("POST", "/user/runners", {"runner_type": "project_type", "project_id": 9}, 403),
    ("POST", "/runners", {"token": "old"}, 410),
    ("POST", "/runners/verify", {"token": "{token}", "system_id": "s_000000000000"}, 200),
    ("POST", "/runners/verify", {"token": "none"}, 403),
    ("GET", "/runners", None, 200),
    ("GET", "/runners?scope=odd", None, 400),
    ("GET", "/runners/all?status=online&per_page=1", None, 200),
    ("GET", "/runners/1", None, 200),
    ("GET", "/runners/2", None, 200),
    ("GET", "/runners/9", None, 404),
    ("PUT", "/runners/1", {"paused": True, "tag_list": ["b"], "access_level": "ref_protected"}, 200),
    ("PUT", "/runners/1", {"maximum_timeout": 1}, 400),
    ("GET", "/runners/1/managers", None, 200),
    ("POST", "/runners/1/reset_authentication_token", None, 201),
    ("POST", "/runners/reset_authentication_token", {"token": "{token}"}, 201),
    ("DELETE", "/runners/managers?token={token}&system_id=s_0", None, 404),
    ("DELETE", "/runners/managers?token={token}&system_id=s_000000000000", None, 204),
    ("GET", "/projects/1/runners?type=project_type", None, 200),
    ("POST", "/projects/root%2Ftwo/runners", {"runner_id": 2}, 201),
    ("POST", "/projects/2/runners", {"runner_id": 9}, 404),
    ("DELETE", "/projects/1/runners/2", None, 403),
    ("DELETE", "/projects/2/runners/2", None, 204),
    ("POST", "/user/runners", {"runner_type": "group_type", "group_id": 1}, 201),
    ("GET", "/runners/3", None, 200),
    ("GET", "/groups/1/runners", None, 200),
    ("GET", "/projects/root%2Fone", None, 200),
    ("PUT", "/projects/1", {"shared_runners_enabled": False, "container_registry_access_level": "private"}, 200),
    ("POST", "/projects/1/variables", {"key": "K", "value": "long-enough", "masked_and_hidden": True}, 201),
    ("POST", "/projects/1/variables", {"key": "K", "value": "again"}, 400),
    ("GET", "/projects/1/variables", None, 200),
    ("GET", "/projects/1/variables/K?filter[environment_scope]=*", None, 200),
    ("PUT", "/projects/1/variables/K", {"value": "other-value", "filter": {"environment_scope": "*"}}, 200),
    ("DELETE", "/projects/1/variables/K", None, 204),
    ("GET", "/projects/1/variables/K", None, 404),
    ("GET", "/projects/1/repository/files/a%2Fb.yml?ref=main", None, 404),
    ("POST", "/projects/1/repository/files/a%2Fb.yml", {**COMMIT, "content": "a"}, 201),
    ("POST", "/projects/1/repository/files/a%2Fb.yml", {**COMMIT, "content": "a"}, 400),
    ("GET", "/projects/1/repository/files/a%2Fb.yml?ref=main", None, 200),
    ("PUT", "/projects/1/repository/files/a%2Fb.yml", {**COMMIT, "content": "Yg==", "encoding": "base64"}, 200),
    ("PUT", "/projects/1/repository/files/a%2Fb.yml", {**COMMIT, "content": "c", "last_commit_id": "0" * 40}, 400),
    ("PUT", "/projects/1/repository/files/c.yml", {**COMMIT, "content": "c"}, 400),
    ("GET", "/projects/1/repository/commits?per_page=1", None, 200),
    ("POST", "/projects/1/ci/lint", {"content": "a: {script: [b]}"}, 200),
    ("POST", "/projects/1/ci/lint", {"content": "a: {scrpt: [b]}", "dry_run": False}, 200),
    ("GET", "/projects/1/registry/repositories", None, 200),
    ("POST", "/projects/2/repository/files/.gitlab-ci.yml", {**COMMIT, "content": "a: {script: b}\n"}, 201),
    ("GET", "/projects/2/pipelines?ref=main&status=pending&order_by=id&sort=asc", None, 200),
    ("POST", "/projects/2/pipeline", {"ref": "main"}, 201),
    ("POST", "/projects/2/pipeline", {"ref": "other"}, 400),
    ("GET", "/metadata", None, 200),
    ("GET", "/version", None, 200),
    ("DELETE", "/runners/2", None, 204),
    ("DELETE", "/runners?token={token}", None, 204),
    ("DELETE", "/runners?token={token}", None, 403),
]


@pytest.fixture(scope="module")
def described():
    """The description."""
    return yaml.safe_load(DESCRIPTION.read_text())


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """The answer to each call of the list: (status, body or None)."""
    with serve(tmp_path_factory.mktemp("gitlab"), SEED) as url:
        token, seen = "", []
        for method, address, body, _ in CALLS:
            text = json.dumps(body).replace("{token}", token).encode() if body is not None else None
            headers = {"PRIVATE-TOKEN": "T", "Content-Type": "application/json"}
            target = f"{url}/api/v4{address.replace('{token}', token)}"
            try:
                answer = urllib.request.urlopen(urllib.request.Request(target, text, headers, method=method))
            except urllib.error.HTTPError as error:
                answer = error
            with answer:
                raw = answer.read()
            shown = json.loads(raw) if raw else None
            seen.append((answer.status, shown))
            if isinstance(shown, dict) and "token" in shown and "/2" not in address:
                token = shown["token"] if shown.get("id", 1) == 1 else token
        return seen


def operation(described, method, address):
    """The description of a call: its path and operation."""
    path = "/api/v4" + urlsplit(address).path
    found = []
    for template, operations in described["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path) and method.lower() in operations:
            found.append((template.count("{"), template))
    assert found, f"{method} {address} is not described"
    template = min(found)[1]
    return template, described["paths"][template][method.lower()]


def strict(schema, described):
    """The schema as intended: no unknown names, null allowed, the generator's guesses ignored."""
    if "$ref" in schema:
        inner = strict(described["definitions"][schema["$ref"].rpartition("/")[2]], described)
        return {"anyOf": [inner, {"type": "array", "items": inner}, {"type": "null"}]}
    kind = schema.get("type")
    if kind == "file":
        return {}
    if kind == "object" and "properties" in schema:
        properties = {name: strict(one, described) for name, one in schema["properties"].items()}
        return {"type": ["object", "null"], "properties": properties, "additionalProperties": False}
    if kind == "array":
        return {"type": ["array", "null"], "items": strict(schema["items"], described)}
    if kind == "string" and not {"example", "enum", "format", "description"} & set(schema):
        return {}  # the generator says this of everything that it knows nothing about
    wanted = {"type": [kind, "null"]}
    return wanted | ({"enum": [*schema["enum"], None]} if "enum" in schema else {})


@pytest.mark.parametrize("number", range(len(CALLS)), ids=[f"{one[0]} {one[1]} {one[3]}" for one in CALLS])
def test_the_call_is_as_described(number, described, answers):
    """Parameters, status and body."""
    method, address, sent, wanted = CALLS[number]
    status, body = answers[number]
    _, known = operation(described, method, address)
    assert status == wanted
    assert str(status) in known["responses"] or status in (400, 403, 404)

    parameters = {one["name"]: one for one in known.get("parameters", [])}
    schema = next((one["schema"] for one in parameters.values() if one["in"] == "body"), None)
    if sent is not None:
        jsonschema.validate(sent, _of(strict(schema, described)))
    assert {name for name, _ in parse_qsl(urlsplit(address).query)} <= set(parameters)

    schema = known["responses"].get(str(status), {}).get("schema")
    if schema is None or status == 204:
        assert status != 204 or body is None
        assert status < 400 or {"message", "error"} & set(body)
        return
    for one in body if isinstance(body, list) and schema.get("type") != "array" else [body]:
        jsonschema.validate(one, strict(schema, described))


def _of(schema):
    return schema["anyOf"][0] if "anyOf" in schema else schema


def test_every_endpoint_that_answers_is_checked(described):
    """Every endpoint that is described and routed has a call in the list."""
    from provision_lab.standins.gitlab_ce.host.api.http import ROUTES

    checked = {(method, operation(described, method, address)[0]) for method, address, _, _ in CALLS}
    for template, operations in described["paths"].items():
        sample = re.sub(r"\{\w+\}", "1", template)
        for method in (one.upper() for one in operations):
            routed = any(one.method == method and one.pattern.match(sample) for one in ROUTES)
            if routed and "/registry/repositories/" not in template:  # needs a registry: a lab test's work
                assert (method, template) in checked
