"""`gitlab-runner run`: loads config.toml, reloads it when its time changes or on SIGHUP, keeps the old one when it
is broken, asks each server for jobs, and gives up its jobs when it is stopped.

Carried over: reload, its texts and its interval; fatal `concurrent = 0`; listen_address read once; asking for jobs;
tokens that expire are renewed and the file is rewritten. Not carried over: executors (see `jobs`).
"""

from __future__ import annotations

import queue
import signal
import time
from pathlib import Path
from typing import Any

from . import config, logs, metrics
from .api import short
from .flags import parse
from .jobs import Jobs
from .polling import Polling
from .schema import Flag
from .system_id import of as system_id_of

_FLAGS = [
    Flag(("--config", "-c"), "CONFIG_FILE", "text", ""),
    Flag(("--listen-address",), "LISTEN_ADDRESS", "text", ""),
    Flag(("--service", "-n"), "", "text", ""),
    Flag(("--working-directory", "-d"), "", "text", ""),
    Flag(("--user", "-u"), "", "text", ""),
    Flag(("--syslog",), "LOG_SYSLOG", "flag", ""),
]
_RELOAD = 3.0  # seconds between two looks at the file
_TICK = 0.2


def run(words: list[str]) -> None:
    """Runs until it is told to stop."""
    given = parse(words, _FLAGS)
    Daemon(given.text("config") or config.default_path(), given.text("listen-address")).run()


class Daemon:
    """The service: one thread that decides, one that asks the servers."""

    def __init__(self, path: str, address: str) -> None:
        self.path, self.address = path, address
        self.data: dict[str, Any] = {"concurrent": 1, "runners": []}
        self.seen = 0  # the file's time when it was last looked at, in nanoseconds
        self.jobs = Jobs()
        self.signals: queue.SimpleQueue[int] = queue.SimpleQueue()

    def run(self) -> None:
        """Starts, then looks at signals, jobs and the file in turn."""
        self._log(f"Starting multi-runner from {self.path}...", max_builds=0)
        logs.mode()
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, lambda number, _: self.signals.put(number))
        self._reload()
        metrics.serve(self.address or str(self.data.get("listen_address", "")), self)
        self._log("[session_server].listen_address not defined, session endpoints disabled")
        self._log("Initializing executor providers")
        polling = Polling(self.path, system_id_of(self.path), lambda: self.data)
        polling.start()
        look_again, stopping = time.monotonic() + _RELOAD, 0
        while not stopping or (stopping == signal.SIGQUIT and self.jobs.running):
            self.jobs.reap()
            if not stopping:
                self._take()
                if time.monotonic() >= look_again:
                    look_again = time.monotonic() + _RELOAD
                    self._look()
            stopping = self._signalled(stopping)
        self.jobs.cancel()
        self._log("All workers stopped. Can exit now")

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
        """Takes the file if it is good; else says so once and keeps what it has."""
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
        return {"builds": len(self.jobs.running), "max_builds": self.data["concurrent"]}
