"""Shipped tasks with a gate between them, at which a test holds a run."""
# ruff: noqa: ARG001  every task is given its host

import os
from collections.abc import Iterator
from dataclasses import dataclass

from provision.resources import Change, File, Note, Observation, Probe, Resource
from provision.secret import Secret
from provision.shell import sh
from provision.tasks import Host, docker, gitlab, play, registry, task


@dataclass(frozen=True)
class Gate(Resource):
    """The FIFO /run/gate, where a test made one, has let us through."""

    @property
    def label(self) -> str:
        return "Gate"

    def probe(self) -> Probe:
        return Probe.of(sh("test ! -p /run/gate || echo shut"))

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        if seen.text.strip() == "shut":
            yield Change("pass the gate", sh("read -r word < /run/gate; rm -f /run/gate; echo through > /run/passed"))


@task(on="all")
def hold(host: Host) -> Iterator[Resource]:
    """Whoever comes waits at the gate."""
    yield Gate()


@task(on="all")
def greet(host: Host) -> Iterator[Resource]:
    """Who logs in is greeted, in as many lines as are asked for."""
    yield File("/etc/greeting", os.environ["GREETING"] * int(os.environ.get("TIMES", "1")))


@task(on="runners")
def mirror(host: Host) -> Iterator[Resource]:
    """Something more that Docker must be restarted for."""
    restart = {one for resource in docker.resources(host) for one in resource.handlers}
    yield File("/etc/docker/mirror", "none\n", notify=tuple(restart))


@task(on="all")
def crash(host: Host) -> Iterator[Resource]:
    """A fault of the program itself, with a secret at hand."""
    password = Secret(os.environ["CANARY"])
    text = password.reveal()
    raise RuntimeError(f"cannot use {text}")
    yield File("/etc/never", text)


PLAYS = [
    play("gitlab", gitlab, hold, registry),
    play("runners", docker, hold, mirror),
]
