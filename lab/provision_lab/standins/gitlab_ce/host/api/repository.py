"""A project's repository, as far as the API's files and branches go: no git, each branch a table of files.

A file knows the commit that touched it last, which is what the optimistic lock goes by.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import Any

from .access import project
from .http import ApiError, Parameters, Response, bad, not_found
from .routing import API, Context, route
from .store import Record, Store, now

_FILE = f"{API}/projects/:identity/repository/files/:path"
_BRANCH = f"{API}/projects/:identity/repository/branches/:name"


@route("GET", _FILE)
def show_file(context: Context, identity: str, path: str) -> Response:
    """A file at a branch; its content in base64."""
    owner = project(context, identity)
    context.parameters.require("ref")
    ref = str(context.parameters.text("ref"))
    found = branch(context.store, owner, ref)
    if found is None:
        raise not_found("Commit")
    if path not in found["files"]:
        raise not_found("File")
    kept = found["files"][path]
    raw = base64.b64decode(kept["content"])
    return Response(
        200,
        {
            "file_name": path.rpartition("/")[2],
            "file_path": path,
            "size": len(raw),
            "encoding": "base64",
            "content_sha256": hashlib.sha256(raw).hexdigest(),
            "ref": ref,
            "blob_id": hashlib.sha1(b"blob %d\0" % len(raw) + raw).hexdigest(),
            "commit_id": found["commit"],
            "last_commit_id": kept["last_commit_id"],
            "execute_filemode": False,
            "content": kept["content"],
        },
    )


@route("POST", _FILE)
def create_file(context: Context, identity: str, path: str) -> Response:
    """One commit with a new file; the first one of an empty repository makes its branch."""
    target = _target(context, identity)
    if path in target["files"]:
        raise _refused("A file with this name already exists")
    return _commit(context, target, path, 201)


@route("PUT", _FILE)
def update_file(context: Context, identity: str, path: str) -> Response:
    """One commit that changes a file; refused when another commit touched it since `last_commit_id`."""
    target = _target(context, identity)
    if path not in target["files"]:
        raise _refused("A file with this name doesn't exist")
    last = context.parameters.text("last_commit_id")
    if last and last != target["files"][path]["last_commit_id"]:
        raise _refused("You are attempting to update a file that has changed since you started editing it.")
    return _commit(context, target, path, 200)


@route("GET", _BRANCH)
def show_branch(context: Context, identity: str, name: str) -> Response:
    """One branch."""
    owner = project(context, identity)
    found = branch(context.store, owner, name)
    if found is None:
        raise not_found("Branch")
    return Response(
        200,
        {
            "name": name,
            "commit": {"id": found["commit"], "short_id": found["commit"][:8], "title": found["title"]},
            "merged": False,
            "protected": name == owner["default_branch"],
            "default": name == owner["default_branch"],
            "developers_can_push": False,
            "developers_can_merge": False,
            "can_push": True,
            "web_url": f"{context.settings['external_url']}/{owner['path_with_namespace']}/-/tree/{name}",
        },
    )


@route("DELETE", _BRANCH)
def delete_branch(context: Context, identity: str, name: str) -> Response:
    """Forgets a branch; never the default one."""
    owner = project(context, identity)
    found = branch(context.store, owner, name)
    if found is None:
        raise not_found("Branch")
    if name == owner["default_branch"]:
        raise _refused("The default branch of a project cannot be deleted.")
    context.store.remove("branches", found)
    return Response(204)


def branch(store: Store, owner: Record, name: str) -> Record | None:
    """A branch of a project."""
    return store.find("branches", project_id=owner["id"], name=name)


def _target(context: Context, identity: str) -> dict[str, Any]:
    """The branch to commit to, made of `start_branch` where it is new; not kept yet."""
    owner = project(context, identity)
    sent: Parameters = context.parameters
    sent.require("branch", "commit_message", "content")
    name = sent.text("branch") or ""
    if not name or not sent.text("commit_message"):
        raise bad("branch" if not name else "commit_message", "is empty")
    found = branch(context.store, owner, name)
    if found is not None:
        if sent.text("start_branch") not in (None, "", name):
            raise _refused(f"A branch called '{name}' already exists. Switch to that branch in order to make changes")
        return found
    start = branch(context.store, owner, sent.text("start_branch") or name)
    empty = context.store.find("branches", project_id=owner["id"]) is None
    if start is None and not empty:
        raise _refused("You can only create or edit files when you are on a branch")
    files = {path: dict(kept) for path, kept in start["files"].items()} if start else {}
    return {"project_id": owner["id"], "name": name, "files": files}


def _commit(context: Context, target: dict[str, Any], path: str, status: int) -> Response:
    sent = context.parameters
    content = sent.text("content") or ""
    encoded = sent.choice("encoding", ("base64", "text"), "text") == "base64"
    commit = secrets.token_hex(20)
    kept = {"content": content if encoded else base64.b64encode(content.encode()).decode(), "last_commit_id": commit}
    target["files"][path] = kept
    target |= {"commit": commit, "title": sent.text("commit_message"), "committed_at": now()}
    if "id" in target:
        context.store.changed()
    else:
        context.store.add("branches", target)
    return Response(status, {"file_path": path, "branch": target["name"]})


def _refused(why: str) -> ApiError:
    return ApiError(400, {"message": why})
