"""The live view on a terminal: one line per host during the run, removed at its end."""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from rich.live import Live
from rich.text import Text

from provision.engine.events import ErrorEvent, Event, Message, Output, Start
from provision.masking import printable, printable_lines
from provision.report.progress import FAILURES, Activity, HostActivity, is_urgent
from provision.report.text import LineAssembler, count, duration, failure_label, place

if TYPE_CHECKING:
    from rich.console import Console

DELAY: Final = 0.4  # seconds until the view appears: a run with nothing to do ends without it
FRAMES_PER_SECOND: Final = 10
HOSTS_PER_SECOND: Final = 100  # a line costs rich 0.07 ms, so a view of many hosts is drawn less often
SLOWEST: Final = 1.0  # seconds between two drawings
MAX_NAME: Final = 32  # characters of a host's name
_SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_SIGNS: Final = {"waiting": ("·", "soft"), "idle": ("✓", "good"), "failed": ("✗", "bad"), "unreachable": ("✗", "bad")}


class LiveView:
    """Shows what every host is doing. Errors are printed above the view; with `verbose`, output as well.

    A separate thread draws at a limited rate, whatever the number of events, because rich draws the whole view again for
    each line that is printed above it. No event waits for the terminal.
    """

    def __init__(self, console: Console, *, verbose: int, clock: Callable[[], float]) -> None:
        self._console = console
        self._verbose = verbose
        self._clock = clock
        self._activity = Activity()
        self._lock = threading.Lock()
        self._output = LineAssembler()
        self._lines: list[Text] = []  # to be printed above the view
        self._failure: Exception | None = None  # what failed in the drawing thread
        self._closing = threading.Event()
        self._drawing = threading.Thread(target=self._draw_until_closed, name="live view", daemon=True)
        self.has_printed = False

    def on(self, event: Event) -> None:
        """Handles an event. Urgent lines are printed when the view is drawn next."""
        with self._lock:
            self._activity.add(event, self._clock())
            self._lines += self._urgent(event)
        if isinstance(event, Start):
            atexit.register(self.close)  # shows the cursor again even if the program ends abnormally
            self._drawing.start()

    def close(self) -> None:
        """Removes the view from the screen."""
        atexit.unregister(self.close)
        self._closing.set()
        if self._drawing.ident is not None:
            self._drawing.join()
        self._lines += [self._output_line(host, line) for host, line in self._output.flush()]
        self._print_lines()
        if self._failure is not None:
            raise self._failure

    def _draw_until_closed(self) -> None:
        if self._closing.wait(DELAY):
            return
        try:
            with Live(
                self._frame(),
                console=self._console,
                auto_refresh=False,
                transient=True,
                vertical_overflow="crop",
                redirect_stdout=False,
                redirect_stderr=sys.stderr.isatty(),  # warnings appear above the view; a redirected stderr is unchanged
            ) as live:
                while not self._closing.wait(self._interval()):
                    self._print_lines()
                    live.update(self._frame(), refresh=True)
        except Exception as error:  # no traceback is printed over the view: `close` raises it
            self._failure = error

    def _interval(self) -> float:
        """Seconds until the view is drawn again."""
        return min(max(len(self._activity.hosts) / HOSTS_PER_SECOND, 1 / FRAMES_PER_SECOND), SLOWEST)

    def _print_lines(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
        if lines:
            self.has_printed = True
            self._console.print(Text("\n").join(lines))

    def _urgent(self, event: Event) -> list[Text]:
        match event:
            case ErrorEvent():
                text = printable_lines(event.text)[0]
                where = f"{place(event.host, event.task)}: "
                return [Text.assemble((f"{failure_label(event)} ", "bad"), (where, "heading"), text)]
            case Message() if is_urgent(event):
                return [Text.assemble((f"{event.host}: ", "host"), (printable(event.text), "warning"))]
            case Output() if self._verbose:
                return [self._output_line(event.host, line) for line in self._output.add(event.host, event.text)]
            case _:
                return []

    def _output_line(self, host: str, line: str) -> Text:
        return Text.assemble((f"{host}: ", "host"), (line, "soft"))

    def _frame(self) -> Text:
        with self._lock:
            lines = frame(self._activity, self._console.height - 1, self._clock())
        return Text("\n", no_wrap=True, overflow="ellipsis").join(lines)


def frame(activity: Activity, height: int, now: float) -> list[Text]:
    """At most `height` lines: a headline, then all hosts, or the busy hosts that fit and the number of the others."""
    hosts = activity.hosts
    room = max(height - 1, 1)
    shown = list(hosts)
    if len(hosts) > room:
        shown = [name for name, one in hosts.items() if one.state == "busy"][: room - 1]
    width = min(max((len(name) for name in shown), default=0), MAX_NAME)
    lines = [_headline(activity, now), *(_row(name, hosts[name], width, now) for name in shown)]
    if len(shown) < len(hosts):
        lines.append(_others(activity, len(shown)))
    return lines


def _headline(activity: Activity, now: float) -> Text:
    changes = count(activity.changes, "change") + (" pending" if activity.check else "")
    line = Text.assemble(("provision ", "soft"), (" ".join(activity.names), "heading"))
    line.append(f"  {count(len(activity.hosts), 'host')} · {changes}", "soft")
    for state in FAILURES:
        if number := activity.count(state):
            line.append(f" · {number} {state}", "bad")
    return line.append(f" · {duration(now - activity.began)}", "soft")


def _row(name: str, one: HostActivity, width: int, now: float) -> Text:
    busy = one.state == "busy"
    spinner = _SPINNER[int(now * FRAMES_PER_SECOND) % len(_SPINNER)]
    line = Text.assemble(_SIGNS.get(one.state, (spinner, "host")))
    line.append(f" {name[:width]:{width}}  ", "heading" if busy else "soft")
    line.append(f"{one.task}  " if one.task else "", "host")
    line.append(one.text, "soft" if one.state in ("idle", "waiting") else "")
    if busy and now - one.since >= 1:
        line.append(f" {duration(now - one.since)}", "soft")
    if busy and one.last_output:
        line.append(f"  {one.last_output}", "soft")
    return line


def _others(activity: Activity, shown: int) -> Text:
    counts = (
        (activity.count("busy") - shown, "more busy"),
        (activity.count("waiting"), "waiting"),
        (activity.count("idle"), "between tasks or done"),
        *((activity.count(state), state) for state in FAILURES),
    )
    return Text("  … " + ", ".join(f"{number} {label}" for number, label in counts if number), "soft")
