"""Our keys in a JSON file that others may write too.  Source: dockerd(8) on daemon.json.

Keys that we set converge; keys that we once set and dropped go (state.json knows them); those of others stay.

Docker's restart, as owed work that takes itself back.

`dockerd --validate` does not find everything (a log driver that does not exist), and 20.10 has no such check. When
Docker does not come up with the new daemon.json, the one of before the first unpaid edit is put back.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from provision.editing.json import diff, edit
from provision.host.ci_jobs import LIMIT_SECONDS, wait_for_jobs
from provision.host.files import HOME, replace
from provision.host.pending import PENDING, Handler
from provision.host.scripts import script
from provision.resources.base import Change, Note, Observation, Probe, Resource, record_only
from provision.resources.system.file import ask_file, read_file
from provision.secret import revealed
from provision.shell import Command, sh


@dataclass(frozen=True)
class JsonSettings(Resource):
    """The top-level keys of `wanted` stand in the file with these values.

    reload, reloaded  work that a change owes instead when it touches nothing but the keys in `reloaded`
    aside  where the file is kept until its changes are paid for (`aside`.none: there was no file), "" for nowhere
    """

    path: str
    wanted: Mapping[str, Any] = field(hash=False)
    check: str = ""
    notify: tuple[Handler, ...] = ()
    aside: str = ""
    reload: Handler | None = None
    reloaded: frozenset[str] = frozenset()

    @property
    def handlers(self) -> tuple[Handler, ...]:
        return (*self.notify, self.reload) if self.reload else self.notify

    @property
    def label(self) -> str:
        return f"JsonSettings {self.path}"

    @property
    def record_key(self) -> str:
        return self.path

    def claims(self) -> Mapping[str, Hashable]:
        return {self._claim(key): json.dumps(value, sort_keys=True) for key, value in revealed(self.wanted).items()}

    def probe(self) -> Probe:
        return Probe({"file": ask_file(self.path)})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        found = read_file(self.path, seen, "file")
        ours = set(seen.record or ())
        others = {key for keys in seen.others.values() for key in keys}
        if not self.wanted and not ours:
            return
        before = found.content or b""
        dropped = {key for key in ours - self.wanted.keys() - others if self._claim(key) not in seen.claimed}
        edited = edit(before, self.wanted, remove=dropped, name=self.path)
        record = sorted(self.wanted) or None
        if not edited.changed:
            # What another task recorded too stays when that task drops it; what is gone is no longer ours.
            if ours - self.wanted.keys() or (others & self.wanted.keys()) - ours:
                yield record_only(f"this task's keys of {self.path}", record)
            return
        owed = (self.reload,) if self.reload and edited.changed <= self.reloaded else self.notify
        copy = self.aside if owed == self.notify else ""
        yield Change(
            f"{'create' if found.content is None else 'update'} {self.path}",
            replace(
                self.path, edited.content, mode="0644", owner="root:root", check=self.check, keep=True, rollback=copy
            ),
            "create" if found.content is None else "update",
            diff(before, edited.content, self.path),
            owed,
            record=record,
        )

    def _claim(self, key: str) -> str:
        return f"{self.path} {key}"


DAEMON_JSON: Final = "/etc/docker/daemon.json"
ASIDE: Final = f"{HOME}/rollback/daemon.json"

# What dockerd takes over on SIGHUP; all else needs a restart.  Source: dockerd(8), "configuration reload behavior".
RELOADED: Final = frozenset(
    {
        *("debug", "labels", "live-restore", "registry-mirrors", "insecure-registries", "shutdown-timeout"),
        *("max-concurrent-downloads", "max-concurrent-uploads", "max-download-attempts"),
        *("runtimes", "default-runtime", "features"),
    }
)
RELOAD: Final = Handler(
    "reload-docker", "reload docker", sh("systemctl reload docker && docker version >/dev/null"), deadline=60
)


def restart(*, now: bool = False) -> Handler:
    """The restart. Containers end with it, so it waits until no CI job runs on the host, unless it is to be `now`."""
    waiting = "" if now else wait_for_jobs()
    return Handler(
        "restart-docker",
        "restart docker",
        Command(f"{waiting}{script('restart_docker', DAEMON_JSON, ASIDE, PENDING).script}"),
        deadline=300.0 + (0 if now else LIMIT_SECONDS),
        rolls_back=True,
    )
