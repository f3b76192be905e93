"""The services: systemd units, controlled and reported as runit does."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SERVICES = ("nginx", "puma", "registry")  # puma: the API
SUPERVISOR = "gitlab-runsvdir.service"
DOWN = 3  # runit's exit code for a service that is down


@dataclass(frozen=True)
class State:
    """One service: whether it is up, for how many seconds, and whether systemd is trying to start it."""

    name: str
    up: bool
    pid: int
    seconds: int
    wanted: bool

    def line(self, log_pid: int, log_seconds: int) -> str:
        """The line of `sv status`."""
        log = f"run: log: (pid {log_pid}) {log_seconds}s"
        if self.up:
            return f"run: {self.name}: (pid {self.pid}) {self.seconds}s; {log}"
        want = ", want up" if self.wanted else ""
        return f"down: {self.name}: {self.seconds}s, normally up{want}; {log}"


def unit(name: str) -> str:
    """The name of a service's systemd unit."""
    return f"gitlab-{name}.service"


def enabled(opt: Path) -> list[str]:
    """The services that the last reconfigure enabled, in order."""
    return [name for name in SERVICES if (opt / "service" / name).exists()]


def enable(opt: Path, name: str) -> bool:
    """Enables a service; whether it was disabled before."""
    marker = opt / "service" / name
    if marker.is_symlink():
        return False
    marker.parent.mkdir(parents=True, exist_ok=True)
    (opt / "sv" / name).mkdir(parents=True, exist_ok=True)
    marker.symlink_to(opt / "sv" / name)
    return True


def disable(opt: Path, name: str) -> bool:
    """Stops and disables a service; whether it was enabled before."""
    marker = opt / "service" / name
    if not marker.is_symlink():
        return False
    systemctl("stop", unit(name))
    marker.unlink()
    return True


def systemctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs systemctl and returns its result, also when it fails."""
    return subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)


def control(command: str, names: Iterable[str]) -> int:
    """Runs start, stop or restart with runit's output; the number of services for which it failed."""
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
    """Sends SIGHUP to the main processes: nginx reloads its certificates, the registry restarts."""
    return sum(systemctl("kill", "--kill-whom=main", "--signal=HUP", unit(name)).returncode for name in names)


def read(name: str) -> State:
    """The state of one service."""
    wanted = "ActiveState,MainPID,ActiveEnterTimestampMonotonic,InactiveEnterTimestampMonotonic"
    shown = systemctl("show", unit(name), f"--property={wanted}").stdout
    seen = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    up = seen.get("ActiveState") == "active"
    since = int(seen.get("ActiveEnterTimestampMonotonic" if up else "InactiveEnterTimestampMonotonic") or 0)
    seconds = max(0, int(time.clock_gettime(time.CLOCK_MONOTONIC) - since / 1_000_000)) if since else 0
    return State(name, up, int(seen.get("MainPID") or 0), seconds, wanted=seen.get("ActiveState") == "activating")


def status(names: Iterable[str]) -> int:
    """Prints a line for each service; the sum of their exit codes."""
    total = 0
    for name in names:
        state = read(name)
        print(state.line(1, max(state.seconds, 1)), flush=True)
        total += 0 if state.up else DOWN
    return total
