"""Which containers a host has, and which of them are ours.  Source: docker-ps(1).

One look tells all that a deployment asks: what decides whether a container is the wanted one is on its labels. They hold
no secret: settings are there as one fingerprint.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from provision.errors import ProbeFailed
from provision.resources.base import Change, Handler, Note, Observation, Probe, Resource, Result
from provision.resources.docker_steps import OURS
from provision.resources.host_files import ASK_STATE, STATE, read_state, settle
from provision.shell import Command, sh
from provision.values import dataclass

APP: Final = "provision.app"
SETTINGS: Final = "provision.settings"
IMAGE: Final = "provision.image"
OLD, NEW = ".provision-old", ".provision-new"  # behind the app's name, while it is replaced
_RECORD: Final = "app "
_FORMAT: Final = "|".join(
    ["{{.Names}}", "{{.State}}", *(f'{{{{.Label "{label}"}}}}' for label in (APP, SETTINGS, IMAGE)), "{{.Image}}"]
)
_ASK: Final = """
command -v docker >/dev/null || { echo 'docker: is not there'; exit; }
timeout 20 docker ps -a --no-trunc --format %s 2>&1 || echo 'docker: does not answer'
"""
_REMOVE: Final = """
app=%s
for one in %s; do
  ! is_ours "$one" || { docker stop -- "$one" && docker rm -f -- "$one"; } >/dev/null || exit 1
done
"""

ASK_CONTAINERS: Final = sh(_ASK, _FORMAT)
# Where no app is wanted, Docker is asked only if there once was one: its CLI takes 30 ms.
ASK_LEFT: Final = sh(f"grep -qF -e %s %s 2>/dev/null || exit 0{_ASK}", f'"{_RECORD}', STATE, _FORMAT)


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
    """Under which name state.json remembers that an app is ours."""
    return f"{_RECORD}{name}"


def debt(name: str) -> Handler:
    """What stands in `pending` while an app is deployed: where that failed, the next run tries again."""
    return Handler(f"deploy-{name}", f"deploy {name}", sh(":"))


def remove(names: list[str], app: str) -> Command:
    """Stops and removes containers, if they are this app's; nothing is owed for it any more."""
    removal = sh(_REMOVE, app, names)
    return Command(f"{OURS}{removal.script}{settle(debt(app))}")


@dataclass(frozen=True)
class DroppedApps(Resource):
    """Containers of apps that we deployed once and that are wanted no more are removed; other people's never."""

    wanted: tuple[str, ...]

    @property
    def label(self) -> str:
        return "DroppedApps"

    def probe(self) -> Probe:
        return Probe({"containers": ASK_CONTAINERS if self.wanted else ASK_LEFT, "state": ASK_STATE})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        known = [key.removeprefix(_RECORD) for key in read_state(seen["state"].text) if key.startswith(_RECORD)]
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
                remember={record(name): None},
                leaves=bool(ours),
            )
