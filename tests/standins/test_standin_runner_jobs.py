"""The lab's gitlab-runner with jobs of the lab's GitLab, as far as no container is needed. Each test names its source.

Sources are files of gitlab-runner. tests/lab/test_pipelines.py runs jobs in containers.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provision_lab.standins.gitlab_ce.loopback import serve
from provision_lab.standins.gitlab_runner.host.api import Server
from provision_lab.standins.gitlab_runner.host.build import Build
from provision_lab.standins.gitlab_runner.host.executor import Executor, Failure, pull_failure, split_service
from provision_lab.standins.gitlab_runner.host.shell import expand, script_of
from provision_lab.standins.gitlab_runner.host.trace import Stream, Trace
from tests.standins.test_standin_gitlab_pipelines import CONFIG, SEED, Runner, pushed
from tests.support.clones import Clone
from tests.support.waiting import wait_for

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Clone]:
    """A local repository, and an empty project."""
    with serve(tmp_path / "gitlab", SEED) as url:
        yield Clone(tmp_path / "clone", url)


@pytest.fixture
def taken(clone: Clone) -> dict[str, Any]:
    """A job that a runner has taken."""
    pushed(clone)
    return dict(Runner(clone.url).ask()[1])


def trace_of(clone: Clone, job: dict[str, Any], *masked: str) -> Trace:
    """The log of a job."""
    return Trace(Server(clone.url, "", ""), job["id"], job["token"], masked)


def test_the_log_is_timed_and_masked(clone: Clone, taken: dict[str, Any]) -> None:
    """Each line has its time and stream; masked values are gone, also when they come in two pieces.

    Sources: common/buildlogger/internal/{timestamper,masker}; FF_TIMESTAMPS is on by default.
    """
    trace = trace_of(clone, taken, "sesame-123")
    output, errors = Stream(trace, "01O"), Stream(trace, "01E")
    with trace.section("step_script", "Executing"):
        output.write(b"say sesa")
        errors.write(b"wrong\n")
        output.write(b"me-123\nand no newline")
        output.close()
    trace.finish("success")
    log = clone.ask(f"/jobs/{taken['id']}/trace")
    assert "sesame" not in log
    lines = log.split("\n")
    assert re.fullmatch(rf"{TIME} 00O section_start:\d+:step_script\r\x1b\[0K", lines[0])
    assert lines[1].endswith("Executing\x1b[0;m\x1b[0;m")
    assert re.match(rf"{TIME} 00O\+", lines[1])  # appended to the mark
    assert [re.sub(TIME, "T", line) for line in lines if " 01" in line] == [
        "T 01E wrong",
        "T 01O say [MASKED]",
        "T 01O and no newline",
    ]
    assert clone.ask(f"/jobs/{taken['id']}")["status"] == "success"


def test_the_log_goes_in_pieces(clone: Clone, taken: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the job ends, and more than one request may carry at its end. Source: network/trace.go."""
    monkeypatch.setattr("provision_lab.standins.gitlab_runner.host.trace._INTERVAL", 0.05)
    monkeypatch.setattr("provision_lab.standins.gitlab_runner.host.trace._PIECE", 100)
    trace = trace_of(clone, taken)
    trace.print("first")
    wait_for(lambda: "first" in clone.ask(f"/jobs/{taken['id']}/trace"), "the first piece is there")
    for number in range(50):
        trace.print(f"line {number}")
    trace.finish("failed", "script_failure", 3)
    assert clone.ask(f"/jobs/{taken['id']}/trace").count("line ") == 50
    assert clone.ask(f"/jobs/{taken['id']}")["failure_reason"] == "script_failure"


def test_a_canceled_job_is_told_by_the_answers(
    clone: Clone, taken: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The header Job-Status of an answer: `canceling` ends the script alone. Source: network/patch_response.go."""
    monkeypatch.setattr("provision_lab.standins.gitlab_runner.host.trace._INTERVAL", 0.05)
    trace = trace_of(clone, taken)
    clone.ask(f"/jobs/{taken['id']}/cancel", "POST")
    trace.print("still here")
    assert trace.canceled.wait(10)
    assert not trace.aborted.is_set()
    trace.finish("failed", "job_canceled")
    assert clone.ask(f"/jobs/{taken['id']}")["status"] == "canceled"


def test_an_executor_that_the_lab_lacks(clone: Clone, taken: dict[str, Any]) -> None:
    """The job fails, and its log says why."""
    entry = {"name": "one", "token": "glrt-t1_abcdefghij", "executor": "shell"}
    Build(entry, Server(clone.url, "", ""), "s_123", taken).run()
    job = clone.ask(f"/jobs/{taken['id']}")
    assert (job["status"], job["failure_reason"]) == ("failed", "runner_system_failure")
    log = clone.ask(f"/jobs/{taken['id']}/trace")
    assert "Running with gitlab-runner 19.3.0 (1abd57a0)" in log
    assert "on one t1_abcdef, system ID: s_123" in log
    assert "ERROR: Job failed (system failure): the lab's gitlab-runner has no executor shell" in log


@pytest.mark.parametrize(
    ("stop", "reason", "text"),
    [
        ("interrupted", "runner_system_failure", "ERROR: Job failed (system failure): aborted: terminated"),
        ("timeout", "job_execution_timeout", "ERROR: Job failed: execution took longer than 1h0m0s seconds"),
    ],
)
def test_what_stops_a_job(
    clone: Clone, taken: dict[str, Any], monkeypatch: pytest.MonkeyPatch, stop: str, reason: str, text: str
) -> None:
    """A stop of the service is a failure of the system, a time that is over is not. Source: common/build.go, run."""
    entry = {"name": "one", "token": "glrt-t1_abcdefghij", "executor": "docker"}
    build = Build(entry, Server(clone.url, "", ""), "s_123", taken)

    def prepare(_: object) -> None:
        if stop == "interrupted":
            build.interrupted.set()
        else:
            build.end = 0
        raise Failure(build._stopped(scripts=True), "stopped")

    monkeypatch.setattr("provision_lab.standins.gitlab_runner.host.executor.Executor.prepare", prepare)
    build.run()
    job = clone.ask(f"/jobs/{taken['id']}")
    assert (job["status"], job["failure_reason"]) == ("failed", reason)
    assert text in clone.ask(f"/jobs/{taken['id']}/trace")


def test_a_stop_ends_what_a_script_has_started(clone: Clone, taken: dict[str, Any]) -> None:
    """git below the shell too: it would keep the log open, and the job running. Source: common/build.go, run."""
    values = {"CI_PROJECT_DIR": {"key": "CI_PROJECT_DIR", "value": "/builds/team/app", "public": True, "file": False}}
    executor = Executor({"docker": {}}, taken, values, "name", trace_of(clone, taken))
    executor.stopped = lambda: "aborted: terminated"
    started = time.monotonic()
    with pytest.raises(Failure, match="aborted: terminated"):
        executor._follow(["sh", "-c", "sleep 30; true"], b"", None)
    assert time.monotonic() - started < 20
    executor.clean_up()
    executor.trace.finish("failed")


def test_variables_are_expanded(clone: Clone, taken: dict[str, Any]) -> None:
    """GitLab leaves the runner's own ones, and raw ones stay. Source: common/build.go, GetAllVariables."""
    taken["variables"] += [
        {
            "key": "CACHE",
            "value": "$CI_PROJECT_DIR/.cache",
            "public": True,
            "masked": False,
            "file": False,
            "raw": False,
        },
        {"key": "RAW", "value": "$CI_PROJECT_DIR", "public": True, "masked": False, "file": False, "raw": True},
    ]
    entry = {"name": "one", "token": "glrt-t1_abcdefghij", "executor": "docker", "environment": ["MINE=$CI_JOB_NAME"]}
    values = Build(entry, Server(clone.url, "", ""), "s_123", taken)._variables()
    shown = {key: values[key]["value"] for key in ("CACHE", "RAW", "MINE", "CI_PROJECT_DIR", "CI_JOB_IMAGE")}
    assert shown == {
        "CACHE": "/builds/team/app/.cache",
        "RAW": "$CI_PROJECT_DIR",
        "MINE": "build",
        "CI_PROJECT_DIR": "/builds/team/app",
        "CI_JOB_IMAGE": "docker:28-cli",
    }


def script(folder: Path, shell: str, lines: list[str], **files: str) -> tuple[int, str]:
    """Exit code and output of a job's script in a shell that reads it from its input."""
    variable = {"public": True, "masked": False, "raw": False, "file": False}
    values = {key: {"key": key, "value": value, **variable, "file": True} for key, value in files.items()}
    words = {"busybox": ["busybox", "sh"]}.get(shell, [shell])
    program = shutil.which(words[0])
    assert program
    done = subprocess.run(
        [program, *words[1:]], input=script_of(str(folder), values, lines), capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("shell", ["bash", "dash", "busybox"])
def test_the_script_in_each_shell(tmp_path: Path, shell: str) -> None:
    """Commands are shown before they run, have no input, and the first failure ends all. Source: shells/bash.go."""
    lines = [
        "echo 'it''s' $((1 + 1))",
        "cd /; pwd",
        "pwd\necho two",
        "cat",
        "X=one",
        'echo "$X"',
        "false",
        "echo never",
    ]
    code, text = script(tmp_path, shell, lines)
    assert code == 1
    assert re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines() == [
        "$ echo 'it''s' $((1 + 1))",
        "its 2",
        "$ cd /; pwd",
        "/",
        "$ pwd # collapsed multi-line command",
        "/",
        "two",
        "$ cat",
        "$ X=one",
        '$ echo "$X"',
        "one",
        "$ false",
    ]


def test_exit_codes_and_pipes(tmp_path: Path) -> None:
    """A command's own code; a pipe fails with any of its parts, where the shell can. Source: shells/bash.go, Finish."""
    assert script(tmp_path, "bash", ["exit 42"])[0] == 42
    assert script(tmp_path, "bash", ["false | true"])[0] == 1
    assert script(tmp_path, "busybox", ["false | true"])[0] == 1
    assert script(tmp_path, "bash", ["true"])[0] == 0


def test_variables_of_type_file(tmp_path: Path) -> None:
    """The variable is the name of a file beside the project. Source: BashWriter.Variable."""
    folder = tmp_path / "app"
    folder.mkdir()
    code, text = script(folder, "bash", ['cat "$KEY"', 'echo "$KEY"'], KEY="a\n'b'\n")
    assert (code, text.count("a\n'b'\n")) == (0, 1)
    assert f"{folder}.tmp/KEY" in text


@pytest.mark.parametrize(
    ("name", "service", "version", "aliases"),
    [
        ("docker:28-dind", "docker", "28-dind", ["docker"]),
        ("postgres", "postgres", "latest", ["postgres"]),
        (
            "gitlab.lab.test:5555/root/db:1",
            "gitlab.lab.test/root/db",
            "1",
            ["gitlab.lab.test__root__db", "gitlab.lab.test-root-db"],
        ),
    ],
)
def test_names_of_services(name: str, service: str, version: str, aliases: list[str]) -> None:
    """Source: helpers/container/services, SplitNameAndVersion."""
    assert split_service(name) == (service, version, aliases)


def test_why_a_pull_failed() -> None:
    """Source: common/classify_image_pull_failure.go."""
    assert pull_failure("pull access denied for x, repository does not exist") == "configuration_error"
    assert pull_failure("manifest unknown") == "configuration_error"
    assert pull_failure("dial tcp: lookup registry-1.docker.io: no such host") == "image_pull_failure"


def test_unknown_variables_are_empty() -> None:
    """As in a shell. Source: common/spec/variables.go, ExpandValue."""
    assert expand("$A/${B}/$NONE.", {"A": "1", "B": "2"}) == "1/2/."


def test_requests_for_jobs_are_held(clone: Clone) -> None:
    """A request that knows the newest queue is answered when there is news. Source: Workhorse, internal/builds/register.go."""
    runner = Runner(clone.url)
    assert runner.ask()[0] == 204
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(runner.ask(last_update=runner.last)[0]))
    asking.start()
    asking.join(0.5)
    assert asking.is_alive()
    pushed(clone, CONFIG)
    asking.join(20)
    assert answers == [204]
    assert runner.ask(last_update=runner.last)[0] == 201
