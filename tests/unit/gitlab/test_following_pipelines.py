"""Following pipelines, against a real HTTP server on loopback: what is asked, what is new, why one failed or waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from provision.errors import ApiFailed, ChangeFailed, DeadlineExceeded, NotReady
from provision.gitlab.api import Api, following
from provision.gitlab.pipelines import Follower, Pipelines, Wait, log_lines
from provision.secret import Secret
from provision.url import Url
from tests.support.ci import COMMIT, FakeCi, State, job
from tests.support.web import Reply

pytestmark = pytest.mark.slow
PROJECT = "/projects/root%2Fhello"
RUNNING = State(
    "running", [job(1, "build", "success", "build"), job(2, "unit", "running"), job(3, "release", "created", "release")]
)
GREEN = State(
    "success", [job(1, "build", "success", "build"), job(2, "unit", "success"), job(3, "release", "success", "release")]
)
RED = State(
    "failed", [job(1, "build", "success", "build"), job(2, "unit", "failed"), job(3, "release", "skipped", "release")]
)


class Clock:
    """The time, and what is reported. Waiting takes no time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.lines: list[str] = []
        self.left = ""

    def __call__(self) -> float:
        return self.now

    def report(self, text: str) -> None:
        """Keeps a line."""
        self.lines.append(text)

    def wait(self, seconds: float, left: str) -> None:
        """Time passes."""
        self.now += seconds
        self.left = left


@pytest.fixture
def clock() -> Iterator[Clock]:
    """What follows a pipeline waits here."""
    made = Clock()
    token = following.set(made)
    yield made
    following.reset(token)


@pytest.fixture
def start(serve: Callable[..., Any], clock: Clock) -> Callable[..., Wait]:
    """`start(ci)`: waiting for the pipeline of COMMIT."""

    def make(ci: FakeCi, seconds: float = 3600) -> Wait:
        web = serve(lambda asked: ci.answer(asked) or Reply(404, {"message": "404 Not Found"}))
        pipelines = Pipelines(Api(Url.parse(web.url), Secret("glpat-of-the-test")), "root/hello")
        return Wait(pipelines, COMMIT, "main", seconds, clock)

    return make


class TestWait:
    """Waiting until a pipeline has succeeded."""

    def test_green(self, start: Callable[..., Wait], clock: Clock) -> None:
        """It appears after a while; each state of a job is reported once; two requests for each poll after the first."""
        ci = FakeCi([State("created"), RUNNING, RUNNING, GREEN], absent=2)
        assert start(ci).run().status == "success"
        assert clock.lines == [
            "root/hello: pipeline #7 of commit 1a2b3c4d on main: created",
            "root/hello: pipeline #7 of commit 1a2b3c4d on main: running",
            "root/hello: pipeline #7: build: build: success, 12 s",
            "root/hello: pipeline #7: test: unit: running",
            "root/hello: pipeline #7: test: unit: success, 12 s",
            "root/hello: pipeline #7: release: release: success, 12 s",
            "root/hello: pipeline #7 of commit 1a2b3c4d on main: success, 31 s",
        ]
        assert ci.asked.count("/pipelines") == 3
        assert ci.asked.count("/pipelines/7") == ci.asked.count("/pipelines/7/jobs") == 4
        assert ci.asked.count("/pipelines/7/bridges") == 2

    def test_red(self, start: Callable[..., Wait]) -> None:
        """The failed job, the last lines of its log, and where it is."""
        log = (
            b"$ npm test\r\n"
            + b"".join(b"line %d\n" % one for one in range(40))
            + b"\x1b[31;1mERROR: Job failed: exit code 1\x1b[0;m\n"
        )
        with pytest.raises(ChangeFailed) as caught:
            start(FakeCi([RUNNING, RED], logs={2: log})).run()
        lines = caught.value.text.split("\n")
        assert lines[0] == "pipeline #7 of commit 1a2b3c4d on main of project root/hello failed:"
        assert lines[1] == "test: unit: failed, script failure, 12 s"
        assert (lines[2], lines[-1], len(lines)) == ("  | line 21", "  | ERROR: Job failed: exit code 1", 22)
        assert "https://gitlab/root/hello/-/pipelines/7" in caught.value.hint

    def test_a_failure_that_is_allowed(self, start: Callable[..., Wait], clock: Clock) -> None:
        """The pipeline succeeds, and the job is reported."""
        state = State("success", [job(1, "lint", "failed", allow_failure=True)])
        assert start(FakeCi([state])).run().status == "success"
        assert "root/hello: pipeline #7: test: lint: failed, script failure, allowed to fail, 12 s" in clock.lines

    def test_a_retried_job(self, start: Callable[..., Wait], clock: Clock) -> None:
        """Only the newest attempt counts."""
        retried = [job(1, "unit", "failed"), job(5, "unit", "success")]
        assert start(FakeCi([State("running", retried[:1]), State("success", retried)])).run().status == "success"
        assert "root/hello: pipeline #7: test: unit: success, 12 s, attempt 2" in clock.lines

    def test_canceled(self, start: Callable[..., Wait]) -> None:
        """By somebody."""
        with pytest.raises(ChangeFailed, match="was canceled"):
            start(FakeCi([RUNNING, State("canceling"), State("canceled", [job(2, "unit", "canceled")])])).run()

    def test_ci_skip(self, start: Callable[..., Wait], clock: Clock) -> None:
        """The commit asks for no pipeline: it counts as done."""
        assert start(FakeCi([State("skipped")])).run().status == "skipped"
        assert clock.lines == ["root/hello: pipeline #7 of commit 1a2b3c4d on main: skipped"]

    def test_by_hand(self, start: Callable[..., Wait]) -> None:
        """Nobody can say when somebody starts it."""
        with pytest.raises(NotReady, match="waits until somebody starts a job by hand: release"):
            start(FakeCi([State("manual", [job(1, "unit", "success"), job(2, "release", "manual", "release")])])).run()

    def test_yaml_errors(self, start: Callable[..., Wait]) -> None:
        """GitLab makes a failed pipeline without jobs."""
        errors = "jobs:unit config contains unknown keys: scripts"
        with pytest.raises(ChangeFailed, match=f"its YAML is not valid: {errors}"):
            start(FakeCi([State("failed", yaml_errors=errors)])).run()

    def test_deadline(self, start: Callable[..., Wait], clock: Clock) -> None:
        """What still runs, and how to look again."""
        with pytest.raises(DeadlineExceeded) as caught:
            start(FakeCi([RUNNING]), 60).run()
        assert caught.value.text.endswith("did not end in 60 s: test: unit: running")
        assert "`provision ci root/hello` shows it" in caught.value.hint
        assert clock.now == 1060
        assert "it goes on in GitLab" in clock.left

    def test_a_trigger_job(self, start: Callable[..., Wait], clock: Clock) -> None:
        """The pipeline that it makes is named, and its failed jobs are shown."""
        below = {"id": 9, "project_id": 4, "status": "running", "web_url": "https://gitlab/other/-/pipelines/9"}
        bridges = [job(2, "deploy", "running", downstream_pipeline=below)]
        failed = [
            job(
                2,
                "deploy",
                "failed",
                downstream_pipeline={**below, "status": "failed"},
                failure_reason="downstream_pipeline_creation_failed",
            )
        ]
        ci = FakeCi([State("running", (), bridges), State("failed", (), failed)])
        ci.other["/projects/4/pipelines/9/jobs"] = Reply(200, [job(11, "inner", "failed")])
        ci.other["/projects/4/jobs/11/trace"] = Reply(200, b"no such host\n", {"Content-Type": "text/plain"})
        with pytest.raises(ChangeFailed) as caught:
            start(ci).run()
        assert "root/hello: pipeline #7: test: deploy: running, pipeline #9: running" in clock.lines
        assert (
            "  https://gitlab/other/-/pipelines/9\n  test: inner: failed, script failure, 12 s\n  | no such host"
            in caught.value.text
        )

    def test_gitlab_is_away_for_a_while(self, start: Callable[..., Wait], clock: Clock) -> None:
        """502 and 429 are no end; the message comes once. Before the first answer, 502 is the engine's subject."""
        away = [Reply(502, b"<html>"), Reply(503, b"<html>"), Reply(500, {})]
        ci = FakeCi([RUNNING, GREEN])
        wait = start(ci)
        follower = Follower(wait.pipelines, COMMIT, "main", clock)
        follower.poll()
        ci.broken = away
        lines = [one.text for _ in range(3) for one in follower.poll()]
        assert len(lines) == 1
        assert "502 Bad Gateway: trying again" in lines[0]
        assert follower.poll()[-1].text.endswith("success, 31 s")
        ci.broken = [Reply(502, b"<html>")]
        with pytest.raises(ApiFailed) as caught:
            wait.run()
        assert caught.value.not_ready

    def test_gitlab_is_away_before_the_pipeline_is_made(self, start: Callable[..., Wait], clock: Clock) -> None:
        """After the first answer, 502 is no end either; why there is no pipeline is asked again."""
        ci = FakeCi([GREEN], absent=3)
        ci.other[PROJECT] = Reply(502, b"<html>")
        follower = Follower(start(ci).pipelines, COMMIT, "main", clock)
        follower.poll()
        ci.broken = [Reply(502, b"<html>")]
        assert "trying again" in follower.poll()[0].text
        clock.now += 10
        follower.poll()
        assert follower.problem == ""
        ci.other[PROJECT] = Reply(200, {"builds_access_level": "disabled"})
        follower.poll()
        assert follower.problem == "CI/CD is off in the project's settings"

    def test_deleted(self, start: Callable[..., Wait], clock: Clock) -> None:
        """A pipeline that is deleted while it is followed is an error that says so."""
        ci = FakeCi([RUNNING])
        follower = Follower(start(ci).pipelines, COMMIT, "main", clock)
        follower.poll()
        ci.other[f"{PROJECT}/pipelines/7"] = Reply(404, {"message": "404 Not found"})
        with pytest.raises(ApiFailed, match="pipeline #7 of commit 1a2b3c4d on main is gone: somebody deleted it"):
            follower.poll()

    def test_gitlab_stays_away(self, start: Callable[..., Wait], clock: Clock) -> None:
        """After some minutes it is an error."""
        ci = FakeCi([RUNNING])
        follower = Follower(start(ci).pipelines, COMMIT, "main", clock)
        follower.poll()
        ci.broken = [Reply(502, b"<html>")] * 2
        follower.poll()
        clock.now += 301
        with pytest.raises(ApiFailed):
            follower.poll()

    def test_the_interval_grows(self, start: Callable[..., Wait], clock: Clock) -> None:
        """A long job is asked for less often."""
        follower = Follower(start(FakeCi([RUNNING])).pipelines, COMMIT, "main", clock)
        follower.poll()
        assert follower.interval == 2
        clock.now += 600
        follower.poll()
        assert follower.interval == 10


class TestNone:
    """A commit without a pipeline."""

    @pytest.mark.parametrize(
        ("project", "file", "lint", "why"),
        [
            ({"builds_access_level": "disabled"}, None, None, "CI/CD is off in the project's settings"),
            ({}, None, None, "the commit has no .gitlab-ci.yml"),
            ({"ci_config_path": "ci/main.yml"}, None, None, "the commit has no ci/main.yml"),
            (
                {},
                "x: 1",
                {"valid": False, "errors": ["jobs x: no script"]},
                ".gitlab-ci.yml is not valid: jobs x: no script",
            ),
            (
                {},
                "x: 1",
                {"valid": True},
                "none appeared in 1[0-9]+ s: no rule of .gitlab-ci.yml adds a job for this push",
            ),
            ({}, "x: 1", None, "none appeared in 1[0-9]+ s: no rule of .gitlab-ci.yml adds a job for this push"),
        ],
    )
    def test_why(self, start: Callable[..., Wait], project: Any, file: Any, lint: Any, why: str) -> None:
        """After some seconds, GitLab is asked for the reason. Without one, or with a token that may not lint, rules are named."""
        ci = FakeCi([RUNNING], absent=1000)
        ci.other[PROJECT] = Reply(200, {"id": 2, **project})
        path = project.get("ci_config_path", ".gitlab-ci.yml").replace("/", "%2F")
        content = {"content": "eDogMQ==", "last_commit_id": COMMIT}
        ci.other[f"{PROJECT}/repository/files/{path}"] = Reply(200, content) if file else Reply(404, {})
        ci.other["/projects/2/ci/lint"] = Reply(200, lint) if lint else Reply(403, {})
        with pytest.raises(NotReady, match=f"commit 1a2b3c4d of project root/hello has no pipeline: {why}"):
            start(ci).run()

    def test_ci_is_off(self, start: Callable[..., Wait]) -> None:
        """GitLab answers 403 to questions about pipelines then. A token that may not ask is another error."""
        ci = FakeCi([RUNNING])
        ci.other |= {f"{PROJECT}/pipelines": Reply(403, {}), PROJECT: Reply(200, {"builds_access_level": "disabled"})}
        with pytest.raises(NotReady, match="CI/CD is off in the project's settings"):
            start(ci).run()
        ci.other[PROJECT] = Reply(200, {"builds_access_level": "private"})
        with pytest.raises(ApiFailed, match="403"):
            start(ci).run()


class TestStuck:
    """A job that no runner takes."""

    @pytest.mark.parametrize(
        ("tags", "runners", "why"),
        [
            (["docker"], [], "the project has no runner; the job has the tags docker"),
            (
                ["gpu"],
                [{"status": "online", "tag_list": ["docker"]}],
                "no runner takes it: the job has the tags gpu; runner r1 (docker)",
            ),
            (
                [],
                [{"status": "online", "tag_list": ["docker"], "run_untagged": False}],
                "no runner takes it: the job has no tags; runner r1 (docker)",
            ),
            (
                ["docker"],
                [{"status": "offline", "tag_list": ["docker"]}],
                "no runner that takes it is ready: runner r1 (docker) is offline",
            ),
            (
                ["docker"],
                [{"status": "never_contacted", "tag_list": ["docker"]}],
                "runner r1 (docker) is never contacted",
            ),
            (
                ["docker"],
                [{"status": "online", "paused": True, "tag_list": ["docker"]}],
                "runner r1 (docker) is paused",
            ),
            (
                ["docker"],
                [{"status": "online", "tag_list": ["docker", "x"]}],
                "it waits for runner r1 (docker, x), which may be busy",
            ),
        ],
    )
    def test_why(self, start: Callable[..., Wait], clock: Clock, tags: Any, runners: Any, why: str) -> None:
        """Its tags, and the runners with theirs; once in two minutes."""
        state = State("pending", [job(1, "unit", "pending", tag_list=tags)])
        listed = [{"id": 1, "description": "r1", "run_untagged": True, **one} for one in runners]
        with pytest.raises(DeadlineExceeded):
            start(FakeCi([state], runners=listed), 130).run()
        (line,) = [one for one in clock.lines if "waits for a runner" in one]
        assert why in line

    def test_a_token_that_may_not_know(self, start: Callable[..., Wait], clock: Clock) -> None:
        """The pipeline is followed all the same."""
        ci = FakeCi([State("pending", [job(1, "unit", "pending")])])
        ci.other[f"{PROJECT}/runners"] = Reply(403, {"message": "403 Forbidden"})
        with pytest.raises(DeadlineExceeded):
            start(ci, 60).run()
        assert "the token may not list the project's runners" in clock.lines[-1]


class TestLog:
    """The last lines of a log."""

    def test_what_a_runner_adds(self) -> None:
        """Sections, colours, times, lines that are drawn again, and the clean-up at the end are left out."""
        raw = (
            b'\x1b[0Ksection_start:1560896352:step_script\r\x1b[0K\x1b[0K\x1b[36;1mExecuting "step_script" stage\x1b[0;m\r\n'
            b"\x1b[32;1m$ npm test\x1b[0;m\n"
            b"10%\r50%\r100%\n"
            b"\x1b]0;title\x07bell\x07\n\n"
            b"section_end:1560896353:step_script\r\x1b[0Ksection_start:1560896353:cleanup_file_variables\r\x1b[0KCleaning up\n"
            b"rm -rf /tmp/x\n"
            b"section_end:1560896353:cleanup_file_variables\r\x1b[0K\x1b[31;1mERROR: Job failed: exit code 1\n"
        )
        assert log_lines(raw, 20) == [
            'Executing "step_script" stage',
            "$ npm test",
            "100%",
            "bell\\x07",
            "ERROR: Job failed: exit code 1",
        ]

    def test_times(self) -> None:
        """FF_TIMESTAMPS: each line begins with its time and stream; `+` continues the line before."""
        raw = b"2024-05-14T11:19:20.000000Z 00O one\n2024-05-14T11:19:20.000001Z 01E+ two\n2024-05-14T11:19:21.000000Z 00O three\n"
        assert log_lines(raw, 20) == ["one two", "three"]

    def test_secrets(self) -> None:
        """A secret of the inventory, one that a colour interrupts, and what looks like one."""
        Secret("the-registry-password")
        raw = b"login with the-registry-password\nand the-regi\x1b[1mstry-password\nglpat-abcdefghijkl\nhttps://u:pw@host/\n"
        text = "\n".join(log_lines(raw, 20))
        assert text == "login with ***\nand ***\n***\nhttps://u:***@host/"

    def test_a_long_log(self, start: Callable[..., Wait]) -> None:
        """Its end is read; bytes that are no text are replaced."""
        ci = FakeCi([RED], logs={2: b"x" * 3_000_000 + b"\nlast\xff line\n"})
        with pytest.raises(ChangeFailed, match=r"\| last\ufffd line\n"):
            start(ci).run()

    def test_a_log_that_is_gone(self, start: Callable[..., Wait]) -> None:
        """The failure is reported all the same."""
        ci = FakeCi([RED])
        ci.other[f"{PROJECT}/jobs/2/trace"] = Reply(403, {"message": "403 Forbidden"})
        with pytest.raises(ChangeFailed, match=r"unit: failed.*\n  its log cannot be read"):
            start(ci).run()
