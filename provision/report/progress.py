"""The current activity of each host, and progress as plain lines for logs and pipes."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from provision.engine.events import ChangeEvent, ErrorEvent, Event, Message, Output, Start, Step, StepKind, TaskDone
from provision.masking import printable, printable_lines
from provision.report.folding import fold_names
from provision.report.text import LineAssembler, count, duration, failure_label, is_unreachable, place

if TYPE_CHECKING:
    from rich.console import Console

    from provision.report.console import PlainConsole

State = Literal["waiting", "busy", "idle", "failed", "unreachable"]
FAILURES: Final[tuple[State, ...]] = ("failed", "unreachable")


@dataclass
class HostActivity:
    """A host's state, task and step, since when (monotonic seconds), and the last line of the step's output."""

    state: State = "waiting"
    task: str = ""
    text: str = ""
    since: float = 0.0
    last_output: str = ""
    reported: float = 0.0  # when this step was last reported as a long one; 0: never


@dataclass
class Activity:
    """All hosts in inventory order, the number of hosts in each state, and the number of changes so far."""

    names: tuple[str, ...] = ()
    check: bool = False
    began: float = 0.0
    hosts: dict[str, HostActivity] = field(default_factory=dict)
    changes: int = 0
    states: Counter[State] = field(default_factory=Counter)

    def add(self, event: Event, now: float) -> None:
        """Updates the activity by an event; `now` is in monotonic seconds."""
        match event:
            case Start():
                self.names, self.check, self.began = event.names, event.check, now
                self.hosts = {name: HostActivity() for name in event.hosts}
                self.states = Counter({"waiting": len(event.hosts)})
            case Step():
                state: State = "waiting" if event.kind == "waiting" else "busy"
                self._set(event.host, HostActivity(state, event.task, printable(event.text), now))
            case Output():
                lines = [line for line in printable_lines(event.text) if line.strip()]
                if lines and event.host in self.hosts:
                    self.hosts[event.host].last_output = lines[-1].strip()
            case ChangeEvent():
                self.changes += 1
            case TaskDone():
                self._add_task(event, now)
            case ErrorEvent() if event.host in self.hosts:
                state = "unreachable" if is_unreachable(event) else "failed"
                self._set(event.host, HostActivity(state, event.task, printable_lines(event.text)[0], now))
            case _:
                pass

    def _add_task(self, event: TaskDone, now: float) -> None:
        before = self.hosts.get(event.host, HostActivity())
        if event.status in ("failed", "unreachable"):
            self._set(event.host, HostActivity(event.status, event.task, before.text, now))
        elif before.state not in FAILURES:  # a task skipped after a failure does not hide the failure
            text = count(event.changes, "change") if event.changes else event.status
            self._set(event.host, HostActivity("idle", event.task, text, now))

    def _set(self, host: str, activity: HostActivity) -> None:
        if host in self.hosts:
            self.states[self.hosts[host].state] -= 1
        self.states[activity.state] += 1
        self.hosts[host] = activity

    def count(self, state: State) -> int:
        """How many hosts are in this state."""
        return self.states[state]


def is_urgent(message: Message) -> bool:
    """Whether to show a message at once: the answer to Ctrl-C, and what the run waits for."""
    return message.kind in ("stopping", "abandoned", "waiting")


INTERVAL: Final = 2.0  # seconds between reports of ended tasks; a shorter run shows only its result
LONG: Final = 10.0  # seconds after which a step that still runs is reported
REPEAT: Final = 60.0  # seconds until it is reported again: some CI systems cancel a job without output after minutes
MAX_OUTPUT: Final = 120  # characters of a step's last output
MAX_NAMES: Final = 6  # folded host names in a line; further ones are counted

ROUTINE: Final[tuple[StepKind, ...]] = (
    "connecting",
    "observing",
    "waiting",
)  # steps that every task has: shown only with -vv


class PlainProgress:
    """Reports which tasks changed something, failed, or take long; with `verbose`, every step and its output at once.

    `ticking=False` leaves calling `tick` to the caller (for tests).
    """

    def __init__(
        self, console: Console | PlainConsole, *, verbose: int, clock: Callable[[], float], ticking: bool = True
    ) -> None:
        self._console = console
        self._verbose = verbose
        self._clock = clock
        self._ticking = ticking
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._activity = Activity()
        self._ended: list[TaskDone | ErrorEvent] = []
        self._output = LineAssembler()
        self._failure: Exception | None = None  # what ended the thread that calls `tick`
        self.has_printed = False

    def on(self, event: Event) -> None:
        """Handles an event. Its output is printed at the next tick, or at once if it is urgent."""
        with self._lock:
            self._activity.add(event, self._clock())
            if isinstance(event, ErrorEvent) or (isinstance(event, TaskDone) and event.status == "changed"):
                self._ended.append(event)
            if isinstance(event, Message) and is_urgent(event):
                self._print([f"{event.host}: {printable(event.text)}"])
            if self._verbose:
                self._print(self._details(event))
        if isinstance(event, Start) and self._ticking:
            threading.Thread(target=self._tick_until_closed, name="progress", daemon=True).start()

    def close(self) -> None:
        """Ends the progress. The final report contains what was not printed yet."""
        self._stop.set()
        with self._lock:  # waits for a tick that is being printed
            self._print([f"{host}: | {line}" for host, line in self._output.flush()])
        if self._failure is not None:
            raise self._failure

    def tick(self) -> None:
        """Prints the tasks that ended since the last tick, and the steps that have been running for long."""
        with self._lock:
            self._print(self._news() + self._long_steps())

    def _tick_until_closed(self) -> None:
        try:
            while not self._stop.wait(INTERVAL):
                self.tick()
        except Exception as error:  # `close` raises it: the engine reports it, and the run continues
            self._failure = error

    def _print(self, lines: list[str]) -> None:
        if lines:
            self.has_printed = True
            self._console.print("\n".join(lines), soft_wrap=True)

    def _news(self) -> list[str]:
        """Lines for the tasks that ended since the last tick; equal results of several hosts share a line."""
        news: dict[str, dict[str, float]] = {}
        for event in self._ended:
            if isinstance(event, ErrorEvent):
                text = place(event.task, failure_label(event), printable_lines(event.text)[0])
                news.setdefault(text, {})[event.host] = 0.0
            else:
                changes = count(event.changes, "change") + (" pending" if self._activity.check else "")
                news.setdefault(f"{event.task}: {changes}", {})[event.host] = event.seconds
        self._ended.clear()
        return [
            f"{fold_names(hosts, limit=MAX_NAMES)}: {text}" + (f", {duration(took)}" if took else "")
            for text, hosts in news.items()
            for took in [max(hosts.values())]
        ]

    def _long_steps(self) -> list[str]:
        """Lines for steps that have been running for long, with the last output of the host that started first."""
        now = self._clock()
        long: dict[str, list[str]] = {}
        for name, one in self._activity.hosts.items():
            next_report = max(one.since + LONG, one.reported + REPEAT if one.reported else 0.0)
            if one.state == "busy" and now >= next_report:
                one.reported = now
                long.setdefault(place(one.task, one.text), []).append(name)
        return [self._long_step(text, names, now) for text, names in long.items()]

    def _long_step(self, text: str, names: list[str], now: float) -> str:
        first = min(names, key=lambda name: self._activity.hosts[name].since)
        one = self._activity.hosts[first]
        line = f"{fold_names(names, limit=MAX_NAMES)}: {text}: running for {duration(now - one.since)}"
        if not one.last_output or self._verbose:
            return line
        label = "last output" if len(names) == 1 else f"last output of {first}"
        return f"{line}, {label}: {one.last_output[:MAX_OUTPUT]}"

    def _details(self, event: Event) -> list[str]:
        match event:
            case Step() if self._verbose > 1 or event.kind not in ROUTINE:
                return [f"{place(event.host, event.task, printable(event.text))} …"]
            case Output():
                return [f"{event.host}: | {line}" for line in self._output.add(event.host, event.text)]
            case TaskDone() if self._verbose > 1:
                return [f"{event.host}: {event.task}: {event.status}, {duration(event.seconds)}"]
            case _:
                return []
