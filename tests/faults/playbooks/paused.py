"""Shipped tasks with a pause between them, at which a test holds a run."""
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
    """Waits at the FIFO /run/gate, where a test has created one."""

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
    """Wait at the gate."""
    yield Gate()


@task(on="all")
def greet(host: Host) -> Iterator[Resource]:
    """Write the greeting that users see, with the requested number of lines."""
    yield File("/etc/greeting", os.environ["GREETING"] * int(os.environ.get("TIMES", "1")))


@task(on="runners")
def mirror(host: Host) -> Iterator[Resource]:
    """Another file that needs a restart of Docker."""
    restart = {one for resource in docker.resources(host) for one in resource.handlers}
    yield File("/etc/docker/mirror", "none\n", notify=tuple(restart))


@task(on="all")
def crash(host: Host) -> Iterator[Resource]:
    """Fail with an exception that has a secret at hand."""
    password = Secret(os.environ["CANARY"])
    text = password.reveal()
    raise RuntimeError(f"cannot use {text}")
    yield File("/etc/never", text)


PLAYS = [
    play("gitlab", gitlab, hold, registry),
    play("runners", docker, hold, mirror),
]
