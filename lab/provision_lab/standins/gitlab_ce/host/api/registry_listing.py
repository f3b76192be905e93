"""A project's images: what was pushed, asked from the registry itself."""

from __future__ import annotations

import http.client
import json
import re
from typing import Any

from .access import project
from .http import ApiError, Response, not_found
from .paging import paged
from .routing import API, Context, route
from .store import Record
from .tokens import signed

_MANIFESTS = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"


@route("GET", f"{API}/projects/:identity/registry/repositories")
def repositories(context: Context, identity: str) -> Response:
    """The image repositories of a project."""
    owner = project(context, identity)
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
    """One tag, with its digest."""
    found = _find(context, identity, repository)
    digest, manifest = _manifest(context, found["path"], tag)
    revision = manifest.get("config", {}).get("digest", digest).partition(":")[2]
    total = sum(layer.get("size", 0) for layer in manifest.get("layers", []))
    more = {"revision": revision, "short_revision": revision[:9], "digest": digest, "total_size": total}
    return Response(200, _tag(context, found["path"], tag) | more)


@route("DELETE", f"{API}/projects/:identity/registry/repositories/:repository/tags/:tag")
def delete_tag(context: Context, identity: str, repository: str, tag: str) -> Response:
    """Forgets one tag. The registry here knows only digests, so tags of the same digest go along."""
    found = _find(context, identity, repository)
    digest, _ = _manifest(context, found["path"], tag)
    status, _, _ = _ask(context, "DELETE", f"/v2/{found['path']}/manifests/{digest}", found["path"], "*")
    if status != 202:
        raise ApiError(400, {"message": f"400 Bad request - the registry answered {status}"})
    return Response(200)


@route("DELETE", f"{API}/projects/:identity/registry/repositories/:repository")
def delete_repository(context: Context, identity: str, repository: str) -> Response:
    """Forgets a repository and its tags."""
    found = _find(context, identity, repository)
    for name in _tags(context, found["path"]):
        digest, _ = _manifest(context, found["path"], name)
        _ask(context, "DELETE", f"/v2/{found['path']}/manifests/{digest}", found["path"], "*")
    context.store.remove("repositories", found)
    return Response(202, 202)


def _find(context: Context, identity: str, repository: str) -> Record:
    owner = project(context, identity)
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


def _ask(context: Context, method: str, address: str, path: str, action: str) -> tuple[int, str, bytes]:
    """Asks the registry as GitLab itself: status, digest and body."""
    settings = context.settings
    access = [{"type": "repository", "name": path, "actions": [action]}]
    text = signed(settings["signing_key"], settings["issuer"], "gitlab", access)
    connection = http.client.HTTPConnection(settings["registry_address"], timeout=10)
    try:
        connection.request(method, address, headers={"Authorization": f"Bearer {text}", "Accept": _MANIFESTS})
        answer = connection.getresponse()
        return answer.status, answer.getheader("Docker-Content-Digest") or "", answer.read()
    except OSError as error:
        raise ApiError(503, {"message": f"503 Service Unavailable - the registry does not answer: {error}"}) from error
    finally:
        connection.close()
