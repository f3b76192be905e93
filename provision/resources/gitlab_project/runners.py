"""Which runners are to be assigned to a project, and locked to it.  Source: GitLab's REST API, /projects/:id/runners."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from provision.errors import Refused
from provision.gitlab.api import Api
from provision.inventory.nearest import did_you_mean
from provision.resources.base import Call, Change, Json
from provision.resources.gitlab_project.model import WantedProject
from provision.shell import Command, sh

Found = Mapping[str, Any]


def changes(api: Api, wanted: WantedProject, runners: Sequence[Found], names: Sequence[str]) -> Iterator[Change]:
    """What is left to do for each wanted runner. Raises Refused for one that is not there, or that cannot be assigned."""
    for name in wanted.runners:
        found = [one for one in runners if name in (one["id"], one["description"])]
        if not found and name in wanted.registered:
            yield Change(f"assign runner {name} to project {wanted.path}, and lock it", sh(":"), waits_for="register")
        elif not found:
            raise Refused(
                f"project {wanted.path}: no runner in GitLab is called {name!r}{did_you_mean(str(name), names)}",
                hint="name one of [[runners]], the description of one that GitLab knows, or its id",
            )
        own = [one for one in found if one["runner_type"] == "project_type"]
        if found and not own:
            raise Refused(
                f"project {wanted.path}: runner {name} is of {found[0]['runner_type']}: only a project's runner can be "
                "assigned and locked",
                hint='register it with project = "group/name" in [[runners]], or take it out of the project\'s runners',
            )
        for one in own:
            yield from _change(api, wanted, one)


def _change(api: Api, wanted: WantedProject, runner: Found) -> Iterator[Change]:
    called = f"runner {runner['description']} (#{runner['id']})"
    if runner["assigned"] and runner["locked"]:
        return

    def make() -> tuple[Command, Mapping[str, Json]]:
        number = int(runner["id"])
        if not runner["assigned"]:
            # GitLab assigns none that is locked to other projects; another project may have locked it a moment ago.
            if api.get(f"/runners/{number}")["locked"]:
                api.put(f"/runners/{number}", {"locked": False})
            api.post(f"{wanted.address}/runners", {"runner_id": number})
        api.put(f"/runners/{number}", {"locked": True})
        return sh(":"), {}

    if runner["assigned"]:
        yield Change(f"lock {called} to its projects", Call(make, "PUT /runners/:id"))
    else:
        yield Change(
            f"assign {called} to project {wanted.path}, and lock it", Call(make, "POST /projects/:id/runners"), "create"
        )
