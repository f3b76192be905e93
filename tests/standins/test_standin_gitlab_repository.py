"""The API of files, branches, merge requests and CI lint, tested over HTTP."""

from __future__ import annotations

import base64
import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from provision_lab.standins.gitlab_ce.host.api.lint import check_configuration
from provision_lab.standins.gitlab_ce.loopback import serve
from tests.support.web import answer_of

SEED = {"api_token": "T", "users": {"root": "p"}, "projects": ["root/one"]}
FILE = "/projects/1/repository/files/ci%2Fa.yml"
Ask = Callable[..., tuple[int, Any]]


@pytest.fixture
def ask(tmp_path: Path) -> Iterator[Ask]:
    """`ask("GET", "/projects/1")`: status and body."""
    with serve(tmp_path, SEED) as url:

        def ask(method: str, path: str, **body: Any) -> tuple[int, Any]:
            headers = {"PRIVATE-TOKEN": "T", "Content-Type": "application/json"}
            data = json.dumps(body).encode() if body else None
            request = urllib.request.Request(f"{url}/api/v4{path}", data, headers, method=method)
            status, raw, _ = answer_of(request)
            return status, json.loads(raw) if raw else None

        yield ask


def commit(content: str, branch: str = "main", **more: Any) -> dict[str, Any]:
    """The body of a commit."""
    return {"branch": branch, "commit_message": "m", "content": content, **more}


def test_an_empty_repository(ask: Ask) -> None:
    """No commit, no file; the first commit creates the branch."""
    assert ask("GET", f"{FILE}?ref=main") == (404, {"message": "404 Commit Not Found"})
    assert ask("GET", "/projects/1")[1]["empty_repo"] is True
    assert ask("POST", FILE, **commit("a\n")) == (201, {"file_path": "ci/a.yml", "branch": "main"})
    assert ask("GET", "/projects/1")[1]["empty_repo"] is False
    status, file = ask("GET", f"{FILE}?ref=main")
    assert (status, base64.b64decode(file["content"]), file["size"]) == (200, b"a\n", 2)
    assert ask("GET", "/projects/1/repository/files/b?ref=main") == (404, {"message": "404 File Not Found"})
    assert ask("GET", FILE)[0] == 400


def test_the_optimistic_lock(ask: Ask) -> None:
    """It compares the last commit that changed this file; other files' commits do not matter."""
    ask("POST", FILE, **commit("a"))
    first = ask("GET", f"{FILE}?ref=main")[1]["last_commit_id"]
    ask("POST", "/projects/1/repository/files/other", **commit("x"))
    assert ask("PUT", FILE, **commit("b", last_commit_id=first))[0] == 200
    status, body = ask("PUT", FILE, **commit("c", last_commit_id=first))
    assert (status, "has changed since you started editing it" in body["message"]) == (400, True)
    assert ask("PUT", FILE, **commit("d"))[0] == 200
    assert base64.b64decode(ask("GET", f"{FILE}?ref=main")[1]["content"]) == b"d"


def test_what_is_refused(ask: Ask) -> None:
    """An existing file, a missing one, a missing branch, an existing branch."""
    ask("POST", FILE, **commit("a"))
    assert ask("POST", FILE, **commit("a"))[1]["message"] == "A file with this name already exists"
    other = "/projects/1/repository/files/x"
    assert ask("PUT", other, **commit("a"))[1]["message"] == "A file with this name doesn't exist"
    assert ask("POST", other, **commit("a", "new"))[0] == 400
    assert ask("POST", other, **commit("a", "new", start_branch="main"))[0] == 201
    assert ask("POST", other, **commit("a", "new", start_branch="main"))[0] == 400
    assert ask("POST", FILE, branch="main")[1] == {"error": "commit_message is missing, content is missing"}


def test_branches(ask: Ask) -> None:
    """Shown and deleted; the default branch stays; a new branch has its start's files."""
    ask("POST", FILE, **commit("a"))
    ask("POST", "/projects/1/repository/files/x", **commit("x", "feature/new", start_branch="main"))
    place = "/projects/1/repository/branches/feature%2Fnew"
    assert ask("GET", place)[1]["name"] == "feature/new"
    assert ask("GET", f"{FILE}?ref=feature/new")[0] == 200
    assert ask("DELETE", place)[0] == 204
    assert ask("GET", place) == (404, {"message": "404 Branch Not Found"})
    assert ask("DELETE", place)[0] == 404
    assert ask("DELETE", "/projects/1/repository/branches/main")[0] == 400


def test_merge_requests(ask: Ask) -> None:
    """Opened once, listed by branch and state, merged with the branch gone."""
    place = "/projects/1/merge_requests"
    ask("POST", FILE, **commit("a"))
    wanted = {"source_branch": "new", "target_branch": "main", "title": "t", "remove_source_branch": True}
    assert ask("POST", place, **wanted)[0] == 400
    ask("PUT", FILE, **commit("b", "new", start_branch="main"))
    status, made = ask("POST", place, **wanted)
    assert (status, made["iid"], made["state"]) == (201, 1, "opened")
    assert ask("POST", place, **wanted) == (
        409,
        {"message": ["Another open merge request already exists for this source branch: !1"]},
    )
    assert ask("POST", place, title="t")[0] == 400
    assert len(ask("GET", f"{place}?state=opened&source_branch=new&target_branch=main")[1]) == 1
    assert ask("GET", f"{place}?source_branch=other")[1] == []
    assert ask("PUT", f"{place}/1/merge", sha="")[1]["state"] == "merged"
    assert base64.b64decode(ask("GET", f"{FILE}?ref=main")[1]["content"]) == b"b"
    assert ask("GET", "/projects/1/repository/branches/new")[0] == 404
    assert ask("PUT", f"{place}/1/merge", sha="")[0] == 405
    assert ask("PUT", f"{place}/7/merge", sha="")[0] == 404


GOOD = "stages: [build]\nbuild:\n  stage: build\n  script: [make]\n"
LINT = [
    (GOOD, []),
    ("a:\n  script: make\n.b: {script: [x]}\nc: {extends: .b}\n", []),
    ("a: [", ["(<unknown>): did not find expected node content while parsing a flow node at line 2 column 1"]),
    ("text\n", ["Invalid configuration format"]),
    ("stages: [a]\n", ["jobs config should contain at least one visible job"]),
    ("a: {script: [b], scrpt: c}\n", ["jobs:a config contains unknown keys: scrpt"]),
    ("a: {stage: test}\n", ["jobs:a config should implement the script:, run:, or trigger: keyword"]),
    ("a: {script: 5}\n", ["jobs:a:script config should be a string or a nested array of strings up to 10 levels deep"]),
    (
        "a: {script: [{b: c}]}\n",
        ["jobs:a:script config should be a string or a nested array of strings up to 10 levels deep"],
    ),
    ("a: b\n", ["jobs:a config should be a hash"]),
    (
        GOOD.replace("stage: build", "stage: buld"),
        ["build job: chosen stage buld does not exist; available stages are .pre, build, .post"],
    ),
    ("a: {script: [b], rules: [{if: b}]}\n", ["jobs:a:rules:rule if invalid expression syntax"]),
    ("a: {script: [b], rules: [{iff: $b}]}\n", ["jobs:a:rules:rule config contains unknown keys: iff"]),
    ("a: {script: [b], rules: [{if: $b}], only: [main]}\n", ["jobs:a config key may not be used with `rules`: only"]),
    ("a: {script: [b], needs: [c]}\n", ["'a' job needs 'c' job, but 'c' does not exist in the pipeline"]),
    ("a: {script: [b], tags: docker}\n", ["jobs:a:tags config should be an array"]),
    ("a: {script: [b], image: {entrypoint: []}}\n", ["jobs:a:image config should be a hash or a string"]),
    ("default: {script: [x]}\na: {script: [b]}\n", ["default config contains unknown keys: script"]),
    ("variables: [x]\na: {script: [b]}\n", ["variables config should be a hash of key value pairs"]),
    ("variables: {X: true}\na: {script: [b]}\n", ["variables config should be a hash of key value pairs"]),
]


@pytest.mark.parametrize(("text", "errors"), LINT, ids=range(len(LINT)))
def test_lint(text: str, errors: list[str]) -> None:
    """GitLab's errors for invalid configurations."""
    assert check_configuration(text)[0] == errors


def test_lint_answers(ask: Ask) -> None:
    """200 for valid and invalid ones, with warnings."""
    place = "/projects/1/ci/lint"
    status, good = ask("POST", place, content=GOOD)
    assert (status, good["valid"], good["errors"], good["warnings"]) == (200, True, [], [])
    assert good["merged_yaml"] == GOOD
    status, bad = ask("POST", place, content="a: {scrpt: b}\n")
    assert (status, bad["valid"], len(bad["errors"])) == (200, False, 2)
    warned = ask("POST", place, content="a: {script: [b], rules: [{when: always}]}\n")[1]
    assert "may allow multiple pipelines" in warned["warnings"][0]
    assert ask("POST", place, x=1)[0] == 400
    assert ask("POST", "/projects/9/ci/lint", content=GOOD)[0] == 404
