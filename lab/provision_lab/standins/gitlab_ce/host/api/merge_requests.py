"""A project's merge requests: listed, opened, merged."""

from __future__ import annotations

from . import entities
from .access import project
from .http import ApiError, Response, invalid, not_found
from .paging import paged
from .repository import branch
from .routing import API, Context, route
from .store import Record, now

_ALL = f"{API}/projects/:identity/merge_requests"
STATES = ("opened", "closed", "locked", "merged", "all")


@route("GET", _ALL)
def listed(context: Context, identity: str) -> Response:
    """The newest first, by state and branches."""
    owner = project(context, identity)
    sent = context.parameters
    state = sent.choice("state", STATES, "all")
    wanted = {name: value for name in ("source_branch", "target_branch") if (value := sent.text(name)) is not None}
    found = [
        one for one in reversed(_of(context, owner)) if state in ("all", one["state"]) and wanted.items() <= one.items()
    ]
    return paged(context, [_shown(context, owner, one) for one in found])


@route("POST", _ALL)
def create(context: Context, identity: str) -> Response:
    """Opens one; a second one of the same branches is refused."""
    owner = project(context, identity)
    sent = context.parameters
    sent.require("title", "source_branch", "target_branch")
    source, target = sent.text("source_branch") or "", sent.text("target_branch") or ""
    if branch(context.store, owner, source) is None:
        raise invalid("source_branch", "does not exist")
    for one in _of(context, owner):
        if (one["source_branch"], one["target_branch"], one["state"]) == (source, target, "opened"):
            says = f"Another open merge request already exists for this source branch: !{one['iid']}"
            raise ApiError(409, {"message": [says]})
    record = {
        "project_id": owner["id"],
        "iid": len(_of(context, owner)) + 1,
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
def merge(context: Context, identity: str, number: str) -> Response:
    """Merges: the target branch gets the source's files."""
    owner = project(context, identity)
    found = next((one for one in _of(context, owner) if str(one["iid"]) == number), None)
    if found is None:
        raise not_found("Merge Request")
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


def _of(context: Context, owner: Record) -> list[Record]:
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
