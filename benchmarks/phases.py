"""Records when each phase of a run ended, and the processor time of this process and of all others until then.

`python phases.py OUT NAME… -i INVENTORY` runs the command line in this process, and writes the records as JSON into OUT.
`profiling.profile` starts it several times and takes the medians.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

_STARTED = (time.monotonic(), time.process_time())  # before anything else is imported

PHASES = (
    ("start", "Python starts"),
    ("command line", "its modules are imported"),
    ("inventory", "playbooks, inventory and desired state, with the imports of their modules"),
    ("connect", "until the last host is connected, with the import of paramiko"),
    ("observe", "until the last host has answered, and its first task is planned"),
    ("report", "until connections are closed and the summary is printed"),
    ("exit", "the process ends"),
)


def processors() -> float:
    """The seconds of processor time that all processes of this machine have used since the boot. Source: proc_stat(5)."""
    import os

    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, _, _, irq, softirq, steal = (int(word) for word in words)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _run(out: str) -> None:
    marks = {"start": (*_STARTED, processors())}

    def mark(name: str) -> None:
        marks[name] = (time.monotonic(), time.process_time(), processors())

    from provision.cli import main

    mark("command line")
    from provision.engine import events

    published = events.Bus.publish
    connected: set[str] = set()  # a host may be observed again
    observed: set[str] = set()

    def publish(bus: events.Bus, event: events.Event) -> None:
        if isinstance(event, events.Start):
            mark("inventory")
        elif isinstance(event, events.Step) and event.kind == "observing" and event.host not in connected:
            connected.add(event.host)
            mark("connect")
        elif isinstance(event, events.TaskDone) and event.host not in observed:
            observed.add(event.host)
            mark("observe")
        published(bus, event)

    events.Bus.publish = publish  # type: ignore[method-assign]
    import atexit
    import json

    def write() -> None:
        mark("report")
        Path(out).write_text(json.dumps(marks))

    atexit.register(write)
    main(sys.argv[2:])


if __name__ == "__main__":
    _run(sys.argv[1])
