"""A project's files, branches and merge requests. There is no git: each branch is a table of files.

A file has the id of the last commit that changed it, for the optimistic lock.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import Any

from . import entities
from .access import DEVELOPER, REPORTER, find_project, is_protected, may_push
from .http import API, ApiError, Context, Parameters, Response, bad, invalid, not_found, paged, route
from .store import Record, Store, now

_FILE = f"{API}/projects/:identity/repository/files/:path"
_BRANCH = f"{API}/projects/:identity/repository/branches/:name"


@route("GET", _FILE)
def show_file(context: Context, identity: str, path: str) -> Response:
    """A file of a branch; its content in base64."""
    owner = find_project(context, identity, REPORTER)
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
    """Commits a new file. The first commit of an empty repository creates its branch."""
    target = _target(context, identity)
    if path in target["files"]:
        raise _refused("A file with this name already exists")
    return _commit(context, target, path, 201)


@route("PUT", _FILE)
def update_file(context: Context, identity: str, path: str) -> Response:
    """Commits a change of a file. Refused when another commit has changed it since `last_commit_id`."""
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
    owner = find_project(context, identity, REPORTER)
    found = branch(context.store, owner, name)
    if found is None:
        raise not_found("Branch")
    return Response(
        200,
        {
            "name": name,
            "commit": {"id": found["commit"], "short_id": found["commit"][:8], "title": found["title"]},
            "merged": False,
            "protected": is_protected(context, owner, name),
            "default": name == owner["default_branch"],
            "developers_can_push": False,
            "developers_can_merge": False,
            "can_push": may_push(context, owner, name),
            "web_url": f"{context.settings['external_url']}/{owner['path_with_namespace']}/-/tree/{name}",
        },
    )


@route("DELETE", _BRANCH)
def delete_branch(context: Context, identity: str, name: str) -> Response:
    """Deletes a branch, except the default one."""
    owner = find_project(context, identity, DEVELOPER)
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
    """The branch to commit to; a new one, which is not stored yet, starts from `start_branch`."""
    owner = find_project(context, identity, DEVELOPER)
    sent: Parameters = context.parameters
    sent.require("branch", "commit_message", "content")
    name = sent.text("branch") or ""
    if not name or not sent.text("commit_message"):
        raise bad("branch" if not name else "commit_message", "is empty")
    if not may_push(context, owner, name):
        raise _refused("You are not allowed to push into this branch")
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
        if context.store.find("branches", project_id=target["project_id"]) is None:  # the first one becomes the default
            (context.store.find("projects", id=target["project_id"]) or {})["default_branch"] = target["name"]
        context.store.add("branches", target)
    return Response(status, {"file_path": path, "branch": target["name"]})


def _refused(why: str) -> ApiError:
    return ApiError(400, {"message": why})


_ALL = f"{API}/projects/:identity/merge_requests"
STATES = ("opened", "closed", "locked", "merged", "all")


@route("GET", _ALL)
def list_merge_requests(context: Context, identity: str) -> Response:
    """Merge requests by state and branches, newest first."""
    owner = find_project(context, identity, REPORTER)
    sent = context.parameters
    state = sent.choice("state", STATES, "all")
    wanted = {name: value for name in ("source_branch", "target_branch") if (value := sent.text(name)) is not None}
    found = [
        one
        for one in reversed(_merge_requests_of(context, owner))
        if state in ("all", one["state"]) and wanted.items() <= one.items()
    ]
    return paged(context, [_shown(context, owner, one) for one in found])


@route("POST", _ALL)
def create_merge_request(context: Context, identity: str) -> Response:
    """Opens a merge request. A second one for the same branches is refused."""
    owner = find_project(context, identity, DEVELOPER)
    sent = context.parameters
    sent.require("title", "source_branch", "target_branch")
    source, target = sent.text("source_branch") or "", sent.text("target_branch") or ""
    if branch(context.store, owner, source) is None:
        raise invalid("source_branch", "does not exist")
    for one in _merge_requests_of(context, owner):
        if (one["source_branch"], one["target_branch"], one["state"]) == (source, target, "opened"):
            text = f"Another open merge request already exists for this source branch: !{one['iid']}"
            raise ApiError(409, {"message": [text]})
    record = {
        "project_id": owner["id"],
        "iid": len(_merge_requests_of(context, owner)) + 1,
        "title": sent.text("title"),
        "description": sent.text("description"),
        "state": "opened",
        "source_branch": source,
        "target_branch": target,
        "force_remove_source_branch": bool(sent.flag("remove_source_branch")),
        "author": context.caller["username"],
        "created_at": now(),
    }
    return Response(201, _shown(context, owner, context.store.add("merge_requests", record)))


@route("PUT", f"{_ALL}/:number/merge")
def merge_merge_request(context: Context, identity: str, number: str) -> Response:
    """Merges: copies the source's files into the target branch."""
    owner = find_project(context, identity, DEVELOPER)
    found = next((one for one in _merge_requests_of(context, owner) if str(one["iid"]) == number), None)
    if found is None:
        raise not_found("Merge Request")
    if not may_push(context, owner, found["target_branch"]):
        raise ApiError(401, {"message": "401 Unauthorized"})
    source, target = (branch(context.store, owner, found[name]) for name in ("source_branch", "target_branch"))
    if found["state"] != "opened" or source is None or target is None:
        raise ApiError(405, {"message": "405 Method Not Allowed"})
    target["files"] |= source["files"]
    target["commit"] = source["commit"]
    found |= {"state": "merged", "merged_at": now()}
    if found["force_remove_source_branch"]:
        context.store.remove("branches", source)
    context.store.changed()
    return Response(200, _shown(context, owner, found))


def _merge_requests_of(context: Context, owner: Record) -> list[Record]:
    return [one for one in context.store.all("merge_requests") if one["project_id"] == owner["id"]]


def _shown(context: Context, owner: Record, record: Record) -> Record:
    author = context.store.find("users", username=record["author"])
    url = f"{context.settings['external_url']}/{owner['path_with_namespace']}/-/merge_requests/{record['iid']}"
    return {
        **record,
        "author": entities.user_basic(context, author) if author else None,
        "web_url": url,
        "draft": False,
        "detailed_merge_status": "mergeable",
    }
