"""The registry's side of GitLab: `/jwt/auth` with signed tokens, and a project's images, asked from the registry."""

from __future__ import annotations

import base64
import binascii
import hashlib
import http.client
import json
import re
import secrets
import time
import urllib.request
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from . import deploy_tokens
from .access import DEVELOPER, MAINTAINER, OWNER, REPORTER, find_project, role
from .http import API, ApiError, Context, Response, not_found, paged, route
from .store import Record, check_password, find_token, now

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey


# What a login may do, by the scopes of its token. Source: lib/gitlab/auth.rb, abilities_for_scopes.
# pull and push are about images, download and upload about code.
_ALL = frozenset({"pull", "push", "admin", "download", "upload"})
_ABILITIES = {
    "api": _ALL,
    "read_api": {"pull", "download"},
    "read_registry": {"pull"},
    "write_registry": {"push"},
    "read_repository": {"download"},
    "write_repository": {"download", "upload"},
}
_JOB = frozenset({"pull", "push", "delete", "download"})  # in the job's own project
_HELP = (
    "help/user/profile/account/two_factor_authentication_troubleshooting.md"
    "#error-http-basic-access-denied-if-a-password-was-provided-for-git-authentication-"
)


@route("GET", "/jwt/auth", scopes=())
def token(context: Context) -> Response:
    """A token for the actions that the caller may do. Fewer than requested, or none, is not an error."""
    if context.parameters.text("service") != "container_registry":
        return Response(404)
    login = who(context)
    if not context.settings["registry_host"]:
        raise _error(404, "UNAVAILABLE", "registry not enabled")
    user = login.user
    if not login.abilities - {"download", "upload"}:
        raise _error(403, "DENIED", "access forbidden")
    # A push that mounts another image's layer sends `scope` twice.
    scopes = [one for text in parse_qs(context.request.raw_query).get("scope", []) for one in text.split()]
    if user is None and login.deploy is None and not scopes:
        raise _error(403, "DENIED", "access forbidden")
    granted = [access for scope in scopes if (access := _grant(context, scope, login))]
    subject = user["username"] if user else ""
    text = signed(context.settings["signing_key"], context.settings["issuer"], subject, granted)
    return Response(200, {"token": text})


@dataclass(frozen=True)
class Login:
    """A login of Docker or git. `project`: the only one that a job's token is for. `deploy`: a deploy token."""

    user: Record | None
    abilities: frozenset[str]
    project: int | None = None
    deploy: Record | None = None


def who(context: Context) -> Login:
    """The login of Docker or git in the request; nobody without one. Raises ApiError 401 for wrong credentials.

    A password is refused where a token is required, with the same words. Source: Gitlab::Auth.find_for_git_client.
    """
    kind, _, credentials = context.request.header("authorization").partition(" ")
    if kind.lower() != "basic":
        return Login(None, frozenset({"pull"}))
    try:
        name, _, password = base64.b64decode(credentials, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise _denied(context) from None
    known = find_token(context.store, password)
    if known is not None:
        user = context.store.find("users", username=known["user"])
        if not known.get("project"):
            return Login(user, frozenset().union(*(_ABILITIES.get(one, ()) for one in known["scopes"])))
        owner = context.store.find("projects", path_with_namespace=known["project"])
        if name == "gitlab-ci-token" and owner:
            return Login(user, _JOB, owner["id"])
        raise _denied(context)
    if deploy := deploy_tokens.login(context.store, name, password):
        return Login(None, frozenset().union(*(_ABILITIES.get(one, ()) for one in deploy["scopes"])), deploy=deploy)
    user = context.store.find("users", username=name)
    if user is None or not check_password(user, password) or _needs_token(context, name):
        raise _denied(context)
    return Login(user, _ALL)


def _needs_token(context: Context, name: str) -> bool:
    """Whether this user's password is not accepted: two factors, or no passwords for Git and images at all."""
    switches = context.switches
    forced = switches.get("require_two_factor") or switches.get("git_passwords") is False
    return bool(forced) or name in switches.get("two_factor", ())


def _grant(context: Context, scope: str, login: Login) -> dict[str, Any] | None:
    """The access for one `repository:NAME:ACTIONS`, or None.

    Source: Auth::ContainerRegistryAuthenticationService. An administrator counts as owner there, also in admin mode.
    """
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    user = login.user
    if kind == "registry" and name == "catalog" and user and user["admin"]:
        return {"type": kind, "name": name, "actions": ["*"]}
    project = _project_of(context, name) if kind == "repository" else None
    if project is None or project["container_registry_access_level"] == "disabled":
        return None
    if login.project is not None and login.project != project["id"]:
        return None
    allowed = set(login.abilities) if login.project else _allowed(context, login, project)
    granted = [action for action in actions.split(",") if action in allowed]
    if not granted:
        return None
    if "push" in granted:
        _record(context, project, name)
    return {"type": kind, "name": name, "actions": granted}


def _allowed(context: Context, login: Login, project: Record) -> set[str]:
    """The actions that both the user's role and the token's scopes allow. A deploy token's are those of its scopes."""
    user = login.user
    if login.deploy and deploy_tokens.covers(context.store, login.deploy, project):
        return set(login.abilities)
    own = OWNER if user and user["admin"] else role(context.store, user, project["path_with_namespace"])
    if project["visibility"] == "public" and project["container_registry_access_level"] == "enabled":
        own = max(own, REPORTER)
    allowed = {"pull"} if own >= REPORTER and "pull" in login.abilities else set()
    if own >= DEVELOPER and "push" in login.abilities:
        allowed.add("push")
    if own >= MAINTAINER and "admin" in login.abilities:
        allowed |= {"delete", "*"}
    return allowed


def _project_of(context: Context, name: str) -> Record | None:
    """The project that an image belongs to: `group/project`, or up to two levels below it."""
    parts = name.split("/")
    for length in range(len(parts), max(len(parts) - 3, 1), -1):
        wanted = "/".join(parts[:length])
        for project in context.store.all("projects"):
            if project["path_with_namespace"].lower() == wanted:
                return project
    return None


def _record(context: Context, project: Record, name: str) -> None:
    """Records the repository at its first permission to push."""
    if context.store.find("repositories", path=name) is None:
        context.store.add("repositories", {"path": name, "project_id": project["id"], "created_at": now()})


def _denied(context: Context) -> ApiError:
    """401 in the words of GitLab's JwtController, which do not say whether the password or its kind was wrong."""
    return _error(
        401,
        "UNAUTHORIZED",
        "HTTP Basic: Access denied. If a password was provided for Git authentication, the password was incorrect or "
        "you're required to use a token instead of a password. If a token was provided, it was either incorrect, "
        f"expired, or improperly scoped. See {context.settings['external_url']}/{_HELP}",
    )


def _error(status: int, code: str, message: str) -> ApiError:
    return ApiError(status, {"errors": [{"code": code, "message": message}]})


_MANIFESTS = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"


@route("GET", f"{API}/projects/:identity/registry/repositories")
def repositories(context: Context, identity: str) -> Response:
    """The image repositories of a project."""
    owner = find_project(context, identity, REPORTER)
    found = [one for one in context.store.all("repositories") if one["project_id"] == owner["id"]]
    shown = [_repository(context, owner, one) for one in found]
    for one in shown:
        names = _tags(context, one["path"])
        if context.parameters.flag("tags_count"):
            one["tags_count"] = len(names)
        if context.parameters.flag("tags"):
            one["tags"] = [_tag(context, one["path"], name) for name in names]
    return paged(context, shown)


@route("GET", f"{API}/projects/:identity/registry/repositories/:repository/tags")
def tags(context: Context, identity: str, repository: str) -> Response:
    """The tags of a repository."""
    found = _find(context, identity, repository)
    return paged(context, [_tag(context, found["path"], name) for name in _tags(context, found["path"])])


@route("GET", f"{API}/projects/:identity/registry/repositories/:repository/tags/:tag")
def tag(context: Context, identity: str, repository: str, tag: str) -> Response:
    """One tag with its digest."""
    found = _find(context, identity, repository)
    digest, manifest = _manifest(context, found["path"], tag)
    revision = manifest.get("config", {}).get("digest", digest).partition(":")[2]
    total = sum(layer.get("size", 0) for layer in manifest.get("layers", []))
    more = {"revision": revision, "short_revision": revision[:9], "digest": digest, "total_size": total}
    more["created_at"] = _created(context, found["path"], manifest)
    return Response(200, _tag(context, found["path"], tag) | more)


@route("DELETE", f"{API}/projects/:identity/registry/repositories/:repository/tags/:tag")
def delete_tag(context: Context, identity: str, repository: str, tag: str) -> Response:
    """Deletes one tag. The registry here deletes by digest, so other tags of the same digest are deleted too."""
    found = _find(context, identity, repository, DEVELOPER)
    digest, _ = _manifest(context, found["path"], tag)
    status, _, _ = _ask(context, "DELETE", f"/v2/{found['path']}/manifests/{digest}", found["path"], "*")
    if status != 202:
        raise ApiError(400, {"message": f"400 Bad request - the registry answered {status}"})
    return Response(200)


@route("DELETE", f"{API}/projects/:identity/registry/repositories/:repository")
def delete_repository(context: Context, identity: str, repository: str) -> Response:
    """Deletes a repository and its tags."""
    found = _find(context, identity, repository, MAINTAINER)
    for name in _tags(context, found["path"]):
        digest, _ = _manifest(context, found["path"], name)
        _ask(context, "DELETE", f"/v2/{found['path']}/manifests/{digest}", found["path"], "*")
    context.store.remove("repositories", found)
    return Response(202, 202)


def _find(context: Context, identity: str, repository: str, least: int = REPORTER) -> Record:
    owner = find_project(context, identity, least)
    found = context.store.find("repositories", id=int(repository)) if repository.isdigit() else None
    if found is None or found["project_id"] != owner["id"]:
        raise not_found("Container Repository")
    return found


def _repository(context: Context, owner: Record, record: Record) -> dict[str, Any]:
    return {
        "id": record["id"],
        "name": record["path"][len(owner["path_with_namespace"]) + 1 :],
        "path": record["path"],
        "project_id": owner["id"],
        "location": f"{context.settings['registry_host']}/{record['path']}",
        "created_at": record["created_at"],
        "cleanup_policy_started_at": None,
        "status": None,
    }


def _tag(context: Context, path: str, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "path": f"{path}:{name}",
        "location": f"{context.settings['registry_host']}/{path}:{name}",
    }


def _tags(context: Context, path: str) -> list[str]:
    status, _, body = _ask(context, "GET", f"/v2/{path}/tags/list", path, "pull")
    return sorted(json.loads(body).get("tags") or []) if status == 200 else []


def _manifest(context: Context, path: str, tag: str) -> tuple[str, dict[str, Any]]:
    if not re.fullmatch(r"\w[\w.-]{0,127}", tag):
        raise ApiError(400, {"error": "tag_name is invalid"})
    status, digest, body = _ask(context, "GET", f"/v2/{path}/manifests/{tag}", path, "pull")
    if status != 200:
        raise not_found("Tag")
    return digest, json.loads(body)


def _created(context: Context, path: str, manifest: dict[str, Any]) -> str | None:
    """When an image was made, as its configuration says. Source: GitLab's lib/container_registry/tag.rb."""
    if "config" not in manifest:  # an index
        return None
    status, _, body = _ask(context, "GET", f"/v2/{path}/blobs/{manifest['config']['digest']}", path, "pull")
    created = json.loads(body).get("created") if status == 200 else None
    return str(created) if created else None


def _ask(context: Context, method: str, address: str, path: str, action: str) -> tuple[int, str, bytes]:
    """Sends a request to the registry as GitLab itself: status, digest and body. A blob may be a redirect to the storage."""
    settings = context.settings
    access = [{"type": "repository", "name": path, "actions": [action]}]
    text = signed(settings["signing_key"], settings["issuer"], "gitlab", access)
    connection = http.client.HTTPConnection(settings["registry_address"], timeout=10)
    try:
        connection.request(method, address, headers={"Authorization": f"Bearer {text}", "Accept": _MANIFESTS})
        answer = connection.getresponse()
        if answer.status == 307:
            with urllib.request.urlopen(answer.getheader("Location") or "", timeout=10) as stored:
                return 200, "", stored.read()
        return answer.status, answer.getheader("Docker-Content-Digest") or "", answer.read()
    except OSError as error:
        raise ApiError(503, {"message": f"503 Service Unavailable - the registry does not answer: {error}"}) from error
    finally:
        connection.close()


LIFETIME = 300


def signed(key_file: str, issuer: str, subject: str, access: list[dict[str, Any]]) -> str:
    """A token that the registry accepts: RS256, with the key's fingerprint as its id."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    key, fingerprint = _key(key_file, Path(key_file).stat().st_mtime_ns)
    moment = int(time.time())
    claims = {
        "access": access,
        "jti": secrets.token_hex(16),
        "aud": "container_registry",
        "sub": subject,
        "iss": issuer,
        "iat": moment,
        "nbf": moment - 5,
        "exp": moment + LIFETIME,
    }
    header = {"typ": "JWT", "alg": "RS256", "kid": fingerprint}
    text = f"{_base64(json.dumps(header).encode())}.{_base64(json.dumps(claims).encode())}"
    return f"{text}.{_base64(key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


@cache
def _key(path: str, changed: int) -> tuple[RSAPrivateKey, str]:  # noqa: ARG001 - `changed` makes a new key a new entry
    """The private key and libtrust's fingerprint of its public half."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    key = serialization.load_pem_private_key(Path(path).read_bytes(), None)
    if not isinstance(key, RSAPrivateKey):
        raise TypeError(f"{path} holds no RSA key")
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    text = base64.b32encode(hashlib.sha256(public).digest()[:30]).decode()
    return key, ":".join(text[start : start + 4] for start in range(0, len(text), 4))


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
