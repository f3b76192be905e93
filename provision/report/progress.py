"""Progress as plain lines, for logs and pipes: little, folded, and never silent for long."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from provision.engine.events import ErrorSeen, Event, Message, Output, Start, Step, TaskDone
from provision.report.activity import Activity, urgent
from provision.report.clean import printable, printable_lines
from provision.report.layout import NAMES_SHOWN, failure_word
from provision.report.names import fold
from provision.report.out import Out
from provision.report.pieces import Pieces
from provision.report.words import count, duration

EVERY: Final = 2.0  # seconds between looks at what ended since; a run shorter than that shows its result alone
LONG: Final = 10.0  # seconds after which a step that is still running is named
AGAIN: Final = 60.0  # … and then so often: some pipelines end a job that says nothing for minutes

ROUTINE: Final = ("connecting", "looking", "waiting")  # steps of every host and task: said with -vv alone


class PlainProgress:
    """Says which tasks changed something, failed, or take long. With `verbose` every step and its output, at once."""

    def __init__(self, out: Out, *, verbose: int, clock: Callable[[], float], ticking: bool = True) -> None:
        self._out = out
        self._verbose = verbose
        self._clock = clock
        self._ticking = ticking
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._activity = Activity()
        self._ended: list[TaskDone | ErrorSeen] = []
        self._pieces = Pieces()
        self.said = False

    def on(self, event: Event) -> None:
        """Takes an event; only with `verbose` something is said at once."""
        with self._lock:
            self._activity.note(event, self._clock())
            if isinstance(event, ErrorSeen) or (isinstance(event, TaskDone) and event.status == "changed"):
                self._ended.append(event)
            if isinstance(event, Message) and urgent(event):
                self._say([f"{event.host}: {printable(event.text)}"])
            if self._verbose:
                self._say(self._spoken(event))
        if isinstance(event, Start) and self._ticking:
            threading.Thread(target=self._tick_on, name="progress", daemon=True).start()

    def close(self) -> None:
        """Says no more: the report at the end holds what was not said yet."""
        self._stop.set()
        with self._lock:  # a tick under way ends before the report begins
            self._say([f"{host}: | {line}" for host, line in self._pieces.rest()])

    def tick(self) -> None:
        """Says what ended since the last time, and what has been running for long."""
        with self._lock:
            self._say(self._news() + self._still())

    def _tick_on(self) -> None:
        while not self._stop.wait(EVERY):
            self.tick()

    def _say(self, lines: list[str]) -> None:
        self.said = self.said or bool(lines)
        self._out.lines(lines)

    def _news(self) -> list[str]:
        news: dict[str, dict[str, float]] = {}
        for event in self._ended:
            if isinstance(event, ErrorSeen):
                text = f"{event.task}: {failure_word(event)}: {printable_lines(event.text)[0]}".removeprefix(": ")
                news.setdefault(text, {})[event.host] = 0.0
            else:
                what = count(event.changes, "change") + (" pending" if self._activity.check else "")
                news.setdefault(f"{event.task}: {what}", {})[event.host] = event.seconds
        self._ended.clear()
        lines = []
        for text, hosts in news.items():
            took = max(hosts.values())
            lines.append(f"{fold(hosts, limit=NAMES_SHOWN)}: {text}" + (f", {duration(took)}" if took else ""))
        return lines

    def _still(self) -> list[str]:
        now = self._clock()
        long: dict[str, list[str]] = {}
        for name, one in self._activity.hosts.items():
            due = max(one.since + LONG, one.announced + AGAIN if one.announced else 0.0)
            if one.state == "busy" and now >= due:
                one.announced = now
                why = f" ({one.said})" if one.said.startswith("waiting for") else ""
                long.setdefault(f"{one.task}: {one.text}{why}".removeprefix(": "), []).append(name)
        lines = []
        for text, names in long.items():
            took = now - min(self._activity.hosts[name].since for name in names)
            lines.append(f"{fold(names, limit=NAMES_SHOWN)}: {text} … {duration(took)} so far")
        return lines

    def _spoken(self, event: Event) -> list[str]:
        match event:
            case Step() if self._verbose > 1 or not event.text.startswith(ROUTINE):
                return [": ".join(one for one in (event.host, event.task, printable(event.text)) if one) + " …"]
            case Output():
                return [f"{event.host}: | {line}" for line in self._pieces.take(event.host, event.text)]
            case TaskDone() if self._verbose > 1:
                return [f"{event.host}: {event.task}: {event.status}, {duration(event.seconds)}"]
            case _:
                return []
