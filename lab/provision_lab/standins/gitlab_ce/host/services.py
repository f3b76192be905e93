"""The services: systemd units, controlled and reported as runit does."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

SERVICES = ("nginx", "puma", "registry")  # those that serve something here; puma: the API
_REAL = (*SERVICES, "crond")
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
    restarts: int = 0

    def line(self, log_pid: int, log_seconds: int) -> str:
        """The line of `sv status`."""
        log = f"run: log: (pid {log_pid}) {log_seconds}s"
        if self.up:
            return f"run: {self.name}: (pid {self.pid}) {self.seconds}s; {log}"
        want = ", want up" if self.wanted else ""
        return f"down: {self.name}: {self.seconds}s, normally up{want}; {log}"


def unit(name: str) -> str:
    """The name of a service's systemd unit. Most services of the real package only have a process here."""
    return f"gitlab-{name}.service" if name in _REAL else f"gitlab-idle@{name}.service"


def enabled(opt: Path) -> list[str]:
    """The services that the last reconfigure enabled, in runit's order: by name."""
    folder = opt / "service"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


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
    total, names = 0, list(names)
    systemctl("reset-failed", *map(unit, names))
    systemctl(command, *map(unit, names))
    for state in read_all(names):
        fine = state.up is (command != "stop")
        total += 0 if fine else 1
        print(f"{'ok' if fine else 'timeout'}: {state.line(0, 0).split(';')[0]}", flush=True)
    return total


def hup(names: Iterable[str]) -> int:
    """Sends SIGHUP to the main processes: nginx reloads its certificates, the registry restarts."""
    return sum(
        systemctl("kill", "--kill-whom=main", "--signal=HUP", unit(name)).returncode
        for name in names
        if name in SERVICES
    )


def read_all(names: Iterable[str]) -> list[State]:
    """The states of services, by one call of systemctl."""
    names = list(names)
    if not names:
        return []
    wanted = "Id,ActiveState,MainPID,NRestarts,ActiveEnterTimestampMonotonic,InactiveEnterTimestampMonotonic"
    shown = systemctl("show", *map(unit, names), f"--property={wanted}").stdout
    blocks = (dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in shown.split("\n\n"))
    found = {block.get("Id", ""): block for block in blocks}
    return [_state(name, found.get(unit(name), {})) for name in names]


def read(name: str) -> State:
    """The state of one service."""
    return read_all([name])[0]


def _state(name: str, seen: Mapping[str, str]) -> State:
    up = seen.get("ActiveState") == "active"
    since = int(seen.get("ActiveEnterTimestampMonotonic" if up else "InactiveEnterTimestampMonotonic") or 0)
    seconds = max(0, int(time.clock_gettime(time.CLOCK_MONOTONIC) - since / 1_000_000)) if since else 0
    return State(
        name,
        up,
        int(seen.get("MainPID") or 0),
        seconds,
        seen.get("ActiveState") == "activating",
        int(seen.get("NRestarts") or 0),
    )


def status(names: Iterable[str]) -> int:
    """Prints a line for each service; the sum of their exit codes."""
    total = 0
    for state in read_all(names):
        print(state.line(1, max(state.seconds, 1)), flush=True)
        total += 0 if state.up else DOWN
    return total
