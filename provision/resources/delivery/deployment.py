"""Which containers a host has, and which of them are ours.  Source: docker-ps(1).

One look tells all that a deployment asks: what decides whether a container is the wanted one is on its labels. They hold
no secret: settings are there as one fingerprint.

An app's container runs, of the image that its tag stands for, with the settings of the inventory.  Source: docker-run(1).

In a run of which nothing is known to have changed, the container's labels are believed: its settings' fingerprint, and the
digest that was pulled. Named `deploy`, or after something changed in the run, the registry is asked what the tag stands for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from provision.errors import ProbeFailed, Refused
from provision.host.docker import Registry
from provision.host.pending import ASK_PENDING, PENDING, Handler, read_pending
from provision.host.scripts import script
from provision.host.state import if_recorded
from provision.image_name import Reference
from provision.inventory.tables.apps import PublishedPort
from provision.resources.base import Change, Note, Observation, Probe, Resource
from provision.secret import Secret, reveal
from provision.shell import Command, Result, sh

APP: Final = "provision.app"
SETTINGS: Final = "provision.settings"
IMAGE: Final = "provision.image"
OLD, NEW = ".provision-old", ".provision-new"  # behind the app's name, while it is replaced
_RECORD: Final = "app "
_FORMAT: Final = "|".join(
    ["{{.Names}}", "{{.State}}", *(f'{{{{.Label "{label}"}}}}' for label in (APP, SETTINGS, IMAGE)), "{{.Image}}"]
)
ASK_CONTAINERS: Final = script("list_containers", _FORMAT)
# Where no app is wanted, Docker is asked only if there once was one: its CLI takes 30 ms.
ASK_LEFT: Final = if_recorded(f'"{_RECORD}', ASK_CONTAINERS)


@dataclass(frozen=True)
class Container:
    """One container; `app` is "" for other people's."""

    name: str
    state: str
    app: str
    settings: str
    digest: str
    image: str


def read_containers(seen: Result) -> dict[str, Container] | None:
    """The containers by name; None while there is no Docker that answers."""
    lines = seen.text.splitlines()
    if any(line.startswith("docker: ") for line in lines):
        return None
    found = {}
    for line in lines:
        fields = line.split("|")
        if len(fields) < 6:
            raise ProbeFailed(f"docker ps said: {line[:200]}", hint="try it on the host: docker ps -a")
        # Links of old give a container further names, with a slash.
        name = next((one for one in fields[0].split(",") if "/" not in one), fields[0])
        found[name] = Container(name, *fields[1:6])
    return found


def record(name: str) -> str:
    """The record key that marks an app as ours."""
    return f"{_RECORD}{name}"


def debt(name: str) -> Handler:
    """What stands in `pending` while an app is deployed: where that failed, the next run tries again."""
    return Handler(f"deploy-{name}", f"deploy {name}", sh(":"))


def remove(names: list[str], app: str) -> Command:
    """Stops and removes containers, if they are this app's; nothing is owed for it any more."""
    return script("remove_app", app, PENDING, names)


@dataclass(frozen=True)
class DroppedApps(Resource):
    """Containers of apps that we deployed once and that are wanted no more are removed; other people's never."""

    wanted: tuple[str, ...]

    @property
    def label(self) -> str:
        return "DroppedApps"

    def probe(self) -> Probe:
        return Probe({"containers": ASK_CONTAINERS if self.wanted else ASK_LEFT})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        known = [key.removeprefix(_RECORD) for key in seen.records if key.startswith(_RECORD)]
        dropped = [name for name in known if name not in self.wanted]
        there = read_containers(seen["containers"]) if dropped else {}
        if there is None:
            yield Note(f"{', '.join(dropped)}: no longer in the inventory, and Docker does not answer")
            return
        for name in dropped:
            ours = [one for one in (name, name + OLD, name + NEW) if one in there and there[one].app == name]
            yield Change(
                f"remove {name}: it is no longer in the inventory" if ours else f"forget {name}, which is gone",
                remove(ours, name),
                "delete",
                records={record(name): None},
                verification=not ours,
                id=f"remove {name}",
            )


_ASK_HERE: Final = "command -v docker >/dev/null || exit 0; timeout 20 docker image inspect -f '{{.Id}}' %s 2>/dev/null"


@dataclass(frozen=True)
class Trial:
    """What must be so after the start: `url` is asked on the host, or `command` is run in the container. Neither: it runs."""

    url: str = ""
    status: int = 200
    contains: str = ""
    command: tuple[str, ...] = ()
    seconds: int = 30


@dataclass(frozen=True)
class Deployment(Resource):
    """`options` are Docker's own for `docker create`, without secrets. When a verification is due, the registry is asked about the tag."""

    name: str
    image: Reference
    registry: Registry
    options: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: tuple[tuple[str, str | Secret], ...] = ()
    ports: tuple[PublishedPort, ...] = ()
    trial: Trial = Trial()
    pull: bool = True

    @property
    def label(self) -> str:
        return f"App {self.name}"

    @property
    def record_key(self) -> str:
        return record(self.name)

    def probe(self) -> Probe:
        questions = {"containers": ASK_CONTAINERS, "pending": ASK_PENDING}
        if not self.pull:
            return Probe({**questions, "image": sh(_ASK_HERE, str(self.image))})
        if self.image.digest:
            return Probe(questions)
        tag = self.image.tag or "latest"
        ask = script("find_digest", self.registry.url, self.image.path, tag, self.registry.user)
        return Probe(questions, when_due={"image": ask.reading(self.registry.password.reveal() + "\n")})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        there = read_containers(seen["containers"])
        if there is None:
            yield self._change(f"deploy {self.name}: {self.image}", "docker")
            return
        found = there.get(self.name)
        if found is not None and found.app != self.name:
            raise Refused(
                f"a container called {self.name} is there, of {found.image}, and it is not ours",
                hint="remove or rename it, or give the app another name",
            )
        answer = seen["image"].text.strip() if "image" in seen else ""
        if not self.pull and not answer:
            yield self._change(f"deploy {self.name}: {self.image}", "image")
        elif self.name + OLD in there or self.name + NEW in there:
            yield self._change(f"deploy {self.name}: {self.image}, which was interrupted before")
        elif found is None:
            yield self._change(f"deploy {self.name}: {self.image}")
        elif found.settings != self.fingerprint:
            yield self._change(f"replace {self.name}: its settings differ")
        elif answer.startswith("sha256:") and answer != found.digest:
            yield self._change(f"replace {self.name}: another image stands under {self.image}")
        elif debt(self.name).name in read_pending(seen["pending"].text):
            yield self._change(f"deploy {self.name}: {self.image}, which failed before")
        elif found.state != "running":
            yield self._change(f"start {self.name}, which is {found.state}")
        elif answer == "absent":
            yield Note(f"{self.name} runs, and its registry has no {self.image} any more")
        elif answer.startswith("? "):
            say = sh("printf '%%s\\n' %s >&2; exit 1", f"{self.image.domain}: {answer[2:]}")
            yield Change(f"ask the registry for {self.image}", say, "run", verification=True)

    @property
    def fingerprint(self) -> str:
        """A name for the settings. Whoever may read it on the container may read its variables there, too."""
        parts = [
            str(self.image),
            self.options,
            self.command,
            [(name, reveal(value)) for name, value in self.environment],
        ]
        return hashlib.sha256(b"app settings\0" + json.dumps(parts).encode()).hexdigest()[:32]

    def _change(self, summary: str, requires: str = "") -> Change:
        return Change(
            summary,
            self._script(),
            "create" if summary.startswith("deploy") else "update",
            record={"image": str(self.image)},
            deadline=1800 + self.trial.seconds,
            requires=requires,
        )

    def _script(self) -> Command:
        ports = " ".join(f"{one.address}|{one.host}|{one.protocol}" for one in self.ports)
        trial = self.trial
        command = script(
            "deploy_app",
            self.name,
            str(self.image),
            "yes" if self.pull else "no",
            self.image.domain,
            self.registry.user,
            self.fingerprint,
            ports,
            trial.url,
            trial.status,
            trial.contains,
            trial.seconds,
            sh("%s", trial.command).script,
            PENDING,
            self.options,
            str(self.image),
            self.command,
        )
        lines = [self.registry.password.reveal(), *(f"{name}={reveal(value)}" for name, value in self.environment)]
        return command.reading("".join(f"{line}\n" for line in lines))
