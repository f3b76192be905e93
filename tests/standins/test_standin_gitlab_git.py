"""The stand-in's repositories with real git over HTTP: logins, roles, protected branches, and what the API then shows."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision_lab.standins.gitlab_ce.loopback import serve
from tests.support.clones import TEAM, Clone

SEED = {
    "api_token": "T",
    "users": {"root": "p", "dev": "dev-password", "guest": "p", "reader": "p"},
    "projects": ["team/app", "team/other"],
    **TEAM,
    "tokens": [
        {"token": "dev-api", "user": "dev", "scopes": ["api"]},
        {"token": "dev-write", "user": "dev", "scopes": ["write_repository"]},
        {"token": "dev-read", "user": "dev", "scopes": ["read_repository"]},
        {"token": "dev-images", "user": "dev", "scopes": ["write_registry"]},
        {"token": "reader-api", "user": "reader", "scopes": ["api"]},
        {"token": "guest-api", "user": "guest", "scopes": ["api"]},
    ],
}


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Clone]:
    """A local repository with one commit, and an empty project."""
    with serve(tmp_path / "gitlab", SEED) as url:
        made = Clone(tmp_path / "clone", url)
        made.commit("one\n")
        yield made


def test_what_was_pushed_is_what_the_api_shows(clone: Clone) -> None:
    """Commits, branch, tree, file; and a clone has the same commit."""
    assert (clone.ask("")["empty_repo"], clone.ask("/repository/commits")) == (True, [])
    clone.commit("#!/bin/sh\n", "run.sh")
    (clone.folder / "run.sh").chmod(0o755)
    (clone.folder / "link").symlink_to("README")
    head = clone.commit("two\n")
    clone.push("T")
    assert clone.ask("")["empty_repo"] is False
    assert clone.ask("/repository/branches/main")["commit"]["id"] == head
    assert [one["title"] for one in clone.ask("/repository/commits")] == [
        "write README",
        "write run.sh",
        "write README",
    ]
    assert clone.ask("/repository/commits/HEAD")["id"] == head
    shown = {one["path"]: one["mode"] for one in clone.ask("/repository/tree")}
    assert shown == {"README": "100644", "run.sh": "100755", "link": "120000"}
    file = clone.ask("/repository/files/README?ref=main")
    assert (file["last_commit_id"], file["execute_filemode"]) == (head, False)
    address = clone.url.replace("://", "://any:T@")
    clone.git("clone", "-q", f"{address}/team/app.git", "again")
    assert clone.git("-C", "again", "rev-parse", "HEAD").strip() == head


def test_a_commit_by_the_api_is_fetched(clone: Clone) -> None:
    """Both write to the same repository: after a commit through the API, a push from before it is refused."""
    clone.push("T")
    body = json.dumps({"branch": "main", "commit_message": "m", "content": "x"}).encode()
    headers = {"PRIVATE-TOKEN": "T", "Content-Type": "application/json"}
    place = f"{clone.url}/api/v4/projects/1/repository/files/new"
    urllib.request.urlopen(urllib.request.Request(place, body, headers)).close()
    clone.commit("two\n")
    assert "fetch first" in clone.push("T", code=1)
    address = clone.url.replace("://", "://any:T@")
    clone.git("pull", "-q", "--rebase", f"{address}/team/app.git", "main")
    clone.push("T")
    assert {one["path"] for one in clone.ask("/repository/tree")} == {"README", "new"}


def test_a_large_push(clone: Clone) -> None:
    """git sends it in chunks."""
    (clone.folder / "large").write_bytes(os.urandom(3_000_000))
    head = clone.commit("two\n")
    clone.push("T")
    assert clone.ask("/repository/commits/HEAD")["id"] == head


@pytest.mark.parametrize(
    ("token", "project", "message"),
    [
        ("wrong", "team/app", "HTTP Basic: Access denied. If a password was provided for Git authentication"),
        ("dev-read", "team/app", "You are not allowed to push code to this project."),
        ("dev-images", "team/app", "You are not allowed to push code to this project."),
        ("reader-api", "team/app", "You are not allowed to push code to this project."),
        ("guest-api", "team/app", "The project you were looking for could not be found"),
        ("T", "team/missing", "The project you were looking for could not be found"),
        ("dev-api", "team/app", "GitLab: You are not allowed to push code to protected branches on this project."),
    ],
)
def test_refused(clone: Clone, token: str, project: str, message: str) -> None:
    """Wrong tokens, missing scopes, roles that are too low, projects that do not exist, the protected default branch."""
    assert message in clone.push(token, project=project, code=1)
    assert clone.ask("")["empty_repo"] is True


def test_a_developer_pushes_other_branches(clone: Clone) -> None:
    """Also by force, and with a password. The first branch of a project becomes its default one."""
    clone.push("T")
    for token in ("dev-api", "dev-write"):
        clone.commit(token)
        clone.git("commit", "-q", "--amend", "-m", token)
        clone.push(token, "+HEAD:refs/heads/topic")
    address = clone.url.replace("://", "://dev:dev-password@")
    clone.git("push", "-q", f"{address}/team/app.git", "HEAD:refs/heads/topic-2")
    assert clone.ask("/repository/branches/topic")["protected"] is False


def test_the_default_branch_is_protected(clone: Clone) -> None:
    """Nobody forces a push to it, or deletes it."""
    clone.push("T")
    clone.git("commit", "-q", "--amend", "-m", "another")
    text = clone.push("T", "+HEAD:refs/heads/main", code=1)
    assert "GitLab: You are not allowed to force push code to a protected branch on this project." in text
    assert "pre-receive hook declined" in text
    assert "The default branch of a project cannot be deleted." in clone.push("T", ":refs/heads/main", code=1)


def test_two_factors_need_a_token(clone: Clone, tmp_path: Path) -> None:
    """The password is refused, with the words for a wrong one."""
    (tmp_path / "gitlab/etc/gitlab-standin/settings.json").write_text('{"two_factor": ["dev"]}')
    address = clone.url.replace("://", "://dev:dev-password@")
    assert "HTTP Basic: Access denied" in clone.git("push", f"{address}/team/app.git", "HEAD:refs/heads/x", code=1)


def test_the_oldest_protocol(clone: Clone) -> None:
    """A request without a service is refused: GitLab serves only the smart protocol."""
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{clone.url}/team/app.git/info/refs")
