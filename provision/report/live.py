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
MAX_NAME: Final = 32  # characters of a host's name
_SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_SIGNS: Final = {"waiting": ("·", "soft"), "idle": ("✓", "good"), "failed": ("✗", "bad"), "unreachable": ("✗", "bad")}


class LiveView:
    """Shows what every host is doing. Errors are printed above the view at once; with `verbose`, output as well.

    rich redraws the view from its own thread. Nothing is printed while `_lock` is held: that thread holds rich's
    locks while it gets a frame.
    """

    def __init__(self, console: Console, *, verbose: int, clock: Callable[[], float]) -> None:
        self._console = console
        self._verbose = verbose
        self._clock = clock
        self._activity = Activity()
        self._lock = threading.Lock()
        self._output = LineAssembler()
        self._live: Live | None = None
        self._failure: Exception | None = None  # what failed in another thread
        self._appear = threading.Timer(DELAY, self._show)
        self._appear.daemon = True
        self.has_printed = False

    def _show(self) -> None:
        try:
            self._start()
        except Exception as error:  # this is a timer's thread: `close` raises it
            self._failure = error

    def _start(self) -> None:
        # rich takes the first frame when the object is made: at this point the view has the hosts.
        self._live = Live(
            console=self._console,
            get_renderable=self._frame,
            refresh_per_second=FRAMES_PER_SECOND,
            transient=True,
            vertical_overflow="crop",
            redirect_stdout=False,
            redirect_stderr=sys.stderr.isatty(),  # warnings appear above the view; a redirected stderr is unchanged
        )
        self._live.start()

    def on(self, event: Event) -> None:
        """Handles an event, and prints it if it is urgent."""
        with self._lock:
            self._activity.add(event, self._clock())
        self._print(self._urgent(event))
        if isinstance(event, Start):
            atexit.register(self.close)  # shows the cursor again even if the program ends abnormally
            self._appear.start()

    def close(self) -> None:
        """Removes the view from the screen."""
        atexit.unregister(self.close)
        self._appear.cancel()
        if self._appear.ident is not None:
            self._appear.join()
        if self._live is not None:
            self._live.stop()
        self._print([self._output_line(host, line) for host, line in self._output.flush()])
        if self._failure is not None:
            raise self._failure

    def _print(self, lines: list[Text]) -> None:
        for line in lines:
            self.has_printed = True
            self._console.print(line)

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
        try:
            with self._lock:
                lines = frame(self._activity, self._console.height - 1, self._clock())
        except Exception as error:  # rich's thread would print a traceback over the view
            self._failure = error
            return Text()
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
