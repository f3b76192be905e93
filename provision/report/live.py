"""The live view on a terminal: a line per host while it runs, gone when the run ends.

rich is imported when the run has lasted a moment: a run with nothing to do ends without it.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from provision.engine.events import ErrorSeen, Event, Message, Output, Start
from provision.report.activity import Activity, Busy, urgent
from provision.report.clean import printable, printable_lines
from provision.report.layout import failure_word
from provision.report.out import Out
from provision.report.paint import Line, Style, colour
from provision.report.pieces import Pieces
from provision.report.words import count, duration

if TYPE_CHECKING:
    from rich.live import Live

AFTER: Final = 0.4  # seconds until the view appears
EVERY: Final = 0.1  # seconds between two frames
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
            while not self._stop.wait(EVERY):
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
    mark = _SIGNS.get(one.state) or (_SPINNER[int(now / EVERY) % len(_SPINNER)], "name")
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
