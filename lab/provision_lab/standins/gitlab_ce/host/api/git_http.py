"""Pushes and fetches over HTTP: the login, the role, and the checks before a push is accepted. git speaks the protocol.

The parts of Workhorse, Rails and Gitaly are here. Sources: GitLab's app/controllers/repositories/git_http_client_controller.rb,
lib/gitlab/git_access.rb, lib/gitlab/auth.rb (abilities of scopes); gitprotocol-http(5).
"""

from __future__ import annotations

import gzip
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from . import deploy_tokens, pipelines
from .access import DEVELOPER, OWNER, REPORTER, is_protected, may_push, role
from .git import adopt_first_branch, environment, repository_of
from .http import ApiError, Context, Response, route
from .registry import Login, who
from .store import Record

_HELP: Final = "help/topics/git/troubleshooting_git.md#error-on-git-fetch-http-basic-access-denied"
_NO_PROJECT: Final = "The project you were looking for could not be found or you don't have permission to view it."


@route("GET", "/:path*.git/info/refs", scopes=())
def advertise(context: Context, path: str) -> Response:
    """The branches of a repository, for a fetch or a push."""
    service = context.parameters.text("service") or ""
    if service not in ("git-upload-pack", "git-receive-pack"):
        raise _refused(403, "Forbidden")  # the old protocol without a service
    found = _authorized(context, path, service)
    answer = _serve(context, found, service, "--http-backend-info-refs")
    head = f"# service={service}\n"
    text = f"{len(head) + 4:04x}{head}0000".encode() + answer
    return Response(200, text, {"Content-Type": f"application/x-{service}-advertisement", "Cache-Control": "no-cache"})


@route("POST", "/:path*.git/git-upload-pack", scopes=())
def upload_pack(context: Context, path: str) -> Response:
    """A fetch."""
    return _exchange(context, path, "git-upload-pack")


@route("POST", "/:path*.git/git-receive-pack", scopes=())
def receive_pack(context: Context, path: str) -> Response:
    """A push."""
    return _exchange(context, path, "git-receive-pack")


def _exchange(context: Context, path: str, service: str) -> Response:
    found = _authorized(context, path, service)
    repository = repository_of(context.store, found)
    before = repository.heads() if service == "git-receive-pack" else {}
    answer = _serve(context, found, service)
    if service == "git-receive-pack":
        adopt_first_branch(context.store, found)
        user = _login(context).user
        for ref, commit in repository.heads().items():
            if user and before.get(ref) != commit:
                kind, _, name = ref.removeprefix("refs/").partition("/")
                pipelines.push(context, found, name, before.get(ref, ""), commit, user, tag=kind == "tags")
    return Response(200, answer, {"Content-Type": f"application/x-{service}-result", "Cache-Control": "no-cache"})


def _serve(context: Context, project: Record, service: str, *options: str) -> bytes:
    request, owner = context.request, repository_of(context.store, project)
    owner.create()
    body = gzip.decompress(request.raw) if request.header("content-encoding") == "gzip" else request.raw
    heads = owner.ask("for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads").split()
    rules = [
        one["branch"]
        for one in context.store.all("protected_branches")
        if one["project"] == project["path_with_namespace"]
    ]
    names = {*heads, *rules, project["default_branch"]}
    user = _user_context(context)
    protected = [name for name in names if is_protected(user, project, name)]
    denied = [name for name in names if not may_push(user, project, name)]
    env = {
        "STANDIN_DEFAULT": f"refs/heads/{project['default_branch']}",
        "STANDIN_PROTECTED": " ".join(f"refs/heads/{name}" for name in protected),
        "STANDIN_DENIED": " ".join(f"refs/heads/{name}" for name in denied),
        "GIT_PROTOCOL": request.header("git-protocol"),
    }
    command = [service.removeprefix("git-"), "--stateless-rpc", *options, str(owner.path)]
    return subprocess.run(
        ["git", *command],
        input=body,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
        env=environment(env),
    ).stdout


def _user_context(context: Context) -> Context:
    """The context with the user of the login, as the API's functions about roles expect it."""
    token = {"scopes": ["admin_mode"]}  # Source: the controller's bypass_admin_mode!
    return replace(context, user=_login(context).user, token=token)


def _authorized(context: Context, path: str, service: str) -> Record:
    """The project. Raises ApiError: 401 without a login, 404 for a project that the user may not see, 403 for a push."""
    login = _login(context)
    user, project = login.user, context.store.find("projects", path_with_namespace=path)
    if user is None:
        public = project is not None and project["visibility"] == "public"
        deploy = login.deploy and project and deploy_tokens.covers(context.store, login.deploy, project)
        if project and service == "git-upload-pack" and (public or (deploy and "download" in login.abilities)):
            return project
        raise _denied(context)
    own = OWNER if user["admin"] else role(context.store, user, path)
    if project is not None and project["visibility"] != "private":
        own = max(own, REPORTER)
    if project is None or own < REPORTER or login.project not in (None, project["id"]):
        raise _refused(404, _NO_PROJECT)
    if service == "git-upload-pack":
        if "download" not in login.abilities:
            raise _refused(403, "You are not allowed to download code from this project.")
    elif "upload" not in login.abilities or own < DEVELOPER:
        raise _refused(403, "You are not allowed to push code to this project.")
    return project


def _login(context: Context) -> Login:
    try:
        return who(context)
    except ApiError:
        raise _denied(context) from None


def _denied(context: Context) -> ApiError:
    return _refused(
        401,
        "HTTP Basic: Access denied. If a password was provided for Git authentication, the password was incorrect or "
        "you're required to use a token instead of a password. If a token was provided, it was either incorrect, "
        f"expired, or improperly scoped. See {context.settings['external_url']}/{_HELP}",
        {"WWW-Authenticate": 'Basic realm="GitLab"'},
    )


def _refused(status: int, text: str, headers: Mapping[str, str] | None = None) -> ApiError:
    error = ApiError(status, text)
    error.response = Response(status, text, {"Content-Type": "text/plain; charset=utf-8", **(headers or {})})
    return error
