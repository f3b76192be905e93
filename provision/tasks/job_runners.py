"""Which runners of the inventory take a pipeline's jobs, and whether they can.

Sources: docs.gitlab.com/ci/docker/using_docker_build (what each way of building needs in config.toml).
"""

from __future__ import annotations

from collections.abc import Sequence

from provision.errors import UsageError
from provision.inventory.tables.projects import Pipeline
from provision.inventory.tables.runners import Runner

_SOCKET = "/var/run/docker.sock"
_CERTS = "/certs/client"
_NEEDS = {
    "dind": f'[runners.docker] with privileged = true and volumes = ["{_CERTS}", "/cache"]',
    "dind-without-tls": "[runners.docker] with privileged = true",
    "socket": f'[runners.docker] with volumes = ["{_SOCKET}:{_SOCKET}", "/cache"]',
}


def of(runners: Sequence[Runner], names: Sequence[str | int]) -> list[Runner]:
    """Those of the inventory that a project names; all where it names none."""
    return [one for one in runners if not names or one.name in names]


def tags(wanted: Pipeline, runners: Sequence[Runner]) -> tuple[str, ...]:
    """The tags that its jobs carry: the given ones, else those that the runners ask for."""
    if wanted.tags is not None:
        return wanted.tags
    if not runners or any(_takes_untagged(one) for one in runners):
        return ()
    return tuple(tag for tag in runners[0].tags if all(tag in one.tags for one in runners))


def check(what: str, wanted: Pipeline, runners: Sequence[Runner], *, named: bool) -> None:
    """Raises UsageError where the jobs' runners cannot build as wanted. named: the project names them, so all must fit."""
    given = wanted.tags
    taking = [
        one for one in runners if given is None or (set(given) <= set(one.tags) if given else _takes_untagged(one))
    ]
    if runners and not taking and named:
        listed = ", ".join(one.name for one in runners)
        raise UsageError(
            f"{what}.tags: no runner of the project takes jobs with tags {list(given or ())}: {listed}",
            hint="name tags that one of them has, or leave tags out",
        )
    unfit = [(one.name, reason) for one in taking if (reason := _misfit(one, wanted.build))]
    if unfit and (named or len(unfit) == len(taking)):
        reasons = "; ".join(f"{name} {reason}" for name, reason in unfit)
        raise UsageError(
            f'{what}: build = "{wanted.build}" does not fit the [[runners]] of the inventory: {reasons}',
            hint=f"give the runner {_NEEDS[wanted.build]}, or choose another build",
        )


def _takes_untagged(one: Runner) -> bool:
    return not one.tags if one.run_untagged is None else one.run_untagged


def _misfit(one: Runner, build: str) -> str:
    """Why a runner cannot build so; "" where it can, or where that cannot be told (kubernetes)."""
    if one.executor == "kubernetes":
        return ""
    if not one.executor.startswith("docker"):
        return f"has the executor {one.executor}, not docker"
    docker = one.docker or {}
    places = [str(volume) for volume in docker.get("volumes", ())]
    if build == "socket":
        mounted = any(volume.split(":")[1:2] == [_SOCKET] for volume in places)
        return "" if mounted else f"does not mount {_SOCKET}"
    if not (docker.get("privileged") or docker.get("services_privileged")):
        return "is not privileged"
    shared = any(_CERTS in volume.split(":")[:2] for volume in places)
    return "" if build != "dind" or shared else f"does not share the volume {_CERTS}"
