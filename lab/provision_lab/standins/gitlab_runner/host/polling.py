"""Asking each server for jobs, in a thread of its own, so that a slow server holds up nothing."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable
from typing import Any

from . import config, logs
from .api import about, short
from .register import server_of

_ROUND = 10.0  # seconds; the real program asks every 3, and holds its requests open
_UNHEALTHY = 3  # refusals in a row after which a runner is let be for a while
_PAUSE = 3600.0


class Polling(threading.Thread):
    """Asks for jobs as long as the process lives."""

    def __init__(self, path: str, system_id: str, data: Callable[[], dict[str, Any]]) -> None:
        super().__init__(daemon=True)
        self.path, self.system_id, self.data = path, system_id, data
        self.refused: dict[str, int] = {}
        self.paused: dict[str, float] = {}

    def run(self) -> None:
        """Round after round; a new entry is asked for at once."""
        asked: dict[str, float] = {}
        while True:
            now = time.monotonic()
            for entry in list(self.data().get("runners", [])):
                token = str(entry.get("token", ""))
                if now - asked.get(token, -_ROUND) >= _ROUND and self.paused.get(token, 0.0) <= now:
                    asked[token] = now
                    self._ask(entry, token)
                    self._renew(entry, token)
            time.sleep(0.2)

    def _ask(self, entry: dict[str, Any], token: str) -> None:
        body = {"token": token, "system_id": self.system_id, "info": about(str(entry.get("executor", "")))}
        answer, correlation = server_of(entry, self.path).ask("POST", "jobs/request", token, body)
        fields = {"correlation_id": correlation, "runner": short(token)}
        if answer.code in (201, 204):
            self.refused.pop(token, None)
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
        """A token in the last quarter of its life is replaced, in the file too, which is rewritten whole."""
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
