"""`provision ci`: lines, tables, JSON and exit codes; against a real HTTP server that answers as GitLab does."""

from __future__ import annotations

import datetime
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.support.ci import COMMIT, FakeCi, State, job
from tests.support.web import Reply, Request

pytestmark = pytest.mark.slow
TOKEN = "glpat-canary-of-ci"
RUNNING = State("running", [job(1, "build", "success", "build"), job(2, "unit", "running")])
GREEN = State("success", [job(1, "build", "success", "build"), job(2, "unit", "success")])
RED = State("failed", [job(1, "build", "success", "build"), job(2, "unit", "failed")])
LOG = b"$ npm test\r\n\x1b[31mnot ok 1\x1b[0m with glpat-canary-of-ci\n"


class Projects:
    """GitLab's projects by path, each with one pipeline or none."""

    def __init__(self) -> None:
        self.known: dict[str, FakeCi] = {}
        self.age = 3600
        self.auto_devops = False  # a project with it needs no .gitlab-ci.yml
        self.before: Callable[[Request], object] = lambda _: None

    def add(self, path: str, *states: State, **options: Any) -> FakeCi:
        """Adds a project."""
        self.known[path] = FakeCi(list(states), path, logs={2: LOG}, **options)
        return self.known[path]

    def answer(self, asked: Request) -> Reply:
        """The answer to a request."""
        self.before(asked)
        parts = asked.path.partition("?")[0].split("/")
        ci = self.known.get(unquote(parts[4])) if len(parts) > 4 else None
        if ci is None:
            return Reply(404, {"message": "404 Project Not Found"})
        if parts[5:] == ["repository", "commits", "HEAD"]:
            made = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=self.age)
            return Reply(200, {"id": COMMIT, "committed_date": made.isoformat()})
        if parts[5:] == []:
            return Reply(200, {"id": 2, "default_branch": "main", "auto_devops_enabled": self.auto_devops})
        return ci.answer(asked) or Reply(404, {"message": "404 File Not Found"})


@pytest.fixture
def projects(monkeypatch: pytest.MonkeyPatch) -> Projects:
    """No project yet. Polls follow each other at once."""
    monkeypatch.setattr("provision.gitlab.pipelines._SHORTEST", 0.01)
    return Projects()


@pytest.fixture
def ci(provision: Any, projects: Projects, serve: Any, tmp_path: Path) -> Callable[..., Any]:
    """`ci("--no-wait")`: runs the verb with an inventory of all projects."""

    def run(*arguments: str, more: str = "") -> Any:
        web, file = serve(projects.answer), tmp_path / "estate.toml"
        text = f'[hosts.gitlab]\ngroups = ["gitlab"]\n[gitlab]\nexternal_url = "{web.url}"\napi_token = "{TOKEN}"\n'
        text += "".join(f'[projects."{one}"]\nshared_runners = true\n{more}' for one in projects.known)
        file.write_text(text)
        file.chmod(0o600)
        return provision("ci", *arguments, "-i", str(file))

    return run


def test_green(ci: Callable[..., Any], projects: Projects) -> None:
    """Lines as the jobs go; nothing but news; exit code 0."""
    projects.add("sammy/hello", RUNNING, RUNNING, GREEN)
    ended = ci()
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines() == [
        "sammy/hello: pipeline #7 of commit 1a2b3c4d on main: running",
        "sammy/hello: pipeline #7: build: build: success, 12 s",
        "sammy/hello: pipeline #7: test: unit: running",
        "sammy/hello: pipeline #7: test: unit: success, 12 s",
        "sammy/hello: pipeline #7 of commit 1a2b3c4d on main: success, 31 s",
    ]


def test_red(ci: Callable[..., Any], projects: Projects) -> None:
    """The last lines of the failed job, masked and printable, at the end; another project is followed to its end."""
    projects.add("sammy/hello", RUNNING, RED)
    projects.add("sammy/other", RUNNING, RUNNING, RUNNING, GREEN)
    ended = ci()
    assert ended.code == 1
    assert ended.out.endswith(
        "sammy/hello: pipeline #7 of commit 1a2b3c4d on main failed: test: unit: failed, script failure, 12 s\n"
        "  | $ npm test\n  | not ok 1 with ***\n"
    )
    assert "sammy/other: pipeline #7 of commit 1a2b3c4d on main: success, 31 s" in ended.out
    assert TOKEN not in ended.out + ended.err


def test_one_of_them(ci: Callable[..., Any], projects: Projects) -> None:
    """Only what was named is asked for."""
    projects.add("sammy/hello", GREEN)
    other = projects.add("sammy/other", RED)
    assert ci("sammy/hello").code == 0
    assert other.asked == []


@pytest.mark.parametrize(("states", "code", "state"), [((RUNNING, GREEN), 0, "running"), ((RED,), 1, "failed")])
def test_no_wait(ci: Callable[..., Any], projects: Projects, states: Any, code: int, state: str) -> None:
    """A table; 1 if the pipeline has failed."""
    fake = projects.add("sammy/hello", *states)
    ended = ci("--no-wait")
    assert ended.code == code
    lines = [" ".join(line.split()) for line in ended.out.splitlines()]
    assert lines[0] == "pipelines"
    assert any(one.startswith(f"sammy/hello pipeline #7 of commit 1a2b3c4d on main {state}") for one in lines)
    assert "build ✓ build 12.4 s" in lines
    assert fake.asked.count("/pipelines/7") == 1
    assert ("  | not ok 1 with ***" in ended.out) == (code == 1)


def test_json(ci: Callable[..., Any], projects: Projects) -> None:
    """Each news is a line; the last one is the summary."""
    projects.add("sammy/hello", RUNNING, RED)
    ended = ci("--json")
    events = [json.loads(line) for line in ended.out.splitlines()]
    assert [one.get("schema") for one in events] == [1] + [None] * (len(events) - 1)
    assert [one["type"] for one in events] == ["pipeline", "job", "job", "job", "pipeline", "summary"]
    assert (events[0]["project"], events[0]["id"], events[0]["commit"], events[0]["status"]) == (
        "sammy/hello",
        7,
        COMMIT,
        "running",
    )
    assert (events[3]["name"], events[3]["stage"], events[3]["status"], events[3]["reason"]) == (
        "unit",
        "test",
        "failed",
        "script_failure",
    )
    (one,) = events[-1]["projects"]
    assert (ended.code, one["status"], one["pipeline"]) == (1, "failed", 7)
    assert "| not ok 1 with ***" in one["problem"]


def test_three_hundred_projects(ci: Callable[..., Any], projects: Projects) -> None:
    """Those that succeeded share a row."""
    for number in range(300):
        projects.add(f"team/p{number:03}", RED if number == 7 else GREEN)
    ended = ci("--no-wait")
    assert ended.code == 1
    lines = [" ".join(one.split()) for one in ended.out.splitlines()]
    assert "team/p[000:006,008:299] (299) success" in lines
    assert "team/p007 #7 failed: unit 31.0 s" in lines
    assert len(lines) < 15
    assert "team/p007: pipeline #7 of commit 1a2b3c4d on main failed" in ended.out


def test_refused_and_missing(ci: Callable[..., Any], projects: Projects) -> None:
    """An unknown project is an error; one without a pipeline too, if it is named."""
    projects.add("sammy/hello", GREEN)
    projects.add("sammy/none", GREEN, absent=99)
    ended = ci()
    assert (
        ended.code,
        "sammy/none: commit 1a2b3c4d has no pipeline: the commit has no .gitlab-ci.yml" in ended.out,
    ) == (0, True)
    assert ci("sammy/none", "--no-wait").code == 1
    ended = ci("sammy/helo", "sammy/hello")
    assert (ended.code, "404 Project Not Found" in ended.out, "main: success" in ended.out) == (1, True, True)


def test_the_newest_commit_has_none(ci: Callable[..., Any], projects: Projects) -> None:
    """Then the newest pipeline of another commit is shown, with a message."""
    projects.add("sammy/hello", GREEN, commit="ffff" * 10)
    ended = ci()
    assert ended.code == 0
    assert ended.out.startswith("sammy/hello: commit 1a2b3c4d has no pipeline: the commit has no .gitlab-ci.yml\n")
    assert "pipeline #7 of commit ffffffff on main: success" in ended.out


def test_a_commit_that_was_just_pushed(ci: Callable[..., Any], projects: Projects) -> None:
    """Its pipeline is waited for."""
    projects.age = 1
    projects.add("sammy/hello", GREEN, absent=3)
    ended = ci("--no-wait")
    assert (ended.code, "sammy/hello: no pipeline yet" in ended.out) == (0, True)
    assert "main: success" in ci().out


def test_an_old_commit_that_was_just_pushed(ci: Callable[..., Any], projects: Projects) -> None:
    """Its pipeline is waited for too, because GitLab does not record when a commit was pushed."""
    projects.auto_devops = True
    projects.add("sammy/hello", GREEN, absent=3)
    ended = ci()
    assert ended.code == 0
    assert "sammy/hello: commit 1a2b3c4d has no pipeline: waiting 20 s for one" in ended.out
    assert "main: success" in ended.out


def test_an_old_commit_without_a_pipeline(
    ci: Callable[..., Any], projects: Projects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some seconds, the project's newest pipeline is followed instead."""
    monkeypatch.setattr("provision.gitlab.pipelines._OLD_COMMIT_SECONDS", 0.05)
    projects.auto_devops = True
    projects.add("sammy/hello", GREEN, commit="5e6f7a8b" * 5)
    ended = ci()
    assert ended.code == 0
    assert "commit 1a2b3c4d has no pipeline: no rule of .gitlab-ci.yml adds a job for this push: following" in ended.out
    assert "5e6f7a8b on main: success" in ended.out


def test_the_limit(ci: Callable[..., Any], projects: Projects) -> None:
    """wait_timeout of the project ends the following."""
    projects.add("sammy/hello", RUNNING)
    ended = ci(more="wait_timeout = 1\n")
    assert (
        ended.code,
        "sammy/hello: pipeline #7 of commit 1a2b3c4d on main running: did not end in 1 s: test: unit: running"
        in ended.out,
    ) == (1, True)


def test_ctrl_c(ci: Callable[..., Any], projects: Projects) -> None:
    """The following ends, and the message says how to follow again; GitLab is only asked."""
    fake = projects.add("sammy/hello", RUNNING)
    once = threading.Event()

    def press(_: Request) -> None:
        if len(fake.asked) > 6 and not once.is_set():
            once.set()
            os.kill(os.getpid(), signal.SIGINT)

    projects.before = press
    ended = ci("sammy/hello", "--json", "--set", "gitlab.ready_timeout=60")
    assert ended.code == 130
    assert "the pipelines go on in GitLab. To follow them again: provision ci sammy/hello -i " in ended.err
    assert ended.err.rstrip().endswith("--set gitlab.ready_timeout=60 --json")


def test_without_projects(ci: Callable[..., Any]) -> None:
    """A mistake."""
    ended = ci()
    assert (ended.code, "the inventory has no project" in ended.err) == (2, True)
