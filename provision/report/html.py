"""`--report FILE.html`: one page that needs nothing else, written whole when the run ends, however it ends."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TextIO

from provision.engine.events import Event, TaskDone
from provision.errors import ProvisionError, UsageError
from provision.report.clean import safe
from provision.report.ledger import Ledger
from provision.report.page import Span, page
from provision.templating import render

TEMPLATE = "report.html.j2"


class Html:
    """Collects a run and writes it to `path` at the end.

    Raises UsageError at once when `path` cannot be written. A page that cannot be written at the end is told on
    `stderr`: what was done on the hosts is not undone by it, nor is the run's exit code.
    """

    def __init__(
        self,
        path: Path,
        stderr: TextIO,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    ) -> None:
        folder = path.parent
        if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
            reason = f"{path} is a folder" if path.is_dir() else f"{folder} is no folder that can be written to"
            raise UsageError(f"--report {path}: {reason}", hint="name a file in a folder that exists")
        self._path = path
        self._stderr = stderr
        self._clock = clock
        self._ledger = Ledger()
        self._spans: list[Span] = []
        self._ends: dict[str, float] = {}
        self._began = clock()
        self._started = now()

    def on(self, event: Event) -> None:
        """Takes an event in, and when it came."""
        event = safe(event)
        self._ledger.note(event)
        if isinstance(event, TaskDone) and event.status != "skipped":
            end = self._clock() - self._began
            earlier = self._ends.get(event.host, 0.0)  # a host does one task at a time
            self._ends[event.host] = end
            self._spans.append(Span(event, max(end - event.seconds, earlier), end))

    def close(self) -> None:
        """Writes the page: complete, or as it was before."""
        try:
            values = page(self._ledger, self._spans, self._started, self._clock() - self._began)
            _write(self._path, render(TEMPLATE, **values))
        except (OSError, ProvisionError) as error:
            print(f"provision: the report {self._path} was not written: {error}", file=self._stderr)


def _write(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        umask = os.umask(0o077)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)  # as any file the user makes: pipelines hand it on
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
