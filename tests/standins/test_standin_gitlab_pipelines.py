"""The stand-in's pipelines: what makes one, what runs when, what the API shows of it. Each test names GitLab's source."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provision_lab.standins.gitlab_ce.host.api.ci_config import ConfigError, Expression, jobs_of
from provision_lab.standins.gitlab_ce.loopback import serve
from tests.support.clones import TEAM, Clone
from tests.support.web import answer_of

SEED = {
    "api_token": "T",
    "users": {"root": "p", "dev": "p", "reader": "p"},
    "projects": ["team/app"],
    **TEAM,
    "tokens": [
        {"token": "dev-api", "user": "dev", "scopes": ["api"]},
        {"token": "reader-api", "user": "reader", "scopes": ["api"]},
    ],
}
CONFIG = """
stages: [build, test, release]
default:
  image: docker:28-cli
  services: [docker:28-dind]
  before_script: [echo before]
variables:
  IMAGE: $CI_REGISTRY_IMAGE
  TEST_IMAGE: $IMAGE:$CI_COMMIT_SHORT_SHA
build:
  stage: build
  script: [echo build]
test:
  stage: test
  script: [echo test]
lint:
  stage: test
  allow_failure: true
  script: [echo lint]
release:
  stage: release
  rules:
    - if: $CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH
  script: [echo release]
"""


class Runner:
    """A runner that asks for jobs and reports them, as gitlab-runner does."""

    def __init__(self, url: str, **fields: Any) -> None:
        self.url, self.last = url, ""
        made = self.call("POST", "/user/runners", {"runner_type": "instance_type", **fields}, "T")[1]
        self.token = made["token"]

    def call(
        self, method: str, path: str, body: Any = None, token: str = "", **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, body and headers of an answer. Bytes are sent as text."""
        raw, kind = (
            (body, "text/plain") if isinstance(body, bytes) else (json.dumps(body or {}).encode(), "application/json")
        )
        sent = {"Content-Type": kind, **({"PRIVATE-TOKEN": token} if token else {}), **headers}
        request = urllib.request.Request(f"{self.url}/api/v4{path}", raw, sent, method=method)
        status, text, answered = answer_of(request)
        return status, json.loads(text) if text else None, dict(answered)

    def ask(self, **fields: Any) -> tuple[int, Any]:
        """The answer to a request for a job."""
        status, job, headers = self.call("POST", "/jobs/request", {"token": self.token, "system_id": "s_1", **fields})
        self.last = headers.get("X-GitLab-Last-Update", self.last)
        return status, job

    def run(self, *, log: bytes = b"", state: str = "success", **fields: Any) -> dict[str, Any]:
        """Takes a job and ends it."""
        status, job = self.ask()
        assert status == 201
        if log:
            assert self.patch(job, log, 0)[0] == 202
        assert self.put(job, state, **fields)[0] == 200
        return dict(job)

    def patch(self, job: dict[str, Any], text: bytes, start: int) -> tuple[int, dict[str, str]]:
        """Sends a piece of a log."""
        place = {"Content-Range": f"{start}-{start + len(text) - 1}", "JOB-TOKEN": job["token"]}
        status, _, headers = self.call("PATCH", f"/jobs/{job['id']}/trace", text, **place)
        return status, headers

    def put(self, job: dict[str, Any], state: str, **fields: Any) -> tuple[int, dict[str, str]]:
        """Reports a job's state."""
        status, _, headers = self.call("PUT", f"/jobs/{job['id']}", {"token": job["token"], "state": state, **fields})
        return status, headers


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Clone]:
    """A local repository without commits, and an empty project."""
    with serve(tmp_path / "gitlab", SEED) as url:
        yield Clone(tmp_path / "clone", url)


@pytest.fixture
def runner(clone: Clone) -> Runner:
    """An instance runner without tags."""
    return Runner(clone.url)


def pushed(clone: Clone, text: str = CONFIG, branch: str = "main") -> dict[str, Any]:
    """The pipeline of a pushed configuration."""
    commit = clone.commit(text, ".gitlab-ci.yml")
    clone.push("T", f"HEAD:refs/heads/{branch}")
    (found,) = clone.ask(f"/pipelines?sha={commit}")
    return dict(clone.ask(f"/pipelines/{found['id']}"))


def states(clone: Clone, pipeline: dict[str, Any]) -> dict[str, str]:
    """The jobs' states, in the order of the file."""
    listed = clone.ask(f"/pipelines/{pipeline['id']}/jobs")
    return {one["name"]: one["status"] for one in reversed(listed)}  # newest first: Ci::JobsFinder


def test_a_push_makes_a_pipeline(clone: Clone) -> None:
    """The first stage waits for a runner, the rest for the first stage. Source: atomic_processing_service.rb."""
    pipeline = pushed(clone)
    assert (pipeline["status"], pipeline["source"], pipeline["ref"], pipeline["tag"]) == (
        "pending",
        "push",
        "main",
        False,
    )
    assert (pipeline["iid"], pipeline["yaml_errors"], pipeline["started_at"]) == (1, None, None)
    assert (pipeline["user"]["username"], pipeline["detailed_status"]["text"]) == ("root", "Pending")
    assert states(clone, pipeline) == {"build": "pending", "test": "created", "lint": "created", "release": "created"}
    (job,) = clone.ask(f"/pipelines/{pipeline['id']}/jobs?scope=pending")
    assert (job["stage"], job["runner"], job["pipeline"]["id"]) == ("build", None, pipeline["id"])
    assert job["commit"]["id"] == pipeline["sha"]
    assert "failure_reason" not in job  # only of failed ones: lib/api/entities/ci/job_basic.rb
    assert clone.ask(f"/jobs/{job['id']}/trace") == ""
    assert clone.ask(f"/jobs/{job['id']}")["name"] == "build"
    assert [one["name"] for one in clone.ask("/jobs")] == ["release", "lint", "test", "build"]


def test_what_makes_no_pipeline(clone: Clone) -> None:
    """No configuration, a commit's message, rules that leave no job. Sources: chain/{config/content,skip,populate}.rb."""
    clone.commit("one\n")
    clone.push("T")
    assert clone.ask("/pipelines") == []
    assert clone.ask("/pipelines/latest") == 403
    (clone.folder / ".gitlab-ci.yml").write_text(CONFIG)
    clone.git("add", "-A")
    clone.git("commit", "-q", "-m", "add a pipeline [skip ci]")
    clone.push("T")
    (skipped,) = clone.ask("/pipelines")
    assert (skipped["status"], states(clone, skipped)) == ("skipped", {})
    clone.commit("a: {script: [b], rules: [{if: $CI_COMMIT_TAG}]}\n", ".gitlab-ci.yml")
    clone.push("T")
    assert len(clone.ask("/pipelines")) == 1
    assert clone.ask("/pipeline", "POST", ref="main") == 400


def test_a_faulty_configuration(clone: Clone) -> None:
    """A push stores a failed pipeline without jobs, with the first fault. Source: chain/config/process.rb, helpers.rb."""
    faulty = pushed(clone, "stages: [build]\nbuild: {stage: nowhere, script: [x], what: 1}\n")
    assert faulty["status"] == "failed"
    assert faulty["yaml_errors"] == "jobs:build config contains unknown keys: what"
    assert states(clone, faulty) == {}
    assert clone.ask("/pipeline", "POST", ref="main") == 400  # save_on_errors: false
    assert len(clone.ask("/pipelines?yaml_errors=true")) == 1


def test_stage_by_stage_to_the_end(clone: Clone, runner: Runner) -> None:
    """Each stage waits for the one before; a failure that is allowed is none. Sources: status/composite.rb."""
    pipeline = pushed(clone)
    assert runner.run(log=b"building\n")["job_info"]["name"] == "build"
    assert states(clone, pipeline) == {"build": "success", "test": "pending", "lint": "pending", "release": "created"}
    assert clone.ask(f"/pipelines/{pipeline['id']}")["status"] == "running"
    runner.run()
    runner.run(state="failed", failure_reason="script_failure", exit_code=1)
    assert runner.run()["job_info"]["name"] == "release"
    done = clone.ask(f"/pipelines/{pipeline['id']}")
    assert done["status"] == "success"
    assert done["finished_at"] >= done["started_at"] >= done["created_at"]
    assert states(clone, pipeline)["lint"] == "failed"
    assert runner.ask() == (204, None)


def test_after_a_failure_the_rest_is_skipped(clone: Clone, runner: Runner) -> None:
    """And run again with retry, as new jobs. Sources: process_build_service.rb, retry_pipeline_service.rb."""
    pipeline = pushed(clone)
    failed = runner.run(log=b"no\n", state="failed", failure_reason="script_failure", exit_code=2)
    assert states(clone, pipeline) == {"build": "failed", "test": "skipped", "lint": "skipped", "release": "skipped"}
    job = clone.ask(f"/jobs/{failed['id']}")
    assert (job["failure_reason"], job["runner"]["status"]) == ("script_failure", "online")
    assert (clone.ask(f"/jobs/{failed['id']}/trace"), job["duration"] >= 0) == ("no\n", True)
    assert clone.ask(f"/pipelines/{pipeline['id']}")["status"] == "failed"
    assert clone.ask(f"/pipelines/{pipeline['id']}/retry", "POST")["status"] == "pending"
    again = {one["name"]: one for one in clone.ask(f"/pipelines/{pipeline['id']}/jobs")}
    assert again["build"]["id"] > failed["id"]
    assert {name: one["status"] for name, one in again.items()} | {"build": "pending"} == {
        "build": "pending",
        "test": "created",
        "lint": "created",
        "release": "created",
    }
    assert len(clone.ask(f"/pipelines/{pipeline['id']}/jobs?include_retried=true")) == 5


def test_a_branch_has_no_release(clone: Clone) -> None:
    """rules:if decides with the variables of the commit. Source: docs.gitlab.com/ci/yaml, rules."""
    pushed(clone)
    assert list(states(clone, pushed(clone, f"{CONFIG}\n# other\n", "feature"))) == ["build", "test", "lint"]


def test_which_jobs_a_runner_gets(clone: Clone) -> None:
    """By tags, untagged, protected refs, the project's switch, paused. Source: Ci::Runner#matches_build?, build_queue_service.rb."""
    tagged = CONFIG.replace("default:\n", "default:\n  tags: [docker]\n")
    pushed(clone, tagged)
    assert Runner(clone.url).ask() == (204, None)
    assert Runner(clone.url, tag_list=["shell"]).ask()[0] == 204
    assert Runner(clone.url, tag_list=["docker"], paused=True).ask()[0] == 204
    fitting = Runner(clone.url, tag_list=["docker", "more"], access_level="ref_protected")
    pushed(clone, f"{tagged}\n# feature\n", "feature")
    clone.ask("", "PUT", shared_runners_enabled=False)
    assert fitting.ask()[0] == 204
    clone.ask("", "PUT", shared_runners_enabled=True)
    assert fitting.ask()[1]["git_info"]["ref"] == "main"
    assert fitting.ask()[0] == 204  # the branch is not protected
    untagged = Runner(clone.url, tag_list=["other"], run_untagged=False)
    pushed(clone, f"{CONFIG}\n# untagged\n", "third")
    assert untagged.ask()[0] == 204
    assert Runner(clone.url, tag_list=["other"]).ask()[1]["git_info"]["ref"] == "third"


def test_what_a_runner_is_told(clone: Clone, runner: Runner) -> None:
    """Steps, image, services, repository, login and variables. Source: lib/api/entities/ci/job_request."""
    clone.commit("before\n")
    clone.push("T")
    clone.ask("/variables", "POST", key="SECRET", value="hidden-away", masked=True, protected=True)
    clone.ask("/variables", "POST", key="PLAIN", value="$CI_COMMIT_REF_NAME-x", raw=True)
    pipeline = pushed(clone)
    job = runner.ask()[1]
    values = {one["key"]: one for one in job["variables"]}
    sha = pipeline["sha"]
    assert job["steps"] == [
        {
            "name": "script",
            "script": ["echo before", "echo build"],
            "timeout": 3600,
            "when": "on_success",
            "allow_failure": False,
        }
    ]
    assert (job["image"], job["services"]) == ({"name": "docker:28-cli"}, [{"name": "docker:28-dind"}])
    assert job["git_info"]["sha"] == sha
    assert job["git_info"]["repo_url"].endswith("/team/app.git")
    registry = "127.0.0.1:5555"
    login = {"type": "registry", "url": registry, "username": "gitlab-ci-token", "password": job["token"]}
    assert job["credentials"] == [login]
    assert values["IMAGE"]["value"] == f"{registry}/team/app"
    assert values["TEST_IMAGE"]["value"] == f"{registry}/team/app:{sha[:8]}"
    assert values["CI_COMMIT_BRANCH"]["value"] == values["CI_DEFAULT_BRANCH"]["value"] == "main"
    assert (values["CI_JOB_TOKEN"]["value"], values["CI_JOB_TOKEN"]["masked"]) == (job["token"], True)
    assert (values["SECRET"]["value"], values["SECRET"]["masked"]) == ("hidden-away", True)
    assert values["PLAIN"]["value"] == "$CI_COMMIT_REF_NAME-x"
    assert values["CI_COMMIT_BEFORE_SHA"]["value"] != "0" * 40
    pushed(clone, f"{CONFIG}\n# other\n", "feature")
    clone.ask(f"/pipelines/{pipeline['id']}/cancel", "POST")
    other = {one["key"] for one in runner.ask()[1]["variables"]}
    assert "PLAIN" in other
    assert "SECRET" not in other  # protected variables are for protected refs only


def test_the_log_in_pieces(clone: Clone, runner: Runner) -> None:
    """Pieces begin where the log ends; 60 s between them when nobody watches. Sources: runner.rb, Gitlab::Ci::Trace."""
    pushed(clone)
    job = runner.ask()[1]
    assert runner.patch(job, b"one\n", 0)[0] == 202
    status, headers = runner.patch(job, b"two\n", 4)
    assert (status, headers["Range"], headers["Job-Status"]) == (202, "0-8", "running")
    assert headers["X-GitLab-Trace-Update-Interval"] == "60"
    status, headers = runner.patch(job, b"again\n", 4)
    assert (status, headers["Range"]) == (416, "0-8")
    assert clone.ask(f"/jobs/{job['id']}/trace") == "one\ntwo\n"
    assert runner.call("PATCH", f"/jobs/{job['id']}/trace", b"x", **{"JOB-TOKEN": job["token"]})[0] == 400
    assert runner.patch({**job, "token": "wrong"}, b"x", 8)[0] == 403
    assert runner.put(job, "what")[0] == 400
    assert runner.put(job, "success")[0] == 200
    assert runner.patch(job, b"x", 8)[0] == 403  # the job has ended: the runner stops


def test_the_token_of_a_job(clone: Clone, runner: Runner) -> None:
    """Fetches the repository while the job runs, and neither pushes nor lives longer. Source: Gitlab::Auth#build_access_token_check."""
    pushed(clone)
    job = runner.ask()[1]
    url = job["git_info"]["repo_url"].replace("http://", "http://", 1)
    assert clone.git("ls-remote", url, "HEAD").startswith(job["git_info"]["sha"])
    assert "403" in clone.git("push", url, "HEAD:refs/heads/other", code=1)
    runner.put(job, "success")
    assert "Access denied" in clone.git("ls-remote", url, code=1)


def test_canceled_while_it_runs(clone: Clone, runner: Runner) -> None:
    """`canceling` until the runner has finished, then canceled whatever it reports. Source: Ci::Build#supports_canceling?."""
    pipeline = pushed(clone)
    job = runner.ask()[1]
    clone.ask(f"/pipelines/{pipeline['id']}/cancel", "POST")
    assert states(clone, pipeline) | {"build": ""} == {
        "build": "",
        **dict.fromkeys(("test", "lint", "release"), "canceled"),
    }
    assert runner.patch(job, b"x", 0)[1]["Job-Status"] == "canceling"
    runner.put(job, "failed", failure_reason="job_canceled")
    assert states(clone, pipeline)["build"] == "canceled"
    assert clone.ask(f"/pipelines/{pipeline['id']}")["status"] == "canceled"


def test_a_newer_push_cancels_what_has_not_begun(clone: Clone, runner: Runner) -> None:
    """Unless a job that is not interruptible has begun. Source: cancel_redundant_pipelines_service.rb, conservative."""
    first, second = pushed(clone), pushed(clone, f"{CONFIG}\n# 2\n")
    assert clone.ask(f"/pipelines/{first['id']}")["status"] == "canceled"
    runner.run()
    pushed(clone, f"{CONFIG}\n# 3\n")
    assert clone.ask(f"/pipelines/{second['id']}")["status"] == "running"


def test_manual_jobs(clone: Clone, runner: Runner) -> None:
    """Optional ones are left out, those of a rule hold the pipeline. Source: docs.gitlab.com/ci/jobs/job_control."""
    text = "a: {stage: build, script: [x]}\nb: {stage: test, script: [x], when: manual}\n"
    optional = pushed(clone, text)
    runner.run()
    assert states(clone, optional) == {"a": "success", "b": "manual"}
    assert clone.ask(f"/pipelines/{optional['id']}")["status"] == "success"
    blocking = pushed(clone, text.replace("when: manual", "rules: [{when: manual}]"))
    runner.run()
    assert clone.ask(f"/pipelines/{blocking['id']}")["status"] == "manual"
    (job,) = clone.ask(f"/pipelines/{blocking['id']}/jobs?scope=manual")
    assert clone.ask(f"/jobs/{job['id']}/play", "POST")["status"] == "pending"
    assert clone.ask(f"/jobs/{job['id']}/play", "POST") == 400


def test_lists_and_the_newest(clone: Clone) -> None:
    """Filters, order, and the newest of a branch. Source: lib/api/ci/pipelines.rb; docs.gitlab.com/api/pipelines."""
    one, two = pushed(clone), pushed(clone, f"{CONFIG}\n# 2\n", "feature")
    assert [found["id"] for found in clone.ask("/pipelines")] == [two["id"], one["id"]]
    assert [found["id"] for found in clone.ask("/pipelines?sort=asc&per_page=1")] == [one["id"]]
    assert [found["id"] for found in clone.ask("/pipelines?ref=feature")] == [two["id"]]
    assert clone.ask("/pipelines?status=success") == []
    assert clone.ask("/pipelines?status=green") == 400
    assert clone.ask("/pipelines/latest")["id"] == one["id"]
    assert clone.ask("/pipelines/latest?ref=feature")["id"] == two["id"]
    assert clone.ask("/pipelines/99") == 404


def test_who_may(clone: Clone) -> None:
    """Reporters read; developers start pipelines where they may push. Sources: project_policy.rb, chain/validate/abilities.rb."""
    pipeline = pushed(clone)
    assert clone.ask(f"/pipelines/{pipeline['id']}", token="reader-api")["id"] == pipeline["id"]
    assert clone.ask("/pipeline", "POST", token="reader-api", ref="main") == 403
    assert clone.ask("/pipeline", "POST", token="dev-api", ref="main") == 400  # protected
    assert clone.ask(f"/pipelines/{pipeline['id']}/retry", "POST", token="dev-api") == 403
    pushed(clone, f"{CONFIG}\n# 2\n", "feature")
    made = clone.ask("/pipeline", "POST", token="dev-api", ref="feature", variables=[{"key": "A", "value": "b"}])
    assert (made["source"], made["status"], made["user"]["username"]) == ("api", "pending", "dev")


def test_a_commit_by_the_api_makes_one_too(clone: Clone) -> None:
    """As any change of a branch. Source: Git::BranchPushService."""
    clone.ask("/repository/files/.gitlab-ci.yml", "POST", branch="main", commit_message="add", content=CONFIG)
    assert [one["status"] for one in clone.ask("/pipelines")] == ["pending"]


def test_coverage_comes_from_the_log(clone: Clone, runner: Runner) -> None:
    """The last match in the log. Source: Gitlab::Ci::Trace::Stream#extract_coverage."""
    pipeline = pushed(clone, "a: {script: [x], coverage: '/^TOTAL.+?(\\d+(?:\\.\\d+)?%)$/'}\n")
    done = runner.run(log=b"TOTAL  10  5  50%\nTOTAL  10  0  97.5%\r\nend\n")
    assert clone.ask(f"/jobs/{done['id']}")["coverage"] == 97.5
    assert clone.ask(f"/pipelines/{pipeline['id']}")["coverage"] == "97.50"


KNOWN = {"CI_PIPELINE_SOURCE": "push", "A": "one", "EMPTY": ""}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$A", True),
        ("$EMPTY", False),
        ("$NONE", False),
        ('$A == "one"', True),
        ("$NONE == null", True),
        ("$A != $EMPTY && $NONE == null", True),
        ("$A =~ /^O.e$/i", True),
        ("$A !~ /^o/", False),
        ('($A == "two" || $A == "one") && $EMPTY', False),
        ('$A == "two" && $A || $A == "one"', True),
    ],
)
def test_conditions(text: str, value: bool) -> None:
    """Source: docs.gitlab.com/ci/jobs/job_rules, CI/CD variable expressions."""
    assert Expression(text, KNOWN).value() is value


def test_conditions_that_are_none() -> None:
    """Source: the same."""
    for text in ("$A ==", "A", "$A == one", "($A"):
        with pytest.raises(ConfigError):
            Expression(text, KNOWN).value()


def test_defaults_templates_and_policies() -> None:
    """`extends` merges tables and replaces lists; `default` is for what a job lacks; only and except. Source: docs.gitlab.com/ci/yaml."""
    tree: dict[str, Any] = {
        "default": {"image": "a", "tags": ["t"]},
        ".base": {"variables": {"X": 1, "Y": 2}, "script": ["base"], "image": {"name": "b", "entrypoint": [""]}},
        "one": {"extends": ".base", "variables": {"Y": 3}, "stage": "build", "timeout": "1h 30m"},
        "two": {"script": "x", "only": ["main"], "after_script": ["y", ["z"]]},
        "three": {"script": "x", "except": ["/^ma/"]},
        "four": {"script": "x", "only": ["tags"]},
    }
    jobs = {one["name"]: one for one in jobs_of(tree, "main", tag=False, known=KNOWN)}
    assert list(jobs) == ["one", "two"]
    assert (jobs["one"]["variables"], jobs["one"]["script"]) == ({"X": "1", "Y": "3"}, ["base"])
    assert (jobs["one"]["image"], jobs["one"]["timeout"]) == ({"name": "b", "entrypoint": [""]}, 5400)
    assert (jobs["two"]["image"], jobs["two"]["tag_list"]) == ({"name": "a"}, ["t"])
    assert jobs["two"]["after_script"] == ["y", "z"]
    assert [one["name"] for one in jobs_of(tree, "v1", tag=True, known=KNOWN)] == ["one", "three", "four"]


def test_what_the_lab_does_not_know_is_refused() -> None:
    """Instead of being left out, which would be kinder than GitLab."""
    for job in ({"trigger": "x"}, {"rules": [{"changes": ["x"]}]}, {"when": "delayed"}, {"parallel": 2}):
        with pytest.raises(ConfigError, match="does not know"):
            jobs_of({"a": {"script": "x", **job}}, "main", tag=False, known=KNOWN)
    with pytest.raises(ConfigError, match="does not follow"):
        jobs_of({"include": "x", "a": {"script": "x"}}, "main", tag=False, known=KNOWN)
