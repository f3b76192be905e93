"""What is there in GitLab, as far as it is needed to compare a project with what is wanted."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from provision.errors import ApiFailed
from provision.gitlab.api import Api
from provision.resources.gitlab_project.model import WantedProject


def look(api: Api, wanted: WantedProject, ours: Collection[tuple[str, str]]) -> dict[str, Any]:
    """The project's settings, its variables (wanted ones and ours), and runners of the wanted names.

    Raises ApiFailed; `{}` where there is no such project for this token.
    """
    project = api.find(wanted.address)
    if project is None:
        return {}
    concerned = {(one.key, one.scope) for one in wanted.variables} | set(ours)
    variables = api.list(f"{wanted.address}/variables", {"per_page": 100}) if concerned else []
    return {
        "project": {name: project.get(name) for name, _ in wanted.settings},
        "variables": [one for one in variables if (one["key"], one["environment_scope"]) in concerned],
        **_runners(api, wanted, int(project["id"])),
    }


def _runners(api: Api, wanted: WantedProject, project: int) -> dict[str, Any]:
    if not wanted.runners:
        return {"runners": [], "names": []}
    listed = _all_runners(api)
    chosen = [one for one in listed if one["description"] in wanted.runners or one["id"] in wanted.runners]
    found = []
    for one in sorted(chosen, key=lambda one: int(one["id"])):
        details = api.get(f"/runners/{one['id']}") if one["runner_type"] == "project_type" else one
        assigned = any(other["id"] == project for other in details.get("projects", ()))
        kept = {name: details.get(name) for name in ("id", "description", "runner_type", "locked")}
        found.append({**kept, "assigned": assigned})
    return {"runners": found, "names": sorted({str(one["description"]) for one in listed if one["description"]})}


def _all_runners(api: Api) -> list[dict[str, Any]]:
    """All that the token may see: an administrator's sees all, others' those of their own projects and groups."""
    query = {"per_page": 100}
    try:
        return api.list("/runners/all", query)
    except ApiFailed as error:
        if error.status != 403:
            raise
        return api.list("/runners", query)
