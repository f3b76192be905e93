"""For tests of tasks on real hosts: runs with their events, and the state of a host afterwards."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from provision_lab.harness import Harness
from provision_lab.run import LabError

Tables = Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """A finished run: its exit code, its events and its stderr."""

    code: int
    events: tuple[dict[str, Any], ...]
    stderr: str

    @property
    def summary(self) -> dict[str, Any]:
        """The last event."""
        return self.events[-1]

    @property
    def errors(self) -> str:
        """All errors with their hints, one a line."""
        return "\n".join(f"{one['error']}: {one['text']} → {one['hint']}" for one in self.of("error"))

    def of(self, kind: str, /, **fields: str) -> list[dict[str, Any]]:
        """The events of a kind (change, task, message, error) with these fields."""
        return [one for one in self.events if one["type"] == kind and fields.items() <= one.items()]

    def changes(self, **fields: str) -> list[str]:
        """The summaries of the changes, applied or planned."""
        return [one["summary"] for one in self.of("change", **fields)]

    def messages(self) -> str:
        """All notes, one a line."""
        return "\n".join(one["text"] for one in self.of("message"))

    def statuses(self, host: str) -> dict[str, str]:
        """The status of each task on a host."""
        return {one["task"]: one["status"] for one in self.of("task", host=host)}


def provision(
    harness: Harness, *arguments: str, changes: Tables | None = None, env: Mapping[str, str] | None = None
) -> Outcome:
    """Runs the program with `--json`, whatever the exit code."""
    done = harness.run(*arguments, "--json", changes=changes, env=env)
    return Outcome(done.returncode, tuple(json.loads(line) for line in done.stdout.splitlines()), done.stderr)


def applied(harness: Harness, *arguments: str, changes: Tables | None = None) -> Outcome:
    """A run that must succeed."""
    outcome = provision(harness, *arguments, changes=changes)
    assert outcome.code == 0, f"{outcome.errors}\n{outcome.stderr}"
    return outcome


def unchanged(harness: Harness, *arguments: str, changes: Tables | None = None) -> Outcome:
    """A run that must find nothing to change."""
    outcome = applied(harness, *arguments, changes=changes)
    assert outcome.changes() == [], outcome.events
    assert outcome.summary["changed"] == 0
    return outcome


def twice(harness: Harness, *arguments: str, changes: Tables | None = None) -> Outcome:
    """A run that must change something, followed by one that must change nothing; returns the first."""
    outcome = applied(harness, *arguments, changes=changes)
    assert outcome.changes(), outcome.events
    unchanged(harness, *arguments, changes=changes)
    return outcome


def refused(harness: Harness, *arguments: str, changes: Tables | None = None) -> Outcome:
    """A run that must fail on a host (exit code 1)."""
    outcome = provision(harness, *arguments, changes=changes)
    assert outcome.code == 1, outcome.events or outcome.stderr
    return outcome


def without_s3(harness: Harness) -> Harness:
    """The harness with images on the GitLab host's disk instead of S3."""
    del harness.inventory["registry"]["s3"]
    return harness


def without_registry(harness: Harness) -> Harness:
    """The harness with GitLab only."""
    del harness.inventory["registry"]
    return harness


@contextmanager
def untouched(harness: Harness, host: str, *paths: str) -> Iterator[None]:
    """Asserts that the block leaves these files and folders unchanged: names, owners, modes, times, bytes."""
    places = " ".join(paths)
    # The lock says who holds the host now; a folder's own time says no more than the names in it.
    script = f"""
    find {places} -not -path /var/lib/provision/lock \\( -type d -printf '%p %M %u:%g\\n' -o -printf '%p %M %u:%g %T@ %l\\n' \\) 2>/dev/null
    find {places} -type f -not -path /var/lib/provision/lock -exec sha256sum {{}} + 2>/dev/null
    true
    """
    before = set(harness.lab.inside(host, script).splitlines())
    assert before
    yield
    different = sorted(set(harness.lab.inside(host, script).splitlines()) ^ before)
    assert different == [], different


@contextmanager
def running(argv: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that reads nothing and prints text. If the block fails, it is killed: `Popen` alone waits for its end."""
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, text=True, **options) as run:
        try:
            yield run
        except BaseException:
            run.kill()
            raise


def succeeds(harness: Harness, host: str, script: str) -> bool:
    """Whether a script succeeds as root on the host."""
    try:
        harness.lab.inside(host, script)
    except LabError:
        return False
    return True


def reconfigures(harness: Harness, host: str = "gitlab") -> int:
    """How often GitLab was reconfigured: each run leaves a log."""
    return len(list((harness.lab.machine(host).root / "var/log/gitlab/reconfigure").glob("*.log")))


def strays(harness: Harness, host: str) -> list[str]:
    """Files and processes of ours on the host that a finished run must not leave."""
    look = """
    find / /run /tmp /var/tmp /dev/shm /etc -xdev \\( -path /var/lib/provision -o -path /usr -o -path /opt -o -path /run/host \
      -o -path /var/lib/docker -o -path /var/lib/containerd \\) -prune -o \\( -name '*provision*' -o -name '.docker' -o -name '*.new' \\) \
      -not -path '/etc/ssl/certs/provision-registry*.pem' -print
    find /var/lib/provision -mindepth 1 -maxdepth 1 -not -name state.json -not -name backup -not -name lock
    ps -eo args | grep -F /var/lib/provision | grep -vF grep
    true
    """
    return harness.lab.inside(host, look).splitlines()
