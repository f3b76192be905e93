"""Who may do what in the API: roles, group runners, protected branches, admin mode, two factors, rate limits.

Source of the roles: GitLab's config/authz/roles/*.yml, which list the abilities of each role, and the abilities that
lib/api/*.rb requires.
"""

import json
import re

import pytest

from provision_lab.standins.gitlab_ce.loopback import serve
from tests.standins.test_standin_gitlab_api import Client, basic, claims

ROLES = ("guest", "reporter", "developer", "maintainer", "owner")
SEED = {
    "api_token": "glpat-root",
    "users": {"root": "pw", **dict.fromkeys((*ROLES, "stranger"), "pw")},
    "groups": {"acme": {}, "acme/web": {}},
    "projects": ["acme/web/shop", "acme/other"],
    "members": [{"user": role, "path": "acme/web/shop", "role": role} for role in ROLES]
    + [{"user": "owner", "path": "acme", "role": "owner"}],
    "tokens": [
        *({"token": f"glpat-{role}", "user": role, "scopes": ["api"]} for role in (*ROLES, "stranger")),
        {"token": "glpat-plain-root", "user": "root", "scopes": ["api"]},
        {"token": "glpat-images", "user": "maintainer", "scopes": ["read_registry", "write_registry"]},
        {"token": "glpat-write", "user": "maintainer", "scopes": ["write_registry"]},
        {"token": "glpat-runners", "user": "maintainer", "scopes": ["create_runner"]},
    ],
    "job_tokens": [{"token": "glcbt-job", "project": "acme/web/shop", "user": "developer"}],
}
SHOP = "/projects/acme%2Fweb%2Fshop"
FILE = f"{SHOP}/repository/files/.gitlab-ci.yml"
COMMIT = {"branch": "main", "commit_message": "m", "content": "a: {script: [b]}"}


@pytest.fixture
def client(tmp_path):
    """An instance with a project in a group, and a member of it for each role."""
    with serve(tmp_path, SEED) as url:
        yield Client(url, tmp_path)


def switch(client, **switches):
    """Changes settings of the instance, as an administrator does in its admin area."""
    (client.switches / "settings.json").write_text(json.dumps(switches))


@pytest.mark.parametrize(
    ("method", "path", "body", "least"),
    [
        ("GET", SHOP, None, "guest"),
        ("GET", f"{FILE}?ref=main", None, "reporter"),
        ("GET", f"{SHOP}/repository/branches/main", None, "reporter"),
        ("GET", f"{SHOP}/registry/repositories", None, "reporter"),
        ("POST", f"{SHOP}/ci/lint", {"content": "a: {script: [b]}"}, "developer"),
        ("POST", f"{SHOP}/repository/files/new", COMMIT | {"branch": "new", "start_branch": "main"}, "developer"),
        ("PUT", SHOP, {"shared_runners_enabled": True}, "maintainer"),
        ("PUT", SHOP, {"visibility": "private"}, "owner"),
        ("GET", f"{SHOP}/variables", None, "maintainer"),
        ("POST", f"{SHOP}/variables", {"key": "K", "value": "v"}, "maintainer"),
        ("GET", f"{SHOP}/runners", None, "maintainer"),
        ("GET", f"{SHOP}/deploy_tokens", None, "maintainer"),
        ("POST", f"{SHOP}/deploy_tokens", {"name": "n", "scopes": ["read_registry"]}, "maintainer"),
        ("GET", f"{SHOP}/protected_tags", None, "maintainer"),
        ("POST", f"{SHOP}/protected_tags", {"name": "v*"}, "maintainer"),
        ("POST", "/user/runners", {"runner_type": "project_type", "project_id": 1}, "maintainer"),
        ("POST", "/user/runners", {"runner_type": "group_type", "group_id": 1}, "owner"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_the_least_role(client, method, path, body, least):
    """403 below it; a project is 404 for those who may not see it at all."""
    assert client.ask("POST", FILE, COMMIT).status == 201
    for role in ROLES:
        answer = client.ask(method, path, body, token=f"glpat-{role}")
        if ROLES.index(role) < ROLES.index(least):
            assert (role, answer.status) == (role, 403)
            assert answer.body["message"].startswith("403 Forbidden")
        else:
            assert (role, answer.status) in ((role, 200), (role, 201), (role, 400), (role, 422))
    if path.startswith("/projects"):
        assert client.ask(method, path, body, token="glpat-stranger").status == 404


@pytest.mark.parametrize(
    ("role", "granted"),
    [
        ("guest", []),
        ("reporter", ["pull"]),
        ("developer", ["pull", "push"]),
        ("maintainer", ["pull", "push", "delete", "*"]),
        ("owner", ["pull", "push", "delete", "*"]),
        ("stranger", []),
    ],
)
def test_what_a_role_may_do_with_images(client, role, granted):
    """Deleting needs admin_container_image, the Maintainer's: Auth::ContainerRegistryAuthenticationService."""
    assert actions(client, role, "pw") == granted


def actions(client, user, password):
    """The actions that a login is granted of all that exist."""
    scope = "repository:acme/web/shop:pull,push,delete,*"
    asked = {"service": "container_registry", "scope": scope}
    answer = client.ask("GET", "/jwt/auth", token=None, headers=basic(user, password), **asked)
    assert answer.status == 200, answer.body
    access = claims(answer.body["token"])["access"]
    return access[0]["actions"] if access else []


@pytest.mark.parametrize(
    ("user", "password", "granted"),
    [
        ("maintainer", "glpat-maintainer", ["pull", "push", "delete", "*"]),
        ("maintainer", "glpat-images", ["pull", "push"]),
        ("maintainer", "glpat-write", ["push"]),
        ("developer", "glpat-developer", ["pull", "push"]),
        ("gitlab-ci-token", "glcbt-job", ["pull", "push", "delete"]),
    ],
)
def test_what_a_token_may_do_with_images(client, user, password, granted):
    """write_registry neither pulls nor deletes; a job deletes in its own project: lib/gitlab/auth.rb, abilities_for_scopes."""
    assert actions(client, user, password) == granted


def test_a_token_without_a_scope_for_images(client):
    """It is valid, and refused: has_registry_ability? of the same service."""
    headers = basic("maintainer", "glpat-runners")
    answer = client.ask("GET", "/jwt/auth", token=None, headers=headers, service="container_registry")
    assert (answer.status, answer.body["errors"][0]["message"]) == (403, "access forbidden")


def test_another_service(client):
    """Only the registry's has tokens: JwtController."""
    assert client.ask("GET", "/jwt/auth", token=None, headers=basic("owner", "pw"), service="other").status == 404


def test_two_factors_refuse_passwords(client):
    """A user with a second factor, or all if the instance requires one: Gitlab::Auth.user_with_password_for_git.

    The message is the one for a wrong password.
    """
    ask = lambda password: client.ask(  # noqa: E731 - short
        "GET", "/jwt/auth", token=None, headers=basic("maintainer", password), service="container_registry"
    )
    wrong = ask("wrong").body["errors"][0]["message"]
    assert "you're required to use a token instead of a password" in wrong
    assert "two_factor_authentication_troubleshooting" in wrong
    assert ask("pw").status == 200
    for switches in ({"two_factor": ["maintainer"]}, {"require_two_factor": True}, {"git_passwords": False}):
        switch(client, **switches)
        assert (ask("pw").status, ask("pw").body["errors"][0]["message"]) == (401, wrong)
        assert ask("glpat-maintainer").status == 200
    switch(client, two_factor=["owner"])
    assert ask("pw").status == 200


def test_admin_mode(client):
    """With it an administrator's token needs the scope admin_mode; without that it is a user's: docs, "Admin Mode"."""
    creating = {"runner_type": "instance_type"}
    for token in ("glpat-root", "glpat-plain-root"):
        assert client.ask("POST", "/user/runners", creating, token=token).status == 201
    switch(client, admin_mode=True)
    assert client.ask("POST", "/user/runners", creating).status == 201
    refused = client.ask("POST", "/user/runners", creating, token="glpat-plain-root")
    assert (refused.status, refused.body["message"]) == (403, "403 Forbidden - Insufficient permissions")
    assert client.ask("GET", "/runners/all", token="glpat-plain-root").status == 403
    assert client.ask("GET", SHOP, token="glpat-plain-root").status == 404
    assert client.ask("GET", SHOP).status == 200
    # /jwt/auth bypasses it: JwtController, bypass_admin_mode!
    assert actions(client, "root", "glpat-plain-root") == ["pull", "push", "delete", "*"]


def test_group_runners(client):
    """They serve the group's projects, and belong to the group: lib/api/ci/runners.rb."""
    group = client.ask("GET", "/groups/acme", token="glpat-owner").body
    assert (group["id"], group["full_path"]) == (1, "acme")
    assert client.ask("GET", "/groups/acme", token="glpat-stranger").status == 404
    settings = {"runner_type": "group_type", "group_id": 1, "description": "shared"}
    assert client.ask("POST", "/user/runners", settings, token="glpat-maintainer").status == 403
    assert client.ask("POST", "/user/runners", settings | {"group_id": 99}, token="glpat-owner").status == 403
    made = client.ask("POST", "/user/runners", settings, token="glpat-owner")
    assert made.status == 201
    assert made.body["token"].startswith("glrt-t2_")
    shown = client.ask("GET", "/runners/1", token="glpat-owner").body
    assert (shown["runner_type"], [one["id"] for one in shown["groups"]], shown["projects"]) == ("group_type", [1], [])
    listed = lambda path, token="glpat-owner": [one["id"] for one in client.ask("GET", path, token=token).body]  # noqa: E731
    assert listed(f"{SHOP}/runners", "glpat-maintainer") == [1]
    assert listed("/groups/acme/runners") == [1]
    assert listed("/groups/acme%2Fweb/runners") == [1]  # of the groups above, too
    assert listed("/runners?type=group_type") == [1]
    refused = client.ask("POST", f"{SHOP}/runners", {"runner_id": 1}, token="glpat-owner")
    assert (refused.status, refused.body["message"]) == (403, "403 Forbidden - Runner is a group runner")
    assert client.ask("PUT", "/runners/1", {"paused": True}, token="glpat-maintainer").status == 403
    assert client.ask("PUT", "/runners/1", {"paused": True}, token="glpat-owner").status == 200
    client.ask("PUT", SHOP, {"group_runners_enabled": False})
    assert listed(f"{SHOP}/runners", "glpat-maintainer") == []


def test_a_runner_of_several_projects(client):
    """A user may not delete it, nor take a locked one off a project: lib/api/ci/runners.rb."""
    created = {"runner_type": "project_type", "project_id": 1}
    assert client.ask("POST", "/user/runners", created, token="glpat-owner").status == 201
    assert client.ask("POST", "/projects/acme%2Fother/runners", {"runner_id": 1}, token="glpat-owner").status == 201
    refused = client.ask("DELETE", "/runners/1", token="glpat-owner")
    assert refused.body["message"] == "403 Forbidden - Runner associated with more than one project"
    client.ask("PUT", "/runners/1", {"locked": True})
    refused = client.ask("DELETE", "/projects/acme%2Fother/runners/1", token="glpat-owner")
    assert refused.body["message"] == "403 Forbidden - Runner is locked"
    assert client.ask("DELETE", "/projects/acme%2Fother/runners/1").status == 204
    assert client.ask("DELETE", "/runners/1", token="glpat-owner").status == 204


def test_the_default_branch_is_protected(client):
    """Maintainers push to it, also its first commit: Commits::CreateService, Gitlab::UserAccess."""
    refused = client.ask("POST", FILE, COMMIT, token="glpat-developer")
    assert (refused.status, refused.body["message"]) == (400, "You are not allowed to push into this branch")
    assert client.ask("POST", FILE, COMMIT, token="glpat-maintainer").status == 201
    assert client.ask("PUT", FILE, COMMIT, token="glpat-developer").status == 400
    other = COMMIT | {"branch": "provision/pipeline", "start_branch": "main"}
    assert client.ask("PUT", FILE, other, token="glpat-developer").status == 200
    shown = client.ask("GET", f"{SHOP}/repository/branches/main", token="glpat-developer").body
    assert (shown["protected"], shown["can_push"]) == (True, False)
    shown = client.ask("GET", f"{SHOP}/repository/branches/provision%2Fpipeline", token="glpat-developer").body
    assert (shown["protected"], shown["can_push"]) == (False, True)


@pytest.mark.parametrize(("allowed", "status"), [("developer", 201), ("maintainer", 201), ("nobody", 400)])
def test_branches_of_the_seed(tmp_path, allowed, status):
    """A branch may allow less or more roles: "No one" refuses administrators, too."""
    rule = {"project": "acme/web/shop", "branch": "main", "push": allowed}
    with serve(tmp_path, SEED | {"protected_branches": [rule]}) as url:
        client = Client(url, tmp_path)
        if allowed == "developer":
            assert client.ask("POST", FILE, COMMIT, token="glpat-developer").status == 201
        else:
            assert client.ask("POST", FILE, COMMIT, token="glpat-developer").status == 400
            assert client.ask("POST", FILE, COMMIT).status == status


def test_a_rate_limit(client):
    """Each user has requests for each period; the headers say when the next begins: Gitlab::RackAttack."""
    switch(client, api_throttle={"requests": 2, "period": 3600})
    assert [client.ask("GET", SHOP, token="glpat-owner").status for _ in range(3)] == [200, 200, 429]
    refused = client.ask("GET", SHOP, token="glpat-owner")
    assert refused.headers["Content-Type"] == "text/plain"
    assert refused.body == b"Retry later"
    assert 0 < int(refused.headers["Retry-After"]) <= 3600
    assert (refused.headers["RateLimit-Name"], refused.headers["RateLimit-Remaining"]) == (
        "throttle_authenticated_api",
        "0",
    )
    assert re.fullmatch(r"\d+", refused.headers["RateLimit-Reset"])
    assert client.ask("GET", SHOP, token="glpat-guest").status == 200
    assert client.ask("GET", "/-/readiness", token="glpat-owner").status == 200
    assert actions(client, "owner", "pw") != []


def deploy_token(client, path=SHOP, **body):
    """A new deploy token, as its maker sees it."""
    answer = client.ask("POST", f"{path}/deploy_tokens", {"name": "n", "scopes": ["read_registry"]} | body)
    assert answer.status == 201, answer.body
    return answer.body


def test_a_deploy_token_s_life(client):
    """Made, listed, read and deleted; its text is in the first answer alone: lib/api/deploy_tokens.rb, deploy_token.rb."""
    made = deploy_token(client, scopes="write_registry,read_registry", expires_at="2999-01-31")
    secret = made.pop("token")
    assert re.fullmatch(r"gldt-[\w-]{20}", secret)
    assert made == {
        "id": 1,
        "name": "n",
        "username": "gitlab+deploy-token-1",
        "expires_at": "2999-01-31T00:00:00.000Z",
        "scopes": ["read_registry", "write_registry"],
        "revoked": False,
        "expired": False,
    }
    assert client.ask("GET", f"{SHOP}/deploy_tokens").body == [made]
    assert client.ask("GET", f"{SHOP}/deploy_tokens/1").body == made
    assert client.ask("GET", "/groups/acme/deploy_tokens/1").body == {"message": "404 Not found"}
    assert client.ask("DELETE", f"{SHOP}/deploy_tokens/1").status == 204
    assert client.ask("DELETE", f"{SHOP}/deploy_tokens/1").status == 404
    assert client.ask("GET", f"{SHOP}/deploy_tokens").body == []


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, {"error": "name is missing, scopes is missing"}),
        ({"name": "n", "scopes": ["api"]}, {"error": "scopes does not have a valid value"}),
        ({"name": "n", "scopes": []}, {"message": "Scopes can't be blank"}),
        ({"name": "n", "scopes": ["read_registry"], "expires_at": "soon"}, {"error": "expires_at is invalid"}),
        (
            {"name": "n", "scopes": ["read_registry"], "username": "a b"},
            {"message": "Username can contain only letters, digits, '_', '-', '+', and '.'"},
        ),
    ],
)
def test_a_deploy_token_that_is_refused(client, body, error):
    """400 in the API's words; two with one name are no error."""
    answer = client.ask("POST", f"{SHOP}/deploy_tokens", body)
    assert (answer.status, answer.body) == (400, error)
    assert [deploy_token(client)["id"] for _ in range(2)] == [1, 2]


def test_a_group_s_deploy_token_needs_its_owner(client):
    """A maintainer reads them: config/authz/roles/maintainer.yml and owner.yml."""
    body = {"name": "n", "scopes": ["read_registry"]}
    assert client.ask("POST", "/groups/acme/deploy_tokens", body, token="glpat-owner").status == 201
    assert client.ask("POST", "/groups/acme/deploy_tokens", body, token="glpat-stranger").status == 404
    assert client.ask("GET", "/deploy_tokens", token="glpat-owner").status == 403
    assert [one["id"] for one in client.ask("GET", "/deploy_tokens").body] == [1]


@pytest.mark.parametrize(
    ("scopes", "granted"),
    [
        (["read_registry"], ["pull"]),
        (["write_registry"], ["push"]),
        (["read_registry", "write_registry"], ["pull", "push"]),
    ],
)
@pytest.mark.parametrize("owner", [SHOP, "/groups/acme%2Fweb"])
def test_what_a_deploy_token_may_do_with_images(client, owner, scopes, granted):
    """What its scopes say, in its project or group, and never delete: deploy_token_can_pull? and …_can_push?."""
    made = deploy_token(client, owner, scopes=scopes)
    assert actions(client, made["username"], made["token"]) == granted
    ask = {"service": "container_registry", "scope": "repository:acme/other:pull,push,*"}
    login = basic(made["username"], made["token"])
    other = client.ask("GET", "/jwt/auth", token=None, headers=login, **ask)
    assert claims(other.body["token"])["access"] == []
    assert client.ask("GET", "/jwt/auth", token=None, headers=login, service="container_registry").status == 200


def test_what_a_deploy_token_may_not_do(client):
    """It is no token of the API, and valid under its own name, until its last day, with a scope for images alone."""
    made = deploy_token(client)
    assert client.ask("GET", SHOP, token=made["token"]).status == 401
    ended = deploy_token(client, expires_at="2020-01-01", username="by-hand")
    code = deploy_token(client, scopes=["read_repository"])
    tries = {
        "another name": (basic("root", made["token"]), 401),
        "expired": (basic("by-hand", ended["token"]), 401),
        "no scope for images": (basic(code["username"], code["token"]), 403),
    }
    for headers, status in tries.values():
        answer = client.ask("GET", "/jwt/auth", token=None, headers=headers, service="container_registry")
        assert answer.status == status
    assert [one["id"] for one in client.ask("GET", f"{SHOP}/deploy_tokens?active=true").body] == [
        made["id"],
        code["id"],
    ]


def test_protected_tags(client):
    """Protected once, with maintainers by default; 422 and 404 in the API's words: lib/api/protected_tags.rb."""
    tags = f"{SHOP}/protected_tags"
    level = {"id": 1, "access_level": 40, "access_level_description": "Maintainers", "deploy_key_id": None}
    made = client.ask("POST", tags, {"name": "v*"})
    assert (made.status, made.body) == (201, {"name": "v*", "create_access_levels": [level]})
    assert client.ask("GET", f"{tags}/v*").body == made.body
    again = client.ask("POST", tags, {"name": "v*", "create_access_level": 30})
    assert (again.status, again.body) == (422, {"message": ["Name has already been taken"]})
    wrong = client.ask("POST", tags, {"name": "w*", "create_access_level": 50})
    assert (wrong.status, wrong.body) == (400, {"error": "create_access_level does not have a valid value"})
    closed = client.ask("POST", tags, {"name": "w*", "create_access_level": 0}).body
    assert closed["create_access_levels"][0]["access_level_description"] == "No one"
    assert client.ask("DELETE", f"{tags}/v*").status == 204
    missing = client.ask("DELETE", f"{tags}/v*")
    assert (missing.status, missing.body) == (404, {"message": "404 Not found"})
    assert [one["name"] for one in client.ask("GET", tags).body] == ["w*"]
