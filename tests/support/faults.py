"""For tests of faults: a run that is watched while it goes on, a FIFO that pauses a run, the state of a host."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from provision_lab.harness import PROVISION, Harness
from tests.support.runs import Outcome, provision, succeeds
from tests.support.waiting import wait_for

PLAYBOOKS = Path(__file__).resolve().parents[1] / "faults" / "playbooks"
GATE = "/run/gate"
GREETING = "/etc/greeting"
DPKG_LOCK = "/var/lib/dpkg/lock-frontend"
# Locks as dpkg does, under the name of who holds it on most hosts; until its standard input ends.
_HOLD = """
import fcntl, sys
with open(sys.argv[1], "w") as lock, open("/proc/self/comm", "w") as name:
    name.write("unattended-upgr")
    name.flush()
    fcntl.lockf(lock, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""


def with_playbooks(harness: Harness) -> Harness:
    """Copies the test playbooks beside the inventory; the same harness."""
    shutil.copytree(PLAYBOOKS, harness.folder / "playbooks", ignore=shutil.ignore_patterns("__pycache__"))
    return harness


def greeters(harness: Harness) -> Harness:
    """The same with an inventory of hosts only, each of which has its greeting already."""
    for unused in ("gitlab", "registry", "runners", "docker", "apt", "runner"):
        del harness.inventory[unused]
    assert provision(with_playbooks(harness), "greet", env={"GREETING": "hello\n"}).code == 0
    return harness


# A run that kills itself when it has printed a change, or a message with this text.
_KILLED = """
import json, os, signal, sys
from provision.cli import main

news, real = sys.argv.pop(1), sys.stdout

class Fatal:
    def __getattr__(self, name):
        return getattr(real, name)

    def write(self, line):
        real.write(line)
        real.flush()
        event = json.loads(line)
        if event["type"] == "change" and not news or event["type"] == "message" and news and news in event["text"]:
            os.kill(os.getpid(), signal.SIGKILL)

sys.stdout = Fatal()
main()
"""


def killed_run(harness: Harness, *arguments: str, news: str = "") -> list[dict[str, Any]]:
    """The events of a run that is killed by SIGKILL at its first change, or at a message with `news`, and no later."""
    argv = [sys.executable, "-c", _KILLED, news, *arguments, "--json", "-i", str(harness.write())]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, f"{news}: it ended by itself\n{done.stdout}\n{done.stderr}"
    return [json.loads(line) for line in done.stdout.splitlines()]


@contextmanager
def dpkg_held(harness: Harness, host: str) -> Iterator[None]:
    """Holds dpkg's lock on the host, as unattended-upgrades does for minutes."""
    leader = harness.lab.machine(host).leader
    argv = ["nsenter", "-t", str(leader), "-p", sys.executable, "-c", _HOLD, f"/proc/{leader}/root{DPKG_LOCK}"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield


class Live:
    """A run with `--json` whose events the test reads while it goes on."""

    def __init__(
        self,
        harness: Harness,
        *arguments: str,
        changes: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        argv = [*PROVISION, *arguments, "--json", "-i", str(harness.write(changes))]
        self.events: list[dict[str, Any]] = []
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115  as long as the run
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env={**os.environ, **(env or {})},
        )

    def until(self, kind: str, /, **fields: str) -> dict[str, Any]:
        """Waits for an event of that kind with these fields. Fails when the run ends without it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))
            if self.events[-1]["type"] == kind and fields.items() <= self.events[-1].items():
                return self.events[-1]
        raise AssertionError(f"no {kind} with {fields}: {self.events}\n{self.stderr}")

    def send(self, signal: int) -> None:
        """Sends a signal to the process."""
        self.process.send_signal(signal)

    def kill(self) -> None:
        """Kills the process with SIGKILL."""
        self.process.kill()
        self.process.wait()

    def end(self) -> Outcome:
        """Waits for the end and returns the whole run."""
        assert self.process.stdout is not None
        self.events += [json.loads(line) for line in self.process.stdout]
        return Outcome(self.process.wait(), tuple(self.events), self.stderr)

    @property
    def stderr(self) -> str:
        """What the run has printed on stderr so far."""
        self._stderr.seek(0)
        return self._stderr.read()


class Gate:
    """Pauses the runs of the task `hold` on a host until `open`."""

    def __init__(self, harness: Harness, host: str) -> None:
        self._path = f"/proc/{harness.lab.machine(host).leader}/root{GATE}"
        self._writer: int | None = None
        Path(self._path).unlink(missing_ok=True)
        os.mkfifo(self._path)

    def wait(self) -> None:
        """Waits until a run is paused here."""
        wait_for(self._someone, "a run at the gate", 60)

    def open(self) -> None:
        """Lets the run continue."""
        self.wait()
        assert self._writer is not None
        os.write(self._writer, b"go\n")
        os.close(self._writer)
        self._writer = None

    def _someone(self) -> bool:
        if self._writer is None:
            try:
                self._writer = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:  # nobody reads yet
                return False
        return True


def wait_until_free(harness: Harness, host: str) -> None:
    """Waits until no run holds the host's lock."""
    wait_for(lambda: succeeds(harness, host, "flock -n /var/lib/provision true"), f"{host} is free", 30)


def pending(harness: Harness, host: str) -> list[str]:
    """The names of the pending handlers of a host."""
    text = harness.lab.inside(host, "cat /var/lib/provision/pending 2>/dev/null || true")
    return [line.partition("\t")[0] for line in text.splitlines()]


def fact(harness: Harness, host: str, script: str) -> str:
    """The output of a script on a host, without the last line break."""
    return harness.lab.inside(host, script).rstrip("\n")


def gitlab_settings(**changes: Any) -> Mapping[str, Any]:
    """What makes the inventory ask for other settings of gitlab.rb."""
    return {"gitlab": {"settings": changes}}


def zone(name: str) -> Mapping[str, Any]:
    """What makes the inventory ask for another time zone: one edit of gitlab.rb, which needs a reconfigure."""
    return gitlab_settings(gitlab_rails={"time_zone": name})


def zone_in_force(harness: Harness) -> str:
    """The time zone in gitlab.rb."""
    return fact(harness, "gitlab", "sed -n \"s/^gitlab_rails.'time_zone'. = //p\" /etc/gitlab/gitlab.rb").strip("\"'")


@contextmanager
def on_host(harness: Harness, host: str, before: str, after: str) -> Iterator[None]:
    """Breaks something on a host with one script, and fixes it with another."""
    harness.lab.inside(host, before)
    try:
        yield
    finally:
        harness.lab.inside(host, after)
