"""What each host is busy with at this moment, for those who show a run while it goes on.

Progress as plain lines, for logs and pipes: little, folded, and never silent for long.

The live view on a terminal: a line per host while it runs, gone when the run ends.

rich is imported when the run has lasted a moment: a run with nothing to do ends without it.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from provision.engine.events import ChangeSeen, ErrorSeen, Event, Message, Output, Start, Status, Step, TaskDone
from provision.report.layout import NAMES_SHOWN, Line, Out, Style, colour, failure_word
from provision.report.text import Pieces, count, duration, fold, printable, printable_lines

if TYPE_CHECKING:
    from rich.live import Live


State = Literal["waiting", "busy", "idle", "failed", "unreachable"]


@dataclass
class Busy:
    """A host: its state, task and step, since when (monotonic seconds), and the last line that it said."""

    state: State = "waiting"
    task: str = ""
    text: str = ""
    since: float = 0.0
    said: str = ""
    announced: float = 0.0


@dataclass
class Activity:
    """All hosts in inventory order, and the run's counts so far."""

    names: tuple[str, ...] = ()
    check: bool = False
    began: float = 0.0
    hosts: dict[str, Busy] = field(default_factory=dict)
    changes: int = 0

    def note(self, event: Event, now: float) -> None:
        """Takes an event in; `now` is monotonic seconds."""
        match event:
            case Start():
                self.names, self.check, self.began = event.names, event.check, now
                self.hosts = {name: Busy() for name in event.hosts}
            case Step():
                # "waiting for the hosts before": at a barrier, no work.
                state: State = "waiting" if event.text.startswith("waiting") else "busy"
                self.hosts[event.host] = Busy(state, event.task, printable(event.text), now)
            case Output():
                said = [line for line in printable_lines(event.text) if line.strip()]
                if said and event.host in self.hosts:
                    self.hosts[event.host].said = said[-1].strip()
            case ChangeSeen():
                self.changes += 1
            case TaskDone():
                self._task_done(event, now)
            case ErrorSeen() if event.host in self.hosts:
                self.hosts[event.host] = Busy("failed", event.task, printable_lines(event.text)[0], now)
            case _:
                pass

    def _task_done(self, event: TaskDone, now: float) -> None:
        before = self.hosts.get(event.host, Busy())
        if event.status == "unreachable":
            self.hosts[event.host] = Busy("unreachable", event.task, before.text, now)
        elif event.status == "failed":
            self.hosts[event.host] = Busy("failed", event.task, before.text, now)
        elif before.state not in ("failed", "unreachable"):  # what is skipped after a failure does not cover it
            self.hosts[event.host] = Busy("idle", event.task, _ended(event.status, event.changes), now)

    def count(self, *states: State) -> int:
        """How many hosts are in one of these states."""
        return len([one for one in self.hosts.values() if one.state in states])


def urgent(message: Message) -> bool:
    """Whether to say it at once: the engine's answers to Ctrl-C, for whoever waits with a finger on the key."""
    return message.text.startswith(("stopping after: ", "abandoned during: "))


def _ended(status: Status, changes: int) -> str:
    if not changes:
        return status
    return "1 change" if changes == 1 else f"{changes} changes"


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


AFTER: Final = 0.4  # seconds until the view appears
REFRESH: Final = 0.1  # seconds between two frames
_SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_SIGNS: Final[dict[str, tuple[str, Style]]] = {
    "waiting": ("·", "dim"),
    "idle": ("✓", "good"),
    "failed": ("✗", "bad"),
    "unreachable": ("✗", "bad"),
}


class LiveView:
    """Draws frames from a thread of its own; what is said meanwhile scrolls by above them."""

    def __init__(self, out: Out, *, verbose: int, clock: Callable[[], float]) -> None:
        self._out = out
        self._verbose = verbose
        self._clock = clock
        self._activity = Activity()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._live: Live | None = None
        self._pieces = Pieces()
        self.said = False

    def on(self, event: Event) -> None:
        """Takes an event; errors are said at once, with `verbose` also what programs print."""
        with self._lock:
            self._activity.note(event, self._clock())
            self._say(self._spoken(event))
        if isinstance(event, Start):
            self._thread = threading.Thread(target=self._draw_on, name="live view", daemon=True)
            atexit.register(self.close)  # the cursor comes back even if the run breaks off
            self._thread.start()

    def close(self) -> None:
        """Takes the view off the screen."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            atexit.unregister(self.close)
        with self._lock:
            self._say([[(f"{host}: ", "name"), (line, "dim")] for host, line in self._pieces.rest()])

    def _spoken(self, event: Event) -> list[Line]:
        match event:
            case ErrorSeen():
                place = ": ".join(one for one in (event.host, event.task) if one)
                text = printable_lines(event.text)[0]
                return [[(f"{failure_word(event)} ", "bad"), (f"{place}: ", "bold"), (text, "")]]
            case Message() if urgent(event):
                return [[(f"{event.host}: ", "name"), (printable(event.text), "warn")]]
            case Output() if self._verbose:
                return [
                    [(f"{event.host}: ", "name"), (one, "dim")] for one in self._pieces.take(event.host, event.text)
                ]
            case _:
                return []

    def _say(self, lines: list[Line]) -> None:
        self.said = self.said or bool(lines)
        if self._live is None:
            self._out.lines([colour(line) for line in lines])
            return
        from rich.text import Text

        for line in lines:
            self._live.console.print(Text.from_ansi(colour(line)), soft_wrap=True)

    def _draw_on(self) -> None:
        if self._stop.wait(AFTER):
            return
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        console = Console(file=self._out.stream, force_terminal=True, highlight=False)
        with Live(console=console, auto_refresh=False, transient=True) as live:
            with self._lock:
                self._live = live
            while not self._stop.wait(REFRESH):
                with self._lock:
                    lines = frame(self._activity, console.height - 1, self._clock())
                texts = [Text.from_ansi(colour(line)) for line in lines]
                for text in texts:
                    text.truncate(console.width - 1, overflow="ellipsis")
                live.update(Text("\n").join(texts), refresh=True)
            with self._lock:
                self._live = None


def frame(activity: Activity, height: int, now: float) -> list[Line]:
    """At most `height` lines: a headline, then all hosts, or the busy ones that fit and the count of the rest."""
    hosts = activity.hosts
    words = [count(len(hosts), "host"), count(activity.changes, "change") + (" pending" if activity.check else "")]
    failed = activity.count("failed", "unreachable")
    head: Line = [("provision ", "dim"), (" ".join(activity.names), "bold"), (f"  {' · '.join(words)}", "dim")]
    head += [(f" · {failed} failed", "bad")] if failed else []
    head.append((f" · {duration(now - activity.began)}", "dim"))
    room = max(height - 1, 1)
    shown = list(hosts)
    if len(hosts) > room:
        shown = [name for name, one in hosts.items() if one.state == "busy"][: room - 1]
    width = min(max((len(name) for name in shown), default=0), 32)
    lines = [head, *(_row(name, hosts[name], width, now) for name in shown)]
    if len(shown) < len(hosts):
        lines.append(_rest(activity, len(shown)))
    return lines


def _row(name: str, one: Busy, width: int, now: float) -> Line:
    mark = _SIGNS.get(one.state) or (_SPINNER[int(now / REFRESH) % len(_SPINNER)], "name")
    line: Line = [mark, (f" {name[:width]:{width}}  ", "bold" if one.state == "busy" else "dim")]
    line += [(f"{one.task}  ", "name")] if one.task else []
    line.append((one.text, "dim" if one.state in ("idle", "waiting") else ""))
    if one.state == "busy":
        line.append((f" {duration(now - one.since)}" if now - one.since >= 1 else "", "dim"))
        line.append((f"  {one.said}" if one.said else "", "dim"))
    return line


def _rest(activity: Activity, shown: int) -> Line:
    counts = (
        (activity.count("busy") - shown, "more busy"),
        (activity.count("waiting"), "waiting"),
        (activity.count("idle"), "between tasks or done"),
        (activity.count("failed", "unreachable"), "failed"),
    )
    return [("  … " + ", ".join(f"{number} {word}" for number, word in counts if number), "dim")]
