"""`gitlab-runner run`: the service that reads config.toml, asks each server for jobs and runs them.

Like the real program, it reloads config.toml when the file's time changes or on SIGHUP and keeps the old settings when
the file is invalid; it ends at `concurrent = 0`, reads listen_address only at the start, renews expiring tokens and
rewrites the file then, and cancels its jobs when it is stopped. It has the docker executor alone.

Beside GitLab's jobs, the file `job` in the folder of switches holds a shell command and takes the place of a job: it
becomes `job-N.running`, runs in a process group of its own, and ends as `job-N.done` with `success`, `failed` or `canceled`
(the service was stopped). While the file `preparing` is there, a job that was taken waits without a process, as one does
whose image is pulled.
"""

from __future__ import annotations

import datetime
import http.server
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import config, logs
from .api import Server, about, short
from .build import Build
from .config import system_id as system_id_of
from .flags import Flag, parse
from .logs import VERSION
from .register import server_of

_FLAGS = [
    Flag(("--config", "-c"), "CONFIG_FILE", "text", ""),
    Flag(("--listen-address",), "LISTEN_ADDRESS", "text", ""),
    Flag(("--service", "-n"), "", "text", ""),
    Flag(("--working-directory", "-d"), "", "text", ""),
    Flag(("--user", "-u"), "", "text", ""),
    Flag(("--syslog",), "LOG_SYSLOG", "flag", ""),
]
_RELOAD = 3.0  # seconds between two checks of the file
_TICK = 0.2


def run(words: list[str]) -> None:
    """Runs until a signal stops it."""
    given = parse(words, _FLAGS)
    Daemon(given.text("config") or config.default_path(), given.text("listen-address")).run()


class Daemon:
    """The service: one thread for signals, jobs and the file, one that asks the servers."""

    def __init__(self, path: str, address: str) -> None:
        self.path, self.address = path, address
        self.data: dict[str, Any] = {"concurrent": 1, "runners": []}
        self.seen = 0  # the file's modification time at the last check, in nanoseconds
        self.jobs = Jobs()
        self.builds = Builds(self.jobs)
        self.signals: queue.SimpleQueue[int] = queue.SimpleQueue()

    def run(self) -> None:
        """Starts, then handles signals, jobs and the file in turn."""
        self._log(f"Starting multi-runner from {self.path}...", max_builds=0)
        logs.mode()
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, self._received)
        self._reload()
        serve(self.address or str(self.data.get("listen_address", "")), self)
        self._log("[session_server].listen_address not defined, session endpoints disabled")
        self._log("Initializing executor providers")
        polling = Polling(self.path, system_id_of(self.path), lambda: self.data, self.builds)
        polling.start()
        look_again, stopping = time.monotonic() + _RELOAD, 0
        while not stopping or (stopping == signal.SIGQUIT and self.builds.count):
            self.jobs.reap()
            if not stopping:
                self._take()
                if time.monotonic() >= look_again:
                    look_again = time.monotonic() + _RELOAD
                    self._look()
            stopping = self._signalled(stopping)
            polling.stopping = bool(stopping)
        self.jobs.cancel()
        self.builds.interrupt()
        self.builds.wait()
        self._log("All workers stopped. Can exit now")

    def _received(self, number: int, _: object) -> None:
        """Stops the jobs at once: systemd ends the clients of Docker, which they use, at the same time."""
        if number in (signal.SIGTERM, signal.SIGINT):
            self.builds.interrupt()
        self.signals.put(number)

    def _signalled(self, stopping: int) -> int:
        try:
            number = self.signals.get(timeout=_TICK)
        except queue.Empty:
            return stopping
        if number == signal.SIGHUP:
            self._reload()
            return stopping
        if number == signal.SIGQUIT:
            logs.warning("[runWait] received stop signal", stop_signal="quit")
        logs.warning(
            "Requested quit, waiting for builds to finish" if number == signal.SIGQUIT else "received: terminated"
        )
        return number

    def _take(self) -> None:
        runners = self.data.get("runners", [])
        if runners:
            self.jobs.take(self.data["concurrent"], short(str(runners[0].get("token", ""))))

    def _look(self) -> None:
        try:
            modified = Path(self.path).stat().st_mtime_ns
        except OSError as error:
            logs.error(f"Failed to load config stat {self.path}: {(error.strerror or '').lower()}", **self._fields())
            return
        if modified != self.seen:
            self._reload()

    def _reload(self) -> None:
        """Loads the file if it is valid; else logs that once and keeps the old settings."""
        try:
            self.seen = Path(self.path).stat().st_mtime_ns
            data = config.read(self.path)
        except (OSError, config.ConfigError) as error:
            logs.error(f"Failed to load config {error}", **self._fields())
            return
        self.data = data
        if data["concurrent"] < 1:
            logs.fatal("Concurrent is less than 1 - no jobs will be processed")
        self._log("Configuration loaded")

    def _log(self, text: str, **fields: object) -> None:
        logs.info(text, **(self._fields() | fields))

    def _fields(self) -> dict[str, object]:
        return {"builds": self.builds.count, "max_builds": self.data["concurrent"]}


def serve(address: str, daemon: Daemon) -> None:
    """Serves GET /metrics at `host:port`. The address is read at the start only, so changing it needs a restart."""
    if not address:
        logs.info("listen_address not defined, metrics & debug endpoints disabled")
        return
    host, _, port = address.rpartition(":")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = f'gitlab_runner_version_info{{version="{VERSION}"}} 1\n'
            text += f"gitlab_runner_concurrent {daemon.data['concurrent']}\n"
            text += f"gitlab_runner_jobs {daemon.builds.count}\n"
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Logs no requests."""

    try:
        server = http.server.ThreadingHTTPServer((host.strip("[]") or "0.0.0.0", int(port or 9252)), Handler)
    except (OSError, ValueError):
        logs.fatal("Failed to create listener for metrics server")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    logs.info("Metrics server listening", address=address)


SWITCHES = Path(os.environ.get("GITLAB_RUNNER_STANDIN", "/etc/gitlab-runner-standin"))


@dataclass
class Jobs:
    """The running jobs."""

    running: dict[int, tuple[subprocess.Popen[bytes] | None, float]] = field(default_factory=dict)

    def take(self, room: int, runner: str) -> None:
        """Starts the waiting job, if there is one and fewer than `room` jobs run."""
        waiting = SWITCHES / "job"
        # An empty file is still being written.
        if len(self.running) >= room or not waiting.exists() or not waiting.stat().st_size:
            return
        number = 1 + len(list(SWITCHES.glob("job-*")))
        claimed = SWITCHES / f"job-{number}.running"
        waiting.rename(claimed)
        self.running[number] = None, time.monotonic()
        logs.info("Checking for jobs... received", job=number, runner=runner)
        logs.info("Added job to processing list", builds=len(self.running), job=number)

    def reap(self) -> None:
        """Starts the jobs that are prepared; logs and records those that have ended."""
        for number, (child, since) in list(self.running.items()):
            if child is None:
                if not (SWITCHES / "preparing").exists():
                    self.running[number] = _start(number), since
                continue
            code = child.poll()
            if code is None:
                continue
            took = f"{time.monotonic() - since:.3f}"
            if code == 0:
                logs.info("Job succeeded", duration_s=took, job=number)
            else:
                logs.warning(f"Job failed: exit status {code}", duration_s=took, job=number)
            self._ended(number, "success" if code == 0 else "failed")

    def cancel(self) -> None:
        """Kills all jobs."""
        for number, (child, _) in list(self.running.items()):
            if child is not None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
            logs.warning("Job failed: aborted: terminated", job=number)
            self._ended(number, "canceled")

    def _ended(self, number: int, how: str) -> None:
        del self.running[number]
        (SWITCHES / f"job-{number}.done").write_text(f"{how}\n")
        (SWITCHES / f"job-{number}.running").unlink(missing_ok=True)


def _start(number: int) -> subprocess.Popen[bytes]:
    text = (SWITCHES / f"job-{number}.running").read_text()
    return subprocess.Popen(["/bin/sh", "-c", text], stdin=subprocess.DEVNULL, start_new_session=True)


class Builds:
    """The running jobs of GitLab."""

    def __init__(self, switched: Jobs) -> None:
        self._switched = switched
        self._lock = threading.Lock()
        self._running: dict[threading.Thread, Build] = {}

    @property
    def count(self) -> int:
        """How many jobs run, those of the switches included."""
        return len(self._running) + len(self._switched.running)

    def room(self, data: dict[str, Any], entry: dict[str, Any]) -> bool:
        """Whether one more job of this entry may run: `concurrent` of the service and `limit` of the entry."""
        mine = [one for one in list(self._running.values()) if one.entry.get("token") == entry.get("token")]
        return self.count < int(data["concurrent"]) and (not entry.get("limit") or len(mine) < int(entry["limit"]))

    def start(self, entry: dict[str, Any], server: Server, system_id: str, job: dict[str, Any]) -> None:
        """Runs a job in a thread of its own."""
        project = job["job_info"]["project_id"]
        with self._lock:
            same = [one for one in self._running.values() if one.job["job_info"]["project_id"] == project]
            taken = {one.slot for one in same if one.entry.get("token") == entry.get("token")}
            slot = next(number for number in range(len(taken) + 1) if number not in taken)
            build = Build(entry, server, system_id, job, slot)
            thread = threading.Thread(target=self._run, args=(build,), daemon=True)
            self._running[thread] = build
        logs.info("Added job to processing list", builds=self.count, job=build.number)
        thread.start()

    def _run(self, build: Build) -> None:
        try:
            build.run()
        finally:
            with self._lock:
                del self._running[threading.current_thread()]

    def interrupt(self) -> None:
        """Ends all jobs."""
        for build in list(self._running.values()):
            build.interrupted.set()

    def wait(self) -> None:
        """Waits for the jobs' end."""
        for thread in list(self._running):
            thread.join(60)


_CHECK_INTERVAL = 3.0  # seconds; `check_interval` in config.toml. GitLab holds a request for which it has nothing new
_UNHEALTHY = 3  # refusals in a row after which a runner pauses
_PAUSE = 3600.0


class Polling(threading.Thread):
    """Asks each server for jobs: each entry in a thread of its own, so that a slow server delays nothing else."""

    def __init__(self, path: str, system_id: str, data: Callable[[], dict[str, Any]], builds: Builds) -> None:
        super().__init__(daemon=True)
        self.path, self.system_id, self.data, self.builds = path, system_id, data, builds
        self.refused: dict[str, int] = {}
        self.paused: dict[str, float] = {}
        self.news: dict[str, str] = {}
        self.stopping = False

    def run(self) -> None:
        """Starts a thread for each entry that has none."""
        asking: dict[str, threading.Thread] = {}
        while True:
            for token in [str(one.get("token", "")) for one in list(self.data().get("runners", []))]:
                if token not in asking or not asking[token].is_alive():
                    asking[token] = threading.Thread(target=self._ask_on, args=(token,), daemon=True)
                    asking[token].start()
            time.sleep(0.2)

    def _ask_on(self, token: str) -> None:
        """Asks for as long as the entry is in the file. Without room for a job, nothing is asked."""
        while True:
            data = self.data()
            entry = next((one for one in data.get("runners", []) if one.get("token") == token), None)
            if entry is None:
                return
            healthy = self.paused.get(token, 0.0) <= time.monotonic()
            if healthy and not self.stopping and self.builds.room(data, entry):
                self._ask(entry, token)
            self._renew(entry, token)
            time.sleep(float(data.get("check_interval") or _CHECK_INTERVAL))

    def _ask(self, entry: dict[str, Any], token: str) -> None:
        body: dict[str, Any] = {
            "token": token,
            "system_id": self.system_id,
            "info": about(str(entry.get("executor", ""))),
        }
        body["last_update"] = self.news.get(token, "")
        server = server_of(entry, self.path)
        answer, correlation = server.ask_for_a_job(token, body)
        fields = {"correlation_id": correlation, "runner": short(token)}
        if answer.code == 201:
            self.refused.pop(token, None)
            logs.info("Checking for jobs... received", job=answer.body["id"], **fields)
            self.builds.start(entry, server, self.system_id, answer.body)
        elif answer.code == 204:
            self.refused.pop(token, None)
            self.news[token] = answer.header("X-GitLab-Last-Update") or self.news.get(token, "")
        elif answer.code == 403:
            self.refused[token] = self.refused.get(token, 0) + 1
            logs.error("Checking for jobs... forbidden", status=answer.status, **fields)
            if self.refused[token] >= _UNHEALTHY:
                self.paused[token] = time.monotonic() + _PAUSE
                name = entry.get("name", "")
                logs.error(f'Runner "{name}" is unhealthy and will be disabled for 1h0m0s seconds!', **fields)
        else:
            logs.warning(
                f"Checking for jobs... {'failed' if answer.code else 'client error'}", status=answer.status, **fields
            )

    def _renew(self, entry: dict[str, Any], token: str) -> None:
        """Replaces a token in the last quarter of its lifetime, and rewrites the file with the new one."""
        expires, obtained = entry.get("token_expires_at"), entry.get("token_obtained_at")
        if not isinstance(expires, datetime.datetime) or not isinstance(obtained, datetime.datetime):
            return
        if expires.year == 1 or datetime.datetime.now(datetime.UTC) < expires - (expires - obtained) / 4:
            return
        body = {"token": token, "system_id": self.system_id}
        answer, _ = server_of(entry, self.path).ask("POST", "runners/reset_authentication_token", token, body)
        if answer.code != 201:
            logs.error("Resetting runner authentication token... failed", status=answer.status, runner=short(token))
            return
        until = answer.body.get("token_expires_at")
        entry["token"] = answer.body["token"]
        entry["token_obtained_at"] = datetime.datetime.now(datetime.UTC)
        entry["token_expires_at"] = datetime.datetime.fromisoformat(until) if until else config.NEVER
        config.write(self.path, self.data())
        logs.info("Resetting runner authentication token... succeeded", runner=short(token))
