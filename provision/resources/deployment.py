"""An app's container runs, of the image that its tag stands for, with the settings of the inventory.  Source: docker-run(1).

In a run of which nothing is known to have changed, the container's labels are believed: its settings' fingerprint, and the
digest that was pulled. Named `deploy`, or after something changed in the run, the registry is asked what the tag stands for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Final

from provision.errors import Refused
from provision.inventory.models.apps import PublishedPort
from provision.inventory.models.reference import Reference
from provision.resources.base import Change, Note, Observation, Probe, Resource
from provision.resources.containers import ASK_CONTAINERS, NEW, OLD, debt, read_containers, record
from provision.resources.deploy_script import DEPLOY
from provision.resources.host_files import ASK_PENDING, journal, read_pending, settle
from provision.resources.registry_digest import DIGEST_OF, Registry
from provision.secret import Secret, reveal
from provision.shell import Command, sh
from provision.values import dataclass

_ASK_REGISTRY: Final = DIGEST_OF + 'IFS= read -r password; digest_of %s %s %s %s "$password"'
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
    """`options` are Docker's own for `docker create`, without secrets. `always` asks the registry about the tag."""

    name: str
    image: Reference
    registry: Registry
    options: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: tuple[tuple[str, str | Secret], ...] = ()
    ports: tuple[PublishedPort, ...] = ()
    trial: Trial = Trial()
    pull: bool = True
    always: bool = False

    @property
    def label(self) -> str:
        return f"App {self.name}"

    def probe(self) -> Probe:
        questions = Probe({"containers": ASK_CONTAINERS, "pending": ASK_PENDING})
        if not self.pull:
            questions["image"] = sh(_ASK_HERE, str(self.image))
        elif self.always and not self.image.digest:
            tag = self.image.tag or "latest"
            ask = sh(_ASK_REGISTRY, self.registry.url, self.image.path, tag, self.registry.user)
            questions["image"] = ask.reading(self.registry.password.reveal() + "\n")
        return questions

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
        elif found.settings != self._print:
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
            yield Change(f"ask the registry for {self.image}", say, "run", leaves=False)

    @property
    def _print(self) -> str:
        """A name for the settings. Whoever may read it on the container may read its variables there, too."""
        parts = [
            str(self.image),
            self.options,
            self.command,
            [(name, reveal(value)) for name, value in self.environment],
        ]
        return hashlib.sha256(b"app settings\0" + json.dumps(parts).encode()).hexdigest()[:32]

    def _change(self, summary: str, waits_for: str = "") -> Change:
        return Change(
            summary,
            self._script(),
            "create" if summary.startswith("deploy") else "update",
            remember={record(self.name): {"image": str(self.image)}},
            deadline=1800 + self.trial.seconds,
            waits_for=waits_for,
        )

    def _script(self) -> Command:
        ports = " ".join(f"{one.address}|{one.host}|{one.protocol}" for one in self.ports)
        trial = self.trial
        command = sh(
            DEPLOY,
            self.name,
            str(self.image),
            "yes" if self.pull else "no",
            self.image.domain,
            self.registry.user,
            self._print,
            ports,
            trial.url,
            trial.status,
            trial.contains,
            trial.seconds,
            self.options,
            self.command,
            trial.command,
        )
        lines = [self.registry.password.reveal(), *(f"{name}={reveal(value)}" for name, value in self.environment)]
        owed = debt(self.name)
        command = Command(f"(\n{journal((owed,))}\n) </dev/null\nsettled() {{\n{settle(owed)}\n}}\n{command.script}")
        return command.reading("".join(f"{line}\n" for line in lines))
