"""A project's files, commits, branches and merge requests, in its git repository."""

from __future__ import annotations

import base64
import hashlib
import subprocess

from . import entities, pipelines
from .access import DEVELOPER, REPORTER, find_project, is_protected, may_push
from .git import Repository, adopt_first_branch, repository_of
from .http import API, ApiError, Context, Parameters, Response, bad, invalid, not_found, paged, route
from .store import Record, now

_FILE = f"{API}/projects/:identity/repository/files/:path"
_BRANCH = f"{API}/projects/:identity/repository/branches/:name"
_COMMITS = f"{API}/projects/:identity/repository/commits"


@route("GET", _FILE)
def show_file(context: Context, identity: str, path: str) -> Response:
    """A file of a branch, a tag or a commit; its content in base64."""
    owner = find_project(context, identity, REPORTER)
    context.parameters.require("ref")
    ref = str(context.parameters.text("ref"))
    repository = repository_of(context.store, owner)
    commit = repository.commit_of(owner["default_branch"] if ref == "HEAD" else ref)
    if not commit:
        raise not_found("Commit")
    found = repository.blob(commit, path)
    if found is None:
        raise not_found("File")
    raw = repository.run("cat-file", "blob", found[1])
    return Response(
        200,
        {
            "file_name": path.rpartition("/")[2],
            "file_path": path,
            "size": len(raw),
            "encoding": "base64",
            "content_sha256": hashlib.sha256(raw).hexdigest(),
            "ref": ref,
            "blob_id": found[1],
            "commit_id": commit,
            "last_commit_id": _last_commit(repository, commit, path),
            "execute_filemode": found[0] == "100755",
            "content": base64.b64encode(raw).decode(),
        },
    )


@route("POST", _FILE)
def create_file(context: Context, identity: str, path: str) -> Response:
    """Commits a new file. The first commit of an empty repository creates its branch."""
    owner, parent = _target(context, identity)
    if parent and repository_of(context.store, owner).blob(parent, path):
        raise _refused("A file with this name already exists")
    return _commit(context, owner, parent, path, 201)


@route("PUT", _FILE)
def update_file(context: Context, identity: str, path: str) -> Response:
    """Commits a change of a file. Refused when another commit has changed it since `last_commit_id`."""
    owner, parent = _target(context, identity)
    repository = repository_of(context.store, owner)
    if not parent or not repository.blob(parent, path):
        raise _refused("A file with this name doesn't exist")
    last = context.parameters.text("last_commit_id")
    if last and last != _last_commit(repository, parent, path):
        raise _refused("You are attempting to update a file that has changed since you started editing it.")
    return _commit(context, owner, parent, path, 200)


@route("GET", _COMMITS)
def list_commits(context: Context, identity: str) -> Response:
    """The commits of a branch, the newest first; of the default branch, unless `ref_name` is given."""
    owner = find_project(context, identity, REPORTER)
    repository = repository_of(context.store, owner)
    commit = repository.commit_of(context.parameters.text("ref_name") or owner["default_branch"])
    if not commit:
        if repository.is_empty:
            return paged(context, [])
        raise not_found("Commit")
    names = repository.ask("rev-list", "--max-count=1000", commit).split()
    return paged(context, [commit_shown(repository, name) for name in names])


@route("GET", f"{_COMMITS}/:name")
def show_commit(context: Context, identity: str, name: str) -> Response:
    """One commit, by its id or by a branch or tag."""
    owner = find_project(context, identity, REPORTER)
    repository = repository_of(context.store, owner)
    commit = repository.commit_of(owner["default_branch"] if name == "HEAD" else name)
    if not commit:
        raise not_found("Commit")
    return Response(200, commit_shown(repository, commit))


@route("GET", f"{API}/projects/:identity/repository/tree")
def show_tree(context: Context, identity: str) -> Response:
    """The files and folders of a commit."""
    owner = find_project(context, identity, REPORTER)
    sent = context.parameters
    repository = repository_of(context.store, owner)
    commit = repository.commit_of(sent.text("ref") or owner["default_branch"])
    if not commit:
        raise not_found("Tree")
    options = ["-r", "-t"] if sent.flag("recursive") else []
    entries = repository.ask("ls-tree", "-z", *options, f"{commit}:{(sent.text('path') or '').strip('/')}").split("\0")
    shown = []
    for mode, kind, name, path in (_entry(one) for one in entries if one):
        whole = f"{sent.text('path')}/{path}" if sent.text("path") else path
        shown.append({"id": name, "name": path.rpartition("/")[2], "type": kind, "path": whole, "mode": mode})
    return paged(context, shown)


def _entry(line: str) -> tuple[str, str, str, str]:
    head, _, path = line.partition("\t")
    mode, kind, name = head.split()
    return mode, kind, name, path


def commit_shown(repository: Repository, commit: str) -> Record:
    """A commit as the API has it."""
    fields = ("%H", "%h", "%P", "%an", "%ae", "%aI", "%cn", "%ce", "%cI", "%s", "%B")
    shown = repository.ask("show", "--no-patch", f"--format={'%x00'.join(fields)}", commit).split("\0")
    full, short, parents, author, author_email, authored, committer, email, committed, title, message = shown
    return {
        "id": full,
        "short_id": short,
        "created_at": committed,
        "parent_ids": parents.split(),
        "title": title,
        "message": message,
        "author_name": author,
        "author_email": author_email,
        "authored_date": authored,
        "committer_name": committer,
        "committer_email": email,
        "committed_date": committed,
    }


def _last_commit(repository: Repository, commit: str, path: str) -> str:
    return repository.ask("--literal-pathspecs", "rev-list", "--max-count=1", commit, "--", path)


@route("GET", _BRANCH)
def show_branch(context: Context, identity: str, name: str) -> Response:
    """One branch."""
    owner = find_project(context, identity, REPORTER)
    repository = repository_of(context.store, owner)
    commit = repository.head(name)
    if not commit:
        raise not_found("Branch")
    return Response(
        200,
        {
            "name": name,
            "commit": commit_shown(repository, commit),
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
    repository = repository_of(context.store, owner)
    if not repository.head(name):
        raise not_found("Branch")
    if name == owner["default_branch"]:
        raise _refused("The default branch of a project cannot be deleted.")
    repository.run("update-ref", "-d", f"refs/heads/{name}")
    return Response(204)


def _target(context: Context, identity: str) -> tuple[Record, str]:
    """The project, and the commit that is to be the parent: of the branch, else of `start_branch`; "" for none."""
    owner = find_project(context, identity, DEVELOPER)
    sent: Parameters = context.parameters
    sent.require("branch", "commit_message", "content")
    name = sent.text("branch") or ""
    if not name or not sent.text("commit_message"):
        raise bad("branch" if not name else "commit_message", "is empty")
    if not may_push(context, owner, name):
        raise _refused("You are not allowed to push into this branch")
    repository = repository_of(context.store, owner)
    found = repository.head(name)
    if found:
        if sent.text("start_branch") not in (None, "", name):
            raise _refused(f"A branch called '{name}' already exists. Switch to that branch in order to make changes")
        return owner, found
    start = repository.head(sent.text("start_branch") or name)
    if not start and not repository.is_empty:
        raise _refused("You can only create or edit files when you are on a branch")
    return owner, start


def _commit(context: Context, owner: Record, parent: str, path: str, status: int) -> Response:
    sent = context.parameters
    content = sent.text("content") or ""
    encoded = sent.choice("encoding", ("base64", "text"), "text") == "base64"
    raw = base64.b64decode(content) if encoded else content.encode()
    repository, branch = repository_of(context.store, owner), sent.text("branch") or ""
    repository.create()
    message = sent.text("commit_message") or ""
    before = repository.head(branch)
    commit = repository.commit_file(branch, parent, path, raw, message, _author(context))
    adopt_first_branch(context.store, owner)
    pipelines.push(context, owner, branch, before, commit, context.caller)
    return Response(status, {"file_path": path, "branch": branch})


def _author(context: Context) -> tuple[str, str]:
    name = str(context.caller["username"])
    return name, f"{name}@users.noreply.gitlab"


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
    if not repository_of(context.store, owner).head(source):
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
    """Merges by a merge commit."""
    owner = find_project(context, identity, DEVELOPER)
    found = next((one for one in _merge_requests_of(context, owner) if str(one["iid"]) == number), None)
    if found is None:
        raise not_found("Merge Request")
    if not may_push(context, owner, found["target_branch"]):
        raise ApiError(401, {"message": "401 Unauthorized"})
    repository = repository_of(context.store, owner)
    source, target = (repository.head(found[name]) for name in ("source_branch", "target_branch"))
    if found["state"] != "opened" or not source or not target:
        raise ApiError(405, {"message": "405 Method Not Allowed"})
    try:
        tree = repository.run("merge-tree", "--write-tree", target, source).decode().split()[0]
    except subprocess.CalledProcessError:
        raise ApiError(422, {"message": "Branch cannot be merged"}) from None
    message = f"Merge branch '{found['source_branch']}' into '{found['target_branch']}'"
    merged = repository.commit_tree(found["target_branch"], tree, [target, source], message, _author(context))
    pipelines.push(context, owner, found["target_branch"], target, merged, context.caller)
    found |= {"state": "merged", "merged_at": now()}
    if found["force_remove_source_branch"]:
        repository.run("update-ref", "-d", f"refs/heads/{found['source_branch']}")
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
