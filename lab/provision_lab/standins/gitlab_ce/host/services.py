"""The services: systemd units that speak as runit's do."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SERVICES = ("nginx", "puma", "registry")  # puma: the API
SUPERVISOR = "gitlab-runsvdir.service"
DOWN = 3  # what runit's LSB mode answers for a service that is down


@dataclass(frozen=True)
class State:
    """One service as it is: `up`, for how many seconds, and whether it is being tried again."""

    name: str
    up: bool
    pid: int
    seconds: int
    wanted: bool

    def line(self, log_pid: int, log_seconds: int) -> str:
        """As `sv status` says it."""
        log = f"run: log: (pid {log_pid}) {log_seconds}s"
        if self.up:
            return f"run: {self.name}: (pid {self.pid}) {self.seconds}s; {log}"
        want = ", want up" if self.wanted else ""
        return f"down: {self.name}: {self.seconds}s, normally up{want}; {log}"


def unit(name: str) -> str:
    """The systemd unit of a service."""
    return f"gitlab-{name}.service"


def enabled(opt: Path) -> list[str]:
    """The services that the last reconfigure wanted, in order."""
    return [name for name in SERVICES if (opt / "service" / name).exists()]


def enable(opt: Path, name: str) -> bool:
    """Notes that a service is wanted; true when it was not."""
    marker = opt / "service" / name
    if marker.is_symlink():
        return False
    marker.parent.mkdir(parents=True, exist_ok=True)
    (opt / "sv" / name).mkdir(parents=True, exist_ok=True)
    marker.symlink_to(opt / "sv" / name)
    return True


def disable(opt: Path, name: str) -> bool:
    """Stops a service and forgets it; true when it was wanted."""
    marker = opt / "service" / name
    if not marker.is_symlink():
        return False
    systemctl("stop", unit(name))
    marker.unlink()
    return True


def systemctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs systemctl and gives its result, whatever it is."""
    return subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)


def control(command: str, names: Iterable[str]) -> int:
    """start, stop or restart, saying what runit says; the sum of the services' exit codes."""
    total = 0
    for name in names:
        systemctl("reset-failed", unit(name))
        done = systemctl(command, unit(name))
        state = read(name)
        fine = done.returncode == 0 and state.up is (command != "stop")
        total += 0 if fine else 1
        print(f"{'ok' if fine else 'timeout'}: {state.line(0, 0).split(';')[0]}", flush=True)
    return total


def hup(names: Iterable[str]) -> int:
    """SIGHUP to the main processes: nginx reads its certificates again, the registry starts anew."""
    return sum(systemctl("kill", "--kill-whom=main", "--signal=HUP", unit(name)).returncode for name in names)


def read(name: str) -> State:
    """One service as systemd sees it."""
    wanted = "ActiveState,MainPID,ActiveEnterTimestampMonotonic,InactiveEnterTimestampMonotonic"
    shown = systemctl("show", unit(name), f"--property={wanted}").stdout
    seen = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    up = seen.get("ActiveState") == "active"
    since = int(seen.get("ActiveEnterTimestampMonotonic" if up else "InactiveEnterTimestampMonotonic") or 0)
    seconds = max(0, int(time.clock_gettime(time.CLOCK_MONOTONIC) - since / 1_000_000)) if since else 0
    return State(name, up, int(seen.get("MainPID") or 0), seconds, wanted=seen.get("ActiveState") == "activating")


def status(names: Iterable[str]) -> int:
    """Prints a line for each; the sum of their exit codes."""
    total = 0
    for name in names:
        state = read(name)
        print(state.line(1, max(state.seconds, 1)), flush=True)
        total += 0 if state.up else DOWN
    return total
