"""One job that GitLab has given: prepared, run stage by stage, and its end reported. Source: gitlab-runner's common/build.go."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from . import logs
from .api import Server, short
from .executor import Executor, Failure, SystemFailure
from .shell import expand, lines_of
from .trace import GREEN, RED, Trace

Table = dict[str, Any]
_AFTER = 300  # seconds
_ATTEMPTS = 3
_PAUSE = 3.0


@dataclass
class Build:
    """A job of a runner. `slot` is its number among the jobs of this runner and project that run at the same time."""

    entry: Table
    server: Server
    system_id: str
    job: Table
    slot: int = 0
    interrupted: threading.Event = field(default_factory=threading.Event)  # the service is stopped

    @property
    def number(self) -> int:
        """The job's id in GitLab."""
        return int(self.job["id"])

    def run(self) -> None:
        """Runs the job to its end."""
        values = self._variables()
        masked = [one["value"] for one in self.job["variables"] if one.get("masked")]
        self.trace = Trace(self.server, self.number, self.job["token"], [*masked, self.job["token"]])
        started, token = time.monotonic(), short(str(self.entry["token"]))
        self.end = started + (self.job["runner_info"].get("timeout") or 7200)
        self.trace.print(f"Running with gitlab-runner {logs.VERSION} ({logs.REVISION})")
        self.trace.print(f"  on {self.entry.get('name', '')} {token}, system ID: {self.system_id}")
        name = f"runner-{token}-project-{self.job['job_info']['project_id']}-concurrent-{self.slot}".lower().replace(
            "_", "-"
        )
        try:
            self._execute(values, name)
        except Failure as error:
            self._failed(error, time.monotonic() - started)
            return
        logs.info("Job succeeded", duration_s=f"{time.monotonic() - started:.3f}", job=self.number)
        self.trace.print("Job succeeded", GREEN)
        self.trace.finish("success")

    def _failed(self, error: Failure, seconds: float) -> None:
        reason = error.reason
        if reason == "stopped":
            reason = "runner_system_failure" if self.interrupted.is_set() else "job_execution_timeout"
            reason = "job_canceled" if self.trace.canceled.is_set() or self.trace.aborted.is_set() else reason
        kind = " (system failure)" if reason == "runner_system_failure" else ""
        logs.warning(f"Job failed{kind}: {error}", duration_s=f"{seconds:.3f}", job=self.number)
        self.trace.print(f"ERROR: Job failed{kind}: {error}", RED)
        self.trace.finish("failed", reason, error.code)

    def _execute(self, values: dict[str, Table], name: str) -> None:
        if self.entry.get("executor") != "docker":
            raise Failure(
                f"the lab's gitlab-runner has no executor {self.entry.get('executor')}", "runner_system_failure"
            )
        executor = self._prepared(values, name)
        executor.stopped = lambda: self._stopped(scripts=True)
        section = self.trace.section
        try:
            with section("prepare_script", "Preparing environment"):
                self.trace.line("01O", f"Running on {executor.unique} via {socket.gethostname()}...\n".encode())
            with section("get_sources", "Getting source from Git repository"):
                executor.get_sources()
            steps, failure = self.job["steps"], None
            with section("step_script", 'Executing "step_script" stage of the job script'):
                try:
                    executor.run(list(lines_of(steps, "script")))
                except Failure as error:
                    failure = error
            self._after(executor, list(lines_of(steps, "after_script")), failure)
            if failure:
                raise failure
        finally:
            executor.clean_up()

    def _after(self, executor: Executor, lines: list[str], failure: Failure | None) -> None:
        """Runs after_script, also after a failure or when the job was canceled; its own failure changes nothing."""
        if not lines or self._stopped(scripts=False):
            return
        state = "canceled" if self.trace.canceled.is_set() else "failed" if failure else "success"
        executor.values = {**executor.values, "CI_JOB_STATUS": _variable("CI_JOB_STATUS", state)}
        end = time.monotonic() + _AFTER
        executor.stopped = lambda: self._stopped(scripts=False) or ("timeout" if time.monotonic() > end else "")
        with self.trace.section("after_script", "Running after_script"):
            self.trace.line("01O", b"Running after script...\n")
            try:
                executor.run(lines, check=True)
            except Failure as error:
                self.trace.print(
                    f"WARNING: after_script failed, but job will continue unaffected: {error}", "\x1b[0;33m"
                )

    def _prepared(self, values: dict[str, Table], name: str) -> Executor:
        with self.trace.section("prepare_executor", 'Preparing the "docker" executor'):
            for attempt in range(1, _ATTEMPTS + 1):
                executor = Executor(self.entry, self.job, values, name, self.trace)
                try:
                    executor.prepare()
                except SystemFailure as error:
                    executor.clean_up()
                    if attempt == _ATTEMPTS or self._stopped(scripts=True):
                        raise
                    self.trace.print(f"ERROR: Preparation failed: {error}", RED)
                    self.trace.print(f"Will be retried in {_PAUSE:.0f}s ...", GREEN)
                    time.sleep(_PAUSE)
                except Failure:
                    executor.clean_up()
                    raise
                else:
                    return executor
        raise AssertionError

    def _stopped(self, *, scripts: bool) -> str:
        """Why a script must end; after_script runs on when the job was only canceled."""
        if self.interrupted.is_set():
            return "aborted: terminated"
        if self.trace.aborted.is_set() or (scripts and self.trace.canceled.is_set()):
            return "canceled"
        if scripts and time.monotonic() > self.end:
            return (
                f"execution took longer than {_duration(int(self.job['runner_info'].get('timeout') or 7200))} seconds"
            )
        return ""

    def _variables(self) -> dict[str, Table]:
        """All variables: the runner's own, those of its entry, GitLab's; each expanded."""
        path = next(one["value"] for one in self.job["variables"] if one["key"] == "CI_PROJECT_PATH")
        image = (self.job.get("image") or {}).get("name") or self.entry.get("docker", {}).get("image", "")
        own = {
            "CI_BUILDS_DIR": "/builds",
            "CI_PROJECT_DIR": f"/builds/{path}",
            "CI_CONCURRENT_ID": str(self.slot),
            "CI_CONCURRENT_PROJECT_ID": str(self.slot),
            "CI_SERVER": "yes",
            "CI_JOB_STATUS": "running",
            "CI_JOB_TIMEOUT": str(self.job["runner_info"].get("timeout")),
            "CI_DISPOSABLE_ENVIRONMENT": "true",
            "CI_RUNNER_VERSION": logs.VERSION,
            "CI_RUNNER_REVISION": logs.REVISION,
            "CI_RUNNER_EXECUTABLE_ARCH": f"linux/{logs.ARCHITECTURE}",
            "CI_RUNNER_SHORT_TOKEN": short(str(self.entry["token"])),
        }
        entry = dict(one.partition("=")[::2] for one in self.entry.get("environment", []))
        found = {key: _variable(key, value) for key, value in {**own, **entry}.items()}
        found |= {one["key"]: dict(one) for one in self.job["variables"]}
        values = {key: str(one["value"]) for key, one in found.items()}
        for one in found.values():
            if not one["raw"]:
                one["value"] = _expanded(one["key"], str(one["value"]), values)
        values = {key: str(one["value"]) for key, one in found.items()}
        found["CI_JOB_IMAGE"] = _variable("CI_JOB_IMAGE", expand(image, values))
        return found


def _expanded(name: str, text: str, values: dict[str, str]) -> str:
    """Replaces what GitLab could not: references to the runner's own variables."""
    for _ in range(5):
        new = expand(text, {key: value for key, value in values.items() if key != name})
        if new == text:
            break
        text = new
    return text


def _variable(key: str, value: str) -> Table:
    return {"key": key, "value": value, "public": True, "masked": False, "file": False, "raw": False}


def _duration(seconds: int) -> str:
    """A time in Go's form: 1h0m0s."""
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s" if minutes else f"{rest}s"
