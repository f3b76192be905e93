"""The API that runners, projects and variables need, tested over HTTP."""

import base64
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from http import HTTPStatus
from types import SimpleNamespace
from urllib.parse import quote, urlencode

import pytest

from provision_lab.standins.gitlab_ce.host.layout import Paths
from provision_lab.standins.gitlab_ce.loopback import serve

SEED = {
    "api_token": "glpat-root",
    "users": {"root": "root's password", "sammy": "sammy's password"},
    "projects": ["root/hello_hapi", "sammy/hello_hapi", "root/second"],
    "tokens": [
        {"token": "glpat-create", "user": "root", "scopes": ["create_runner"]},
        {"token": "glpat-sammy", "user": "sammy", "scopes": ["api"]},
        {"token": "glpat-read", "user": "sammy", "scopes": ["read_registry"]},
    ],
    "job_tokens": [{"token": "glcbt-job", "project": "sammy/hello_hapi"}],
}
HAPI = quote("root/hello_hapi", safe="")


class Client:
    """Sends requests; status, headers and body."""

    def __init__(self, url, folder):
        self.url = url
        self.switches = folder / "etc/gitlab-standin"

    def ask(self, method, path, body=None, token="glpat-root", headers=None, **query):
        """One request; the body as JSON."""
        address = f"{self.url}{path if path.startswith('/-') or 'jwt' in path else '/api/v4' + path}"
        if query:
            address += "?" + urlencode(query)
        sent = dict(headers or {})
        if token:
            sent["PRIVATE-TOKEN"] = token
        data = None
        if body is not None:
            data, sent["Content-Type"] = json.dumps(body).encode(), "application/json"
        request = urllib.request.Request(address, data, sent, method=method)
        try:
            answer = urllib.request.urlopen(request, timeout=10)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            raw = answer.read()
        kind = answer.headers.get("Content-Type", "")
        return SimpleNamespace(
            status=answer.status, headers=answer.headers, body=json.loads(raw) if raw and "json" in kind else raw
        )

    def runner(self, **settings):
        """Creates an instance runner."""
        answer = self.ask("POST", "/user/runners", {"runner_type": "instance_type", **settings})
        assert answer.status == HTTPStatus.CREATED, answer.body
        return answer.body


@pytest.fixture
def client(tmp_path):
    """A fresh instance."""
    with serve(tmp_path, SEED) as url:
        yield Client(url, tmp_path)


def test_create_runner_tells_the_token_once(client):
    """201 with id, token and expiry; later reads have no token."""
    made = client.runner(tag_list=["docker"], description="builder")
    assert made == {"id": 1, "token": made["token"], "token_expires_at": None}
    assert made["token"].startswith("glrt-")
    seen = client.ask("GET", "/runners/1").body
    assert "token" not in seen
    assert (seen["tag_list"], seen["description"], seen["status"]) == (["docker"], "builder", "never_contacted")


def test_scope_create_runner_creates_and_no_more(client):
    """The scope create_runner does not allow reading or changing."""
    answer = client.ask("POST", "/user/runners", {"runner_type": "instance_type"}, token="glpat-create")
    assert answer.status == 201
    for method, path in (("GET", "/runners/1"), ("PUT", "/runners/1"), ("GET", "/runners/all")):
        refused = client.ask(method, path, token="glpat-create")
        assert (refused.status, refused.body["error"]) == (403, "insufficient_scope")


@pytest.mark.parametrize(
    ("body", "token", "status", "says"),
    [
        ({}, "glpat-root", 400, "runner_type is missing"),
        ({"runner_type": "fast"}, "glpat-root", 400, "runner_type does not have a valid value"),
        ({"runner_type": "project_type"}, "glpat-root", 400, "project_id is missing"),
        ({"runner_type": "group_type"}, "glpat-root", 400, "group_id is missing"),
        ({"runner_type": "instance_type", "project_id": 1}, "glpat-root", 400, "project_id is only for"),
        ({"runner_type": "project_type", "project_id": 1, "group_id": 1}, "glpat-root", 400, "mutually exclusive"),
        ({"runner_type": "project_type", "project_id": 99}, "glpat-root", 403, "Insufficient permissions"),
        ({"runner_type": "project_type", "project_id": 1}, "glpat-sammy", 403, "Insufficient permissions"),
        ({"runner_type": "instance_type"}, "glpat-sammy", 403, "Insufficient permissions"),
        ({"runner_type": "instance_type", "maintenance_note": "x" * 1025}, "glpat-root", 400, "maintenance_note"),
        ({"runner_type": "instance_type", "maximum_timeout": 599}, "glpat-root", 400, "at least 10 minutes"),
        ({"runner_type": "instance_type", "run_untagged": False}, "glpat-root", 400, "Tags list can not be empty"),
        ({"runner_type": "instance_type", "access_level": "all"}, "glpat-root", 400, "access_level"),
        ({"runner_type": "instance_type"}, "wrong", 401, "401 Unauthorized"),
        ({"runner_type": "instance_type"}, None, 401, "401 Unauthorized"),
    ],
)
def test_create_runner_refusals(client, body, token, status, says):
    """Each with its status and a text that names the parameter."""
    answer = client.ask("POST", "/user/runners", body, token=token)
    assert answer.status == status
    assert says in json.dumps(answer.body)
    assert client.ask("GET", "/runners/all").body == []


def test_verify_makes_a_manager_known(client):
    """The runner is online, with one manager for each system id."""
    token = client.runner()["token"]
    for system in ("s_aaaaaaaaaaaa", "s_aaaaaaaaaaaa", "r_bbbbbbbbbbbb"):
        info = {"version": "19.3.0", "platform": "linux", "architecture": "amd64"}
        answer = client.ask("POST", "/runners/verify", {"token": token, "system_id": system, "info": info}, token=None)
        assert (answer.status, answer.body) == (200, {"id": 1, "token": token, "token_expires_at": None})
    managers = client.ask("GET", "/runners/1/managers").body
    assert [one["system_id"] for one in managers] == ["s_aaaaaaaaaaaa", "r_bbbbbbbbbbbb"]
    assert client.ask("GET", "/runners/1").body["status"] == "online"


def test_verify_refusals(client):
    """403 for an unknown token, 400 without one, 422 when its project was deleted."""
    assert client.ask("POST", "/runners/verify", {"token": "glrt-none"}, token=None).status == 403
    assert client.ask("POST", "/runners/verify", {}, token=None).status == 400


def test_form_bodies_are_read(client):
    """curl's --data and --form reach the same endpoint as JSON."""
    token = client.runner()["token"]
    form = urllib.request.Request(f"{client.url}/api/v4/runners/verify", f"token={token}".encode(), method="POST")
    assert urllib.request.urlopen(form).status == 200
    part = f'--x\r\nContent-Disposition: form-data; name="token"\r\n\r\n{token}\r\n--x--\r\n'.encode()
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    form = urllib.request.Request(f"{client.url}/api/v4/runners/verify", part, headers, method="POST")
    assert urllib.request.urlopen(form).status == 200


def test_unregistering_a_manager_keeps_the_runner(client):
    """204, then 404; 403 for a foreign token; 400 without system_id."""
    token = client.runner()["token"]
    body = {"token": token, "system_id": "s_a"}
    client.ask("POST", "/runners/verify", body, token=None)
    statuses = [client.ask("DELETE", f"/runners/managers?{urlencode(body)}", token=None).status for _ in range(2)]
    assert statuses == [204, 404]
    assert client.ask("DELETE", "/runners/managers", body | {"token": "glrt-x"}, token=None).status == 403
    assert client.ask("DELETE", "/runners/managers", {"token": token}, token=None).status == 400
    assert client.ask("GET", "/runners/1").status == 200


def test_deleting_by_token(client):
    """204 once; the runner is deleted and its token invalid."""
    token = client.runner()["token"]
    assert client.ask("DELETE", f"/runners?token={token}", token=None).status == 204
    assert client.ask("DELETE", f"/runners?token={token}", token=None).status == 403
    assert client.ask("GET", "/runners/1").body == {"message": "404 Runner Not Found"}


def test_legacy_registration_is_gone_unless_switched_on(client):
    """410 by default; with the switch 201 for the right token and 403 for another."""
    body = {"token": "REG", "description": "old", "tag_list": "a, b"}
    assert client.ask("POST", "/runners", body, token=None).status == 410
    switch = {"legacy_registration": True, "registration_token": "REG"}
    (client.switches / "settings.json").write_text(json.dumps(switch))
    made = client.ask("POST", "/runners", body, token=None)
    assert made.status == 201
    assert not made.body["token"].startswith("glrt-")
    assert client.ask("GET", "/runners/1").body["tag_list"] == ["a", "b"]
    assert client.ask("POST", "/runners", {"token": "BAD"}, token=None).status == 403


def test_update_a_runner(client):
    """PUT changes only what is sent; an invalid value changes nothing."""
    client.runner(tag_list=["a"], description="d")
    wanted = {"paused": True, "tag_list": ["b", "a"], "run_untagged": False, "maximum_timeout": 600, "locked": True}
    seen = client.ask("PUT", "/runners/1", {**wanted, "access_level": "ref_protected"}).body
    assert {key: seen[key] for key in wanted} == wanted | {"tag_list": ["a", "b"]}
    assert (seen["description"], seen["active"], seen["access_level"]) == ("d", False, "ref_protected")
    assert client.ask("PUT", "/runners/1", {"tag_list": []}).status == 400
    assert client.ask("PUT", "/runners/1", {}).status == 400
    assert client.ask("GET", "/runners/1").body == seen
    assert client.ask("PUT", "/runners/9", {"paused": True}).status == 404
    assert client.ask("PUT", "/runners/1", {"paused": True}, token="glpat-sammy").status == 403


def test_new_token(client):
    """The old token is invalid at once."""
    old = client.runner()["token"]
    answer = client.ask("POST", "/runners/1/reset_authentication_token")
    assert answer.status == 201
    assert client.ask("POST", "/runners/verify", {"token": old}, token=None).status == 403
    new = answer.body["token"]
    newest = client.ask("POST", "/runners/reset_authentication_token", {"token": new}, token=None).body["token"]
    assert client.ask("POST", "/runners/verify", {"token": newest}, token=None).status == 200


def test_lists_filter_and_page(client):
    """By type, status, paused and tags; pages with their headers."""
    for number in range(5):
        client.runner(tag_list=["all", f"n{number}"], paused=number == 0)
    client.ask("POST", "/user/runners", {"runner_type": "project_type", "project_id": 1})
    ids = lambda **query: [one["id"] for one in client.ask("GET", "/runners/all", **query).body]  # noqa: E731 - short
    assert ids(type="project_type") == [6]
    assert ids(paused="true") == ids(status="paused") == ids(tag_list="all,n0") == [1]
    assert ids(status="online") == []
    page = client.ask("GET", "/runners/all", per_page=2, page=2)
    assert [one["id"] for one in page.body] == [4, 3]
    assert (page.headers["X-Total"], page.headers["X-Next-Page"]) == ("6", "3")
    assert '/runners/all?per_page=2&page=3>; rel="next"' in page.headers["Link"]
    assert client.ask("GET", "/runners/all", type="odd").status == 400
    assert client.ask("GET", "/runners/all", token="glpat-sammy").status == 403


def test_a_project_s_runners(client):
    """Assigned, listed, unassigned; the owner project keeps its runner."""
    made = client.ask("POST", "/user/runners", {"runner_type": "project_type", "project_id": 1}).body
    client.runner()
    assert [one["id"] for one in client.ask("GET", f"/projects/{HAPI}/runners").body] == [2, 1]
    second = "/projects/3/runners"
    assert client.ask("POST", second, {"runner_id": made["id"]}).status == 201
    assert client.ask("POST", second, {"runner_id": made["id"]}).status == 400
    assert client.ask("POST", second, {"runner_id": 2}).status == 403
    assert client.ask("POST", second, {"runner_id": 77}).status == 404
    assert client.ask("POST", second, {}).status == 400
    refused = client.ask("DELETE", f"/projects/1/runners/{made['id']}")
    assert (refused.status, "owner project" in refused.body["message"]) == (403, True)
    assert client.ask("DELETE", f"{second}/{made['id']}").status == 204
    assert client.ask("DELETE", f"{second}/{made['id']}").status == 404


def test_projects(client):
    """Read by number or path; settings can be changed; a project that the caller may not see answers 404."""
    assert client.ask("GET", f"/projects/{HAPI}").body["id"] == 1
    wanted = {
        "shared_runners_enabled": False,
        "group_runners_enabled": False,
        "container_registry_access_level": "private",
        "ci_config_path": "ci/main.yml",
    }
    seen = client.ask("PUT", "/projects/1", wanted).body
    assert {key: seen[key] for key in wanted} == wanted
    assert client.ask("PUT", "/projects/1", {"container_registry_access_level": "secret"}).status == 400
    assert client.ask("GET", "/projects/1", token="glpat-sammy").status == 404
    assert [one["path_with_namespace"] for one in client.ask("GET", "/projects", token="glpat-sammy").body] == [
        "sammy/hello_hapi"
    ]


def test_variables(client):
    """Created, read by scope, changed, deleted."""
    path = f"/projects/{HAPI}/variables"
    assert client.ask("POST", path, {"key": "A", "value": "1"}).status == 201
    assert client.ask("POST", path, {"key": "A", "value": "2"}).status == 400
    assert client.ask("POST", path, {"key": "A", "value": "2", "environment_scope": "prod"}).status == 201
    assert client.ask("GET", f"{path}/A").status == 409
    only = quote("filter[environment_scope]") + "=prod"
    assert client.ask("PUT", f"{path}/A?{only}", {"value": "3"}).body["value"] == "3"
    assert client.ask("GET", f"{path}/A?{only}").body["environment_scope"] == "prod"
    assert client.ask("PUT", f"{path}/A", {"value": "4", "filter": {"environment_scope": "*"}}).body["value"] == "4"
    assert client.ask("DELETE", f"{path}/A?{only}").status == 204
    assert [(one["key"], one["value"]) for one in client.ask("GET", path).body] == [("A", "4")]
    assert client.ask("DELETE", f"{path}/B").status == 404


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"value": "long-enough=1"}, 201),
        ({"value": "short"}, 400),
        ({"value": "two\nlines-here"}, 400),
        ({"value": "-----BEGIN RSA PRIVATE KEY-----\nabc\n"}, 400),
        ({"value": "with spaces here"}, 400),
        ({"value": "späte-umlaute"}, 400),
        ({"value": "späte-umlaute", "raw": True}, 201),
    ],
)
def test_masking(client, sent, status):
    """A masked value is one line of the allowed characters; raw allows all but white space."""
    body = {"key": "SECRET", "masked": True, **sent}
    assert client.ask("POST", "/projects/1/variables", body).status == status


def test_a_hidden_variable_is_never_read_back(client):
    """It can be hidden only at its creation, reads back null, and stays masked."""
    body = {"key": "H", "value": "hidden-value", "masked_and_hidden": True}
    made = client.ask("POST", "/projects/1/variables", body).body
    assert (made["hidden"], made["masked"], made["value"]) == (True, True, None)
    assert client.ask("GET", "/projects/1/variables/H").body["value"] is None
    assert client.ask("PUT", "/projects/1/variables/H", {"masked": False}).status == 400


def test_version_and_caller(client):
    """Authenticated; PRIVATE-TOKEN and Bearer alike."""
    assert client.ask("GET", "/metadata").body["version"] == "19.3.0"
    bearer = {"Authorization": "Bearer glpat-sammy"}
    assert client.ask("GET", "/version", token=None, headers=bearer).body["enterprise"] is False
    assert client.ask("GET", "/user", token=None, headers=bearer).body["username"] == "sammy"
    assert client.ask("GET", "/metadata", token=None).status == 401


def test_health_answers_only_to_allow_listed_addresses(client):
    """404 for others, as the front end names them."""
    assert client.ask("GET", "/-/health").body == b"GitLab OK"
    assert client.ask("GET", "/-/readiness").body["status"] == "ok"
    assert client.ask("GET", "/-/health", headers={"X-Real-IP": "198.51.100.7"}).status == 404


def test_unknown_addresses(client):
    """404 for a path, 405 for a method."""
    assert client.ask("GET", "/nothing").status == 404
    assert client.ask("PATCH", "/runners/all").status == 405


def test_jobs_are_asked_for_in_vain(client):
    """204 with a valid token, 403 with another."""
    token = client.runner()["token"]
    assert client.ask("POST", "/jobs/request", {"token": token}, token=None).status == 204
    assert client.ask("POST", "/jobs/request", {"token": "glrt-x"}, token=None).status == 403


def test_faults_are_used_up(client):
    """The first answer is the fault with its headers, the next one is correct, and the file shows it."""
    faults = client.switches / "api-faults.json"
    one = {"method": "POST", "path": "/api/v4/user/runners", "status": 429, "headers": {"Retry-After": "2"}, "times": 1}
    faults.write_text(json.dumps([one]))
    answer = client.ask("POST", "/user/runners", {"runner_type": "instance_type"})
    assert (answer.status, answer.headers["Retry-After"]) == (429, "2")
    assert json.loads(faults.read_text()) == []
    assert client.runner()["id"] == 1


def test_a_dropped_connection(client):
    """The server closes the connection without an answer."""
    (client.switches / "api-faults.json").write_text('[{"path": "/api/v4/*", "drop": true}]')
    with pytest.raises((ConnectionError, urllib.error.URLError)):
        client.ask("GET", "/metadata")


def test_python_gitlab_gets_along_with_it(client):
    """The client library of GitLab's users: lists, pages, nested objects and errors."""
    import gitlab

    api = gitlab.Gitlab(client.url, private_token="glpat-root")
    api.auth()
    for _ in range(3):
        api.user.runners.create({"runner_type": "instance_type", "tag_list": ["a"]})
    assert {one.id for one in api.runners_all.list(iterator=True, per_page=2)} == {1, 2, 3}
    variables = api.projects.get("root/hello_hapi").variables
    one = variables.create({"key": "A", "value": "1", "environment_scope": "prod"})
    one.value = "2"
    one.save(filter={"environment_scope": "prod"})
    assert variables.get("A", filter={"environment_scope": "prod"}).value == "2"
    with pytest.raises(gitlab.GitlabVerifyError, match="403 Forbidden"):
        api.runners.verify("glrt-nobody")


def test_state_survives_a_restart(tmp_path):
    """Runners and tokens exist after a restart; only root can read the file."""
    with serve(tmp_path, SEED) as url:
        token = Client(url, tmp_path).runner()["token"]
    database = tmp_path / "var/opt/gitlab/standin/db.json"
    assert database.stat().st_mode & 0o777 == 0o600
    with serve(tmp_path, SEED) as url:
        again = Client(url, tmp_path)
        assert again.ask("POST", "/runners/verify", {"token": token}, token=None).status == 200
        assert again.runner()["id"] == 2


def test_many_at_once(client):
    """Twenty callers create two hundred runners, each with its own id, within a second each on a free machine."""
    made = []
    work = threading.Thread
    started = time.monotonic()
    threads = [work(target=lambda: made.extend(client.runner()["id"] for _ in range(10))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == list(range(1, 201))
    assert time.monotonic() - started < 20


def test_broken_json_is_refused(client):
    """400, and the connection stays open."""
    address = client.url.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1]))) as connection:
        head = "POST /api/v4/runners/verify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: 2\r\n\r\n{{x".encode())
        assert connection.recv(9999).startswith(b"HTTP/1.1 400")
        connection.sendall(b"GET /-/health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(9999).startswith(b"HTTP/1.1 200")


def basic(user, password):
    """The header of a login."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def claims(token):
    """The claims of a token."""
    middle = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))


@pytest.mark.parametrize(
    ("login", "scope", "actions"),
    [
        (("sammy", "sammy's password"), "repository:sammy/hello_hapi:push,pull", ["push", "pull"]),
        (("sammy", "sammy's password"), "repository:sammy/hello_hapi/deep/image:delete", ["delete"]),
        (("sammy", "glpat-sammy"), "repository:sammy/hello_hapi:*", ["*"]),
        (("sammy", "glpat-read"), "repository:sammy/hello_hapi:push,pull", ["pull"]),
        (("gitlab-ci-token", "glcbt-job"), "repository:sammy/hello_hapi:push", ["push"]),
        (("gitlab-ci-token", "glcbt-job"), "repository:root/second:pull", None),
        (("sammy", "sammy's password"), "repository:root/hello_hapi:pull", None),
        (("root", "root's password"), "repository:sammy/hello_hapi:pull", ["pull"]),
        (("root", "root's password"), "repository:no/project:push", None),
        (None, "repository:sammy/hello_hapi:push,pull", None),
    ],
)
def test_registry_tokens_grant_what_is_allowed(client, login, scope, actions):
    """Fewer actions than requested are not an error: the registry refuses later."""
    headers = basic(*login) if login else {}
    answer = client.ask("GET", "/jwt/auth", token=None, headers=headers, service="container_registry", scope=scope)
    assert answer.status == 200
    access = claims(answer.body["token"])["access"]
    name = scope.split(":")[1]
    assert access == ([{"type": "repository", "name": name, "actions": actions}] if actions else [])


def test_several_scopes(client):
    """A push that mounts a layer of another image requests both, in two parameters or in one."""
    wanted = ["repository:root/hello_hapi:push", "repository:root/second:pull"]
    for query in (urlencode({"scope": wanted}, doseq=True), urlencode({"scope": " ".join(wanted)})):
        answer = client.ask(
            "GET", f"/jwt/auth?service=container_registry&{query}", token=None, headers=basic("root", "root's password")
        )
        granted = [(one["name"], one["actions"]) for one in claims(answer.body["token"])["access"]]
        assert granted == [("root/hello_hapi", ["push"]), ("root/second", ["pull"])]


def test_without_a_seed_root_has_the_initial_password(tmp_path):
    """The first reconfigure gave it to the database; no file that the administrator sees needs to have it."""
    first = Paths(tmp_path).first_root_password
    first.parent.mkdir(parents=True)
    first.write_text("s3cret=")
    with serve(tmp_path, {}) as url:
        ask = Client(url, tmp_path).ask
        login = {"token": None, "service": "container_registry"}
        assert ask("GET", "/jwt/auth", headers=basic("root", "s3cret="), **login).status == 200
        assert ask("GET", "/jwt/auth", headers=basic("root", ""), **login).status == 401


def test_logging_in(client):
    """`docker login` asks without a scope: 200 for valid credentials, 401 for wrong ones, 403 for none."""
    ask = lambda headers: client.ask("GET", "/jwt/auth", token=None, headers=headers, service="container_registry")  # noqa: E731 - short
    assert ask(basic("sammy", "sammy's password")).status == 200
    assert ask(basic("sammy", "wrong")).status == 401
    assert ask(basic("gitlab-ci-token", "wrong")).status == 401
    assert ask({"Authorization": "Basic %%%"}).status == 401
    assert ask({}).body["errors"][0]["code"] == "DENIED"


def test_a_disabled_registry_grants_nothing(client):
    """container_registry_access_level = disabled applies to the owner too."""
    client.ask("PUT", "/projects/2", {"container_registry_access_level": "disabled"})
    headers = basic("sammy", "sammy's password")
    asked = {"service": "container_registry", "scope": "repository:sammy/hello_hapi:pull"}
    answer = client.ask("GET", "/jwt/auth", token=None, headers=headers, **asked)
    assert claims(answer.body["token"])["access"] == []


def test_tokens_are_signed_with_the_registry_s_key(client, tmp_path):
    """RS256 by the key whose certificate the registry is given."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    headers = basic("root", "root's password")
    answer = client.ask("GET", "/jwt/auth", token=None, headers=headers, service="container_registry")
    token = answer.body["token"]
    text, _, signature = token.rpartition(".")
    pem = (tmp_path / "var/opt/gitlab/registry/gitlab-registry.crt").read_bytes()
    key = x509.load_pem_x509_certificate(pem).public_key()
    raw = base64.urlsafe_b64decode(signature + "==")
    key.verify(raw, text.encode(), padding.PKCS1v15(), hashes.SHA256())
    message = claims(token)
    assert (message["aud"], message["iss"], message["sub"]) == ("container_registry", "omnibus-gitlab-issuer", "root")
