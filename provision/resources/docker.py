"""Docker's daemon: its settings, the restart or reload that follows, and the distribution's own packages.

Source: dockerd(8), on daemon.json. Other tasks and people may set keys of the same file: only ours are written and removed.

`dockerd --validate` does not find every mistake (a log driver that does not exist), and Docker 20.10 does not have it.
When Docker does not start with the new file, the restart restores the previous one: that of before the first change whose
restart has not succeeded yet.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from provision.editing.json import diff, edit
from provision.host.docker import CI_JOBS_LIMIT_SECONDS, between_ci_jobs
from provision.host.files import HOME, replace
from provision.host.pending import PENDING, Handler
from provision.host.releases import ASK_PACKAGES, ASK_SYSTEM, distribution_docker, read_packages, read_system
from provision.host.scripts import script
from provision.host.state import strings
from provision.resources.base import Action, Change, Note, Observation, Probe, Resource, record_only
from provision.resources.system.file import ask_file, read_file
from provision.resources.system.packages import Packages
from provision.secret import revealed
from provision.shell import sh

DAEMON_JSON: Final = "/etc/docker/daemon.json"
ROLLBACK: Final = f"{HOME}/rollback/daemon.json"

# The keys that dockerd reads again on SIGHUP. Source: dockerd(8), "configuration reload behavior". `features` is not
# listed: a change of containerd-snapshotter takes effect only after a restart (Docker 26.1).
RELOADED: Final = frozenset(
    {
        *("debug", "labels", "live-restore", "registry-mirrors", "insecure-registries", "shutdown-timeout"),
        *("max-concurrent-downloads", "max-concurrent-uploads", "max-download-attempts"),
        *("runtimes", "default-runtime"),
    }
)
RELOAD: Final = Handler(
    "reload-docker", "reload docker", sh("systemctl reload docker && docker version >/dev/null"), deadline=60
)
_ENGINE = "docker.io"
_CLIENT = "docker-cli"  # a package of its own, of the same version, in some releases


@dataclass(frozen=True)
class JsonSettings(Resource):
    """Top-level keys of a JSON file have these values. Keys that the task set earlier and no longer wants are removed.

    wanted            keys and their values
    check             shell text that checks the new file, named `$new`
    rollback          path of the copy made before the first change whose handler has not run yet; "": no copy
    reload, reloaded  the handler to notify instead when a change touches only the keys in `reloaded`
    """

    path: str
    wanted: Mapping[str, Any] = field(hash=False)
    check: str = ""
    notify: tuple[Handler, ...] = ()
    rollback: str = ""
    reload: Handler | None = None
    reloaded: frozenset[str] = frozenset()

    @property
    def handlers(self) -> tuple[Handler, ...]:
        return (*self.notify, self.reload) if self.reload else self.notify

    @property
    def record_key(self) -> str:
        return self.path

    def claims(self) -> Mapping[str, Hashable]:
        return {self._claim(key): json.dumps(value, sort_keys=True) for key, value in revealed(self.wanted).items()}

    def probe(self) -> Probe:
        return Probe({"file": ask_file(self.path)})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        found = read_file(self.path, seen, "file")
        ours = set(strings(seen.record))
        others = {key for keys in seen.others.values() for key in strings(keys)}
        if not self.wanted and not ours:
            return
        before = found.content or b""
        dropped = {key for key in ours - self.wanted.keys() - others if self._claim(key) not in seen.claimed}
        edited = edit(before, self.wanted, remove=dropped, name=self.path)
        record = sorted(self.wanted) or None
        if not edited.changed:
            # A key that another task recorded, too, stays when that task drops it. A dropped key is no longer ours.
            if ours - self.wanted.keys() or (others & self.wanted.keys()) - ours:
                yield record_only(f"this task's keys of {self.path}", record)
            return
        notify = (self.reload,) if self.reload and edited.changed <= self.reloaded else self.notify
        rollback = self.rollback if notify == self.notify else ""
        write = replace(
            self.path, edited.content, mode="0644", owner="root:root", check=self.check, keep=True, rollback=rollback
        )
        action: Action = "create" if found.content is None else "update"
        text = diff(before, edited.content, self.path)
        yield Change(f"{action} {self.path}", write, action, text, notify, record=record)

    def _claim(self, key: str) -> str:
        return f"{self.path} {key}"


def restart(*, now: bool = False) -> Handler:
    """Restarts Docker, which ends all containers. Unless `now`, the handler first waits until no CI job runs."""
    run = script("restart_docker", DAEMON_JSON, ROLLBACK, PENDING)
    return Handler(
        "restart-docker",
        "restart docker",
        run if now else between_ci_jobs(run),
        deadline=300.0 + (0 if now else CI_JOBS_LIMIT_SECONDS),
        rolls_back=True,
    )


@dataclass(frozen=True)
class DistributionDocker(Packages):
    """docker.io from the distribution, with Docker's client, buildx and Compose under the names that its release gives them.

    Of a host that has docker.io, the missing ones are added, and docker.io is not upgraded for that. Raises Refused on a
    release that is too old.
    """

    def probe(self) -> Probe:
        return Probe({Probe.ONLY: ASK_PACKAGES, "system": ASK_SYSTEM})

    def refuse_early(self, seen: Observation) -> None:
        self._packages(seen)

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        packages, note = self._packages(seen)
        if note:
            yield Note(note)
        yield from packages.plan(seen)

    def _packages(self, seen: Observation) -> tuple[Packages, str]:
        installed = _ENGINE in read_packages(seen.only)
        names, note = distribution_docker(read_system(seen["system"]), installed=installed)
        given = {one.name: getattr(self, one.name) for one in fields(Packages)}
        versioned = tuple(name for name in names if name in (_ENGINE, _CLIENT))
        return Packages(**{**given, "names": names, "versioned": versioned}), note
