"""Apps: a container of an image, with settings of the inventory, on each host of the app.  Source: docker-run(1).

A container's labels show whether it is the wanted one: they hold a fingerprint of its settings under a random key of
the host, and the digest of the image that was pulled. When a verification is due, the registry is asked which image the
tag names now; otherwise the labels count.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from provision.errors import Refused
from provision.host.docker import ASK_CONTAINERS, RegistryAccess, read_containers
from provision.host.pending import ASK_PENDING, PENDING, read_pending
from provision.host.scripts import script
from provision.host.state import fingerprint, if_recorded
from provision.image_name import Reference
from provision.inventory.tables.apps import PublishedPort
from provision.resources.base import Change, Note, Observation, Probe, Resource, failed_check
from provision.secret import Secret, reveal
from provision.shell import Command, sh

# Suffixes of container names while an app is replaced.
OLD: Final = ".provision-old"
NEW: Final = ".provision-new"
_RECORD: Final = "app "
# Docker's CLI takes 30 ms: where no app is wanted, it is called only if one was deployed before.
_ASK_DROPPED: Final = if_recorded(f'"{_RECORD}', ASK_CONTAINERS)
_ASK_IMAGE: Final = (
    "command -v docker >/dev/null || exit 0; timeout 20 docker image inspect -f '{{.Id}}' %s 2>/dev/null"
)


@dataclass(frozen=True)
class DroppedApps(Resource):
    """Containers of apps that we deployed and that are no longer wanted are removed. Other containers are not touched."""

    wanted: tuple[str, ...]

    @property
    def label(self) -> str:
        return "DroppedApps"

    def probe(self) -> Probe:
        return Probe({"containers": ASK_CONTAINERS if self.wanted else _ASK_DROPPED})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        recorded = [key.removeprefix(_RECORD) for key in seen.records if key.startswith(_RECORD)]
        dropped = [name for name in recorded if name not in self.wanted]
        containers = read_containers(seen["containers"]) if dropped else {}
        if containers is None:
            yield Note(f"{', '.join(dropped)}: no longer in the inventory, and Docker does not answer")
            return
        for name in dropped:
            ours = [one for one in (name, name + OLD, name + NEW) if one in containers and containers[one].app == name]
            yield Change(
                f"remove {name}: it is no longer in the inventory" if ours else f"forget {name}: its container is gone",
                script("remove_app", name, PENDING, ours),
                "delete",
                records={f"{_RECORD}{name}": None},
                verification=not ours,
                id=f"remove {name}",
            )


@dataclass(frozen=True)
class AppCheck:
    """What must succeed within `seconds` after the start.

    url       is requested on the host; the answer must have `status` and contain the text `contains`
    command   is run in the container
    Without either, the container must run for three seconds.
    """

    url: str = ""
    status: int = 200
    contains: str = ""
    command: tuple[str, ...] = ()
    seconds: int = 30


@dataclass(frozen=True)
class Deployment(Resource):
    """The container `name` runs the image with these settings. A new container that fails its check is rolled back.

    options      arguments of `docker create`, without secrets
    command      the container's command; (): the image's own
    environment  its variables
    ports        the ports among `options`, which must be free
    pull         False: the image is on the host, and no registry is asked
    released_by  the project whose pipeline releases the image, if that is waited for
    held         the projects whose pipeline has not succeeded in this run: containers of their images are unchanged
    """

    name: str
    image: Reference
    registry: RegistryAccess
    options: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: Mapping[str, str | Secret] = field(default_factory=dict, hash=False)
    ports: tuple[PublishedPort, ...] = ()
    check: AppCheck = AppCheck()
    pull: bool = True
    released_by: str = ""
    held: set[str] = field(default_factory=set, compare=False, repr=False)

    @property
    def label(self) -> str:
        return f"App {self.name}"

    @property
    def record_key(self) -> str:
        return f"{_RECORD}{self.name}"

    def probe(self) -> Probe:
        questions = {"containers": ASK_CONTAINERS, "pending": ASK_PENDING}
        if not self.pull:
            return Probe({**questions, "image": sh(_ASK_IMAGE, str(self.image))})
        if self.image.digest:
            return Probe(questions)
        tag = self.image.tag or "latest"
        ask = script("find_digest", self.registry.url, self.image.path, tag, self.registry.user, *self.registry.access)
        return Probe(questions, when_due={"image": ask.reading(self.registry.password.reveal() + "\n")})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        if self.released_by in self.held:
            yield Note(f"{self.name} is unchanged: the pipeline of project {self.released_by} has not succeeded")
            return
        containers = read_containers(seen["containers"])
        if containers is None:
            yield self._change(f"deploy {self.name}: {self.image}", seen, "docker")
            return
        found = containers.get(self.name)
        if found is not None and found.app != self.name:
            raise Refused(
                f"there is another container called {self.name}, of {found.image}",
                hint="remove or rename it, or give the app another name",
            )
        answer = seen["image"].text.strip() if "image" in seen else ""
        if not self.pull and not answer:
            yield self._change(f"deploy {self.name}: {self.image}", seen, "image")
        elif self.name + OLD in containers or self.name + NEW in containers:
            yield self._change(f"deploy {self.name}: {self.image}, after an interrupted deployment", seen)
        elif found is None:
            yield self._change(f"deploy {self.name}: {self.image}", seen)
        elif found.settings == self._hash_of_version_1 and self._has_secrets:
            yield self._change(f"replace {self.name}: its label has a hash of secrets, made without a key", seen)
        elif found.settings not in (self.fingerprint(seen.fingerprint_key), self._hash_of_version_1):
            yield self._change(f"replace {self.name}: its settings differ", seen)
        elif answer.startswith("sha256:") and answer != found.digest:
            yield self._change(f"replace {self.name}: {self.image} names another image now", seen)
        elif f"deploy-{self.name}" in read_pending(seen["pending"].text):
            yield self._change(f"deploy {self.name}: {self.image}, after a failed deployment", seen)
        elif found.state != "running":
            yield self._change(f"start {self.name}: it is {found.state}", seen)
        elif answer == "absent":
            yield Note(f"{self.name} runs, but its registry no longer has {self.image}")
        elif answer.startswith("? "):
            yield failed_check(f"ask the registry for {self.image}", f"{self.image.domain}: {answer[2:]}")

    def fingerprint(self, key: str) -> str:
        """The fingerprint of the settings under a key. From a hash without a key, short secrets could be guessed."""
        return fingerprint(key, self._settings)

    @property
    def _has_secrets(self) -> bool:
        return any(isinstance(value, Secret) for value in self.environment.values())

    @property
    def _settings(self) -> list[Any]:
        environment = [[name, reveal(value)] for name, value in self.environment.items()]
        return [str(self.image), self.options, self.command, environment]

    @property
    def _hash_of_version_1(self) -> str:
        """The label of version 0.1.0. A label cannot be changed: containers without secrets keep it."""
        return hashlib.sha256(b"app settings\0" + json.dumps(self._settings).encode()).hexdigest()[:32]

    def _change(self, summary: str, seen: Observation, requires: str = "") -> Change:
        settings = self.fingerprint(seen.fingerprint_key)
        return Change(
            summary,
            self._deploy(settings),
            "create" if summary.startswith("deploy") else "update",
            record={"image": str(self.image), "settings": settings},  # so that the key is written with it
            deadline=1800 + self.check.seconds,
            requires=requires,
        )

    def _deploy(self, settings: str) -> Command:
        command = script(
            "deploy_app",
            self.name,
            str(self.image),
            "yes" if self.pull else "no",
            self.image.domain,
            self.registry.user,
            settings,
            " ".join(f"{one.address}|{one.host}|{one.protocol}" for one in self.ports),
            self.check.url,
            self.check.status,
            self.check.contains,
            self.check.seconds,
            sh("%s", self.check.command).script,
            PENDING,
            self.options,
            str(self.image),
            self.command,
        )
        variables = (f"{name}={reveal(value)}" for name, value in self.environment.items())
        return command.reading("".join(f"{line}\n" for line in (self.registry.password.reveal(), *variables)))
