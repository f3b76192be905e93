"""Projects with `wait`: the tasks `source` and `pipeline` wait for what they pushed; apps wait with them."""

from __future__ import annotations

import os
import signal
import threading
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from provision.engine.catalogue import load_inventory as load
from provision.engine.run import HostPlay, Run
from provision.resources import Deployment
from provision.tasks import SHIPPED
from provision.testing import FakeSession, LocalSession
from tests.support.ci import FakeCi, State, job
from tests.support.estate import PROJECT, Estate
from tests.support.report import RunReport
from tests.support.wanted import REGISTRY
from tests.support.web import answer_of

pytestmark = pytest.mark.slow
Wants = Callable[..., Any]
ADDRESS = "/projects/root%2Fhello"
WAIT = "wait = true\n"
SOURCE = f'[projects."{PROJECT}"]\nsource = "hello"\n{WAIT}'
PIPELINE = f'[projects."{PROJECT}".pipeline]\ntemplate = "registry"\ntest = "npm test"\n'
RED = State("failed", [job(1, "build", "success", "build"), job(2, "unit", "failed")])
GREEN = State("success", [job(1, "build", "success", "build"), job(2, "unit", "success")])
RUNNING = State("running", [job(1, "build", "success", "build"), job(2, "unit", "running")])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Polls follow each other at once."""
    monkeypatch.setattr("provision.gitlab.pipelines._SHORTEST", 0.02)


@pytest.fixture
def ci(estate: Estate) -> FakeCi:
    """A pipeline of whatever is pushed, which runs and succeeds."""
    (estate.folder / "hello").mkdir()
    (estate.folder / "hello/README").write_text("one\n")
    estate.ci = FakeCi([RUNNING, GREEN], commit="", logs={2: b"$ npm test\nnot ok 1\n"})
    return estate.ci


def waits(report: RunReport) -> list[str]:
    """The changes that waited."""
    return [one.split(" of commit")[0] for one in report.summaries if one.startswith("wait")]


def pushes(report: RunReport) -> int:
    """The number of pushes."""
    return len([one for one in report.summaries if one.startswith("push")])


class TestSource:
    """The task source."""

    def test_green(self, estate: Estate, ci: FakeCi) -> None:
        """Pushed, then waited for with its news; the second run asks nothing."""
        report = estate.run("source", SOURCE)
        commit = estate.ask("GET", f"{ADDRESS}/repository/commits/HEAD")["id"]
        assert report.summaries == [
            "push 1 file of hello to branch main of project root/hello",
            f"wait for the pipeline of commit {commit[:8]} of project root/hello",
        ]
        assert (report.code, ci.commit) == (0, commit)
        assert "root/hello: pipeline #7: test: unit: running" in report.messages
        again = estate.run("source", SOURCE)
        assert (again.summaries, again.messages, estate.asked) == ([], [], [])
        named = estate.run("source", SOURCE, named="source")
        assert (named.summaries, estate.asked) == ([], [f"GET {ADDRESS}/repository/commits/HEAD"])

    def test_a_tag_of_the_same_commit(self, estate: Estate, ci: FakeCi) -> None:
        """Its pipeline is another one: only those of the branch count, also in a later run."""
        ci.states = [RED]
        for _ in range(2):
            assert estate.run("source", SOURCE).code == 1
        assert ci.refs == {"main"}

    def test_without_wait(self, estate: Estate, ci: FakeCi) -> None:
        """Nothing is asked about pipelines."""
        assert pushes(estate.run("source", SOURCE.replace(WAIT, ""))) == 1
        assert ci.asked == []

    def test_red_until_it_is_repaired(self, estate: Estate, ci: FakeCi) -> None:
        """Each run fails with the job's last lines, and pushes nothing; after a retry in GitLab it succeeds."""
        ci.states = [RUNNING, RED]
        first = estate.run("source", SOURCE)
        assert (first.code, pushes(first), waits(first)) == (1, 1, [])
        assert first.error.error == "ChangeFailed"
        assert "test: unit: failed, script failure, 12 s\n  | $ npm test\n  | not ok 1" in first.error.text
        second = estate.run("source", SOURCE)
        assert (second.code, second.summaries) == (1, [])
        assert "| not ok 1" in second.error.text
        assert len(estate.asked) <= 6
        ci.states = [GREEN]
        third = estate.run("source", SOURCE)
        assert (third.code, pushes(third), waits(third)) == (0, 0, ["wait for the pipeline"])
        assert estate.run("source", SOURCE).summaries == []

    def test_red_until_the_source_is_corrected(self, estate: Estate, ci: FakeCi) -> None:
        """The next push has another commit, with a pipeline of its own."""
        ci.states = [RED]
        assert estate.run("source", SOURCE).code == 1
        (estate.folder / "hello/README").write_text("two\n")
        ci.states, ci.commit = [GREEN], ""
        report = estate.run("source", SOURCE)
        assert (report.code, pushes(report), waits(report)) == (0, 1, ["wait for the pipeline"])

    def test_check_mode(self, estate: Estate, ci: FakeCi) -> None:
        """It would be waited for, with nothing asked about pipelines."""
        report = estate.run("source", SOURCE, check=True)
        assert [one.split(" of ")[0] for one in report.summaries] == ["push 1 file", "wait for the pipeline"]
        assert (ci.asked, estate.state) == ([], {})

    @pytest.mark.usefixtures("ci")
    def test_wait_is_set_later(self, estate: Estate) -> None:
        """The pipeline of what was pushed last is looked at."""
        estate.run("source", SOURCE.replace(WAIT, ""))
        assert waits(estate.run("source", SOURCE)) == ["wait for the pipeline"]
        assert estate.run("source", SOURCE).summaries == []

    def test_ctrl_c(self, estate: Estate, ci: FakeCi, monkeypatch: pytest.MonkeyPatch) -> None:
        """It stops the following, and says how to look again; the next run waits for the same pipeline, without a push."""
        ci.states = [RUNNING]
        pressed = []

        def press(_: str, path: str) -> None:
            if "/jobs" in path and not pressed:
                pressed.append(path)
                os.kill(os.getpid(), signal.SIGINT)

        estate.before = press
        monkeypatch.setattr("provision.gitlab.pipelines._SHORTEST", 30.0)
        report = estate.run("source", SOURCE)
        assert report.summary.interrupted
        assert pushes(report) == 1
        commit = ci.commit[:8]
        left = f"pipeline #7 of commit {commit} on main of project root/hello: it goes on in GitLab, and `provision ci root/hello` shows it"
        assert f"not done: wait for {left}" in report.messages[-1]
        ci.states = [GREEN]
        again = estate.run("source", SOURCE)
        assert (again.code, pushes(again), waits(again)) == (0, 0, ["wait for the pipeline"])
        assert len(estate.ask("GET", f"{ADDRESS}/repository/commits")) == 1

    @pytest.mark.usefixtures("ci")
    def test_killed_before_the_push_was_recorded(self, estate: Estate) -> None:
        """As after kill -9 between the push and the record: found in GitLab, and waited for."""
        estate.run("source", SOURCE.replace(WAIT, ""))
        estate.forget()
        report = estate.run("source", SOURCE)
        assert (report.code, pushes(report), waits(report)) == (0, 0, ["wait for the pipeline"])

    def test_deadline(self, estate: Estate, ci: FakeCi) -> None:
        """wait_timeout ends the waiting, with what still runs."""
        ci.states = [RUNNING]
        report = estate.run("source", f"{SOURCE}wait_timeout = 1\n")
        assert report.error.error == "DeadlineExceeded"
        assert "did not end in 1 s: test: unit: running" in report.error.text
        assert "`provision ci root/hello` shows it" in report.error.hint

    def test_a_secret_in_the_log(self, estate: Estate, ci: FakeCi) -> None:
        """It is masked, and escape sequences are removed."""
        ci.states, ci.logs[2] = [RED], b"\x1b[31mlogin with the-api-token\x1b[0m\r\n"
        assert "\n  | login with ***" in estate.run("source", SOURCE).error.text


class TestPipeline:
    """The task pipeline, for projects without a source."""

    TEXT = f'[projects."{PROJECT}"]\n{WAIT}{PIPELINE}'

    def test_green(self, estate: Estate, ci: FakeCi) -> None:
        """The commit of the file is waited for; the second run asks nothing."""
        report = estate.run("pipeline", self.TEXT)
        commit = estate.ask("GET", f"{ADDRESS}/repository/commits/HEAD")["id"]
        assert (report.code, ci.commit) == (0, commit)
        assert report.summaries[-1] == f"wait for the pipeline of commit {commit[:8]} of project root/hello"
        again = estate.run("pipeline", self.TEXT)
        assert (again.summaries, estate.asked) == ([], [])

    def test_red(self, estate: Estate, ci: FakeCi) -> None:
        """Each run fails; the file is committed once."""
        ci.states = [RED]
        assert "| not ok 1" in estate.run("pipeline", self.TEXT).error.text
        again = estate.run("pipeline", self.TEXT)
        assert ("| not ok 1" in again.error.text, again.summaries) == (True, [])
        assert len(estate.ask("GET", f"{ADDRESS}/repository/commits")) == 1

    def test_red_until_a_later_commit_corrects_it(self, estate: Estate, ci: FakeCi) -> None:
        """A commit by hand that leaves the file as it is: its pipeline counts. One without a pipeline does not."""
        ci.states = [RED]
        assert estate.run("pipeline", self.TEXT).code == 1
        estate.commit("one\n", "README")
        assert "| not ok 1" in estate.run("pipeline", self.TEXT).error.text
        ci.states, ci.commit = [GREEN], estate.ask("GET", f"{ADDRESS}/repository/commits/HEAD")["id"]
        report = estate.run("pipeline", self.TEXT)
        assert (report.code, waits(report)) == (0, ["wait for the pipeline"])

    @pytest.mark.usefixtures("ci")
    def test_check_mode(self, estate: Estate) -> None:
        """The commit is not known yet."""
        assert (
            estate.run("pipeline", self.TEXT, check=True).summaries[-1] == "wait for the pipeline of project root/hello"
        )

    def test_with_a_source(self, estate: Estate, ci: FakeCi) -> None:
        """The task source waits; this one compares only."""
        assert estate.run("source", SOURCE + PIPELINE).code == 0
        ci.asked.clear()
        assert (estate.run("pipeline", SOURCE + PIPELINE, named="pipeline").summaries, ci.asked) == ([], [])


CONFIG = """
build:
  script: [make]
unit:
  stage: test
  script: [npm test]
release:
  stage: deploy
  script: [docker push]
"""


class Jobs:
    """A runner that takes jobs from the lab's GitLab until it is closed, and ends `unit` as wanted."""

    def __init__(self, estate: Estate, unit: str) -> None:
        self.estate, self.unit, self.ran = estate, unit, list[str]()
        made = estate.ask("POST", "/user/runners", runner_type="instance_type", run_untagged=True)
        self.token, self._closed = made["token"], threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def close(self) -> None:
        """Ends it."""
        self._closed.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._closed.wait(0.05):
            job = self.estate.ask("POST", "/jobs/request", token=self.token, system_id="s_1")
            if job is None:
                continue
            name = job["job_info"]["name"]
            self.ran.append(name)
            self._log(job)
            state = self.unit if name == "unit" else "success"
            self.estate.ask(
                "PUT", f"/jobs/{job['id']}", token=job["token"], state=state, failure_reason="script_failure"
            )

    def _log(self, job: Any) -> None:
        text = b"\x1b[0KRunning with gitlab-runner\n$ npm test\nnot ok 1 - says hello\n"
        headers = {"JOB-TOKEN": job["token"], "Content-Range": f"0-{len(text) - 1}", "Content-Type": "text/plain"}
        address = f"{self.estate.behind}/api/v4/jobs/{job['id']}/trace"
        request = urllib.request.Request(address, text, headers, method="PATCH")
        assert answer_of(request)[0] == 202


class TestPushedPipeline:
    """The lab's GitLab makes the pipeline of the push, and a runner takes its jobs."""

    @pytest.fixture(autouse=True)
    def folder(self, estate: Estate) -> None:
        """The source has its own pipeline."""
        (estate.folder / "hello").mkdir()
        (estate.folder / "hello/.gitlab-ci.yml").write_text(CONFIG)

    def test_red_then_green(self, estate: Estate) -> None:
        """Nothing after the failed job runs; the corrected source has a pipeline of its own."""
        jobs = Jobs(estate, "failed")
        report = estate.run("source", SOURCE)
        jobs.close()
        assert (report.code, jobs.ran) == (1, ["build", "unit"])
        assert "failed:\ntest: unit: failed, script failure" in report.error.text
        assert report.error.text.endswith("  | Running with gitlab-runner\n  | $ npm test\n  | not ok 1 - says hello")
        (estate.folder / "hello/README").write_text("corrected\n")
        jobs = Jobs(estate, "success")
        report = estate.run("source", SOURCE)
        jobs.close()
        assert (report.code, pushes(report), waits(report)) == (0, 1, ["wait for the pipeline"])
        assert jobs.ran == ["build", "unit", "release"]
        assert len(estate.ask("GET", f"{ADDRESS}/pipelines")) == 2
        again = estate.run("source", SOURCE)
        assert (again.summaries, estate.asked) == ([], [])

    def test_a_job_that_no_runner_takes(self, estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
        """The tags of both are named."""
        monkeypatch.setattr("provision.gitlab.pipelines._STUCK_SECONDS", 0.2)
        (estate.folder / "hello/.gitlab-ci.yml").write_text("unit:\n  tags: [gpu]\n  script: [npm test]\n")
        number = estate.ask("GET", ADDRESS)["id"]
        runner = {"runner_type": "project_type", "project_id": number, "description": "r1", "tag_list": "docker"}
        estate.ask("POST", "/user/runners", **runner)
        report = estate.run("source", f"{SOURCE}wait_timeout = 2\n")
        assert any("no runner takes it: the job has the tags gpu; runner r1 (docker)" in one for one in report.messages)
        assert "did not end in 2 s: test: unit: pending" in report.error.text

    @pytest.mark.parametrize(
        ("config", "why"),
        [
            (
                "unit:\n  rules:\n    - if: $CI_COMMIT_TAG\n  script: [npm test]\n",
                "no rule of .gitlab-ci.yml adds a job for this push",
            ),
            ("unit:\n  scripts: [npm test]\n", "its YAML is not valid: jobs:unit config"),
        ],
    )
    def test_none_or_invalid(self, estate: Estate, monkeypatch: pytest.MonkeyPatch, config: str, why: str) -> None:
        """The reason is named."""
        monkeypatch.setattr("provision.gitlab.pipelines._CREATED_SECONDS", 1.0)
        monkeypatch.setattr("provision.gitlab.pipelines._ASK_WHY_SECONDS", 0.1)
        (estate.folder / "hello/.gitlab-ci.yml").write_text(config)
        assert why in estate.run("source", SOURCE).error.text


class TestApps:
    """Apps of images that an awaited pipeline releases."""

    APP = '[[apps]]\nname = "hello"\nimage = "{}"\npull = true\n'
    AWAITED = '[projects."sammy/Hello"]\nsource = "hello"\nwait = true\n'

    @pytest.mark.parametrize(
        ("image", "project", "released_by"),
        [
            ("sammy/hello", AWAITED, "sammy/Hello"),
            ("sammy/hello/worker:1.0", AWAITED, "sammy/Hello"),
            ("gitlab.example.com:5555/sammy/hello:latest", AWAITED, "sammy/Hello"),
            ("sammy/hello2", AWAITED, ""),
            ("docker.io/sammy/hello", AWAITED, ""),
            ("sammy/hello", AWAITED.replace("wait = true\n", ""), ""),
            (
                "docker.io/sammy/app",
                f'{AWAITED}[projects."sammy/Hello".pipeline]\ntemplate = "dockerhub"\nimage = "sammy/app"\n',
                "sammy/Hello",
            ),
        ],
    )
    def test_which(self, wants: Wants, image: str, project: str, released_by: str) -> None:
        """Those in the project's own registry, and what the pipeline pushes elsewhere."""
        _, one = wants("deploy", REGISTRY + self.APP.format(image) + project)
        assert isinstance(one, Deployment)
        assert one.released_by == released_by

    @pytest.mark.parametrize(
        ("state", "text"),
        [(RED, "hello is unchanged: the pipeline of project root/hello has not succeeded"), (GREEN, "")],
    )
    def test_they_stay_when_it_fails(self, estate: Estate, ci: FakeCi, state: State, text: str) -> None:
        """In the same run, on another host."""
        ci.states = [state]
        inventory = f'{SOURCE}[registry]\nexternal_url = "https://r.example.com"\n{self.APP.format("root/hello")}'
        estate.host(inventory)
        hosts = load((estate.folder / "inventory.toml",)).hosts
        tasks = {one.name: one for one in SHIPPED}
        plays = [HostPlay({"gitlab": (tasks["source"],)}), HostPlay({"runner-1": (tasks["deploy"],)})]
        other, report = FakeSession(), RunReport()
        run = Run(
            ("all",),
            hosts,
            plays,
            lambda host: LocalSession(estate.folders) if host.name == "gitlab" else other,
            [report],
        )
        report.summary = run.execute()
        assert report.summary.hosts["gitlab"].failed == (1 if text else 0)
        assert (text in report.messages) == bool(text)
        assert any("docker create" in one.script for one in other.ran) == (not text)
