"""The task `project`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from provision.errors import UsageError
from provision.inventory.secrets import SecretSource
from provision.inventory.tables.projects import Project, Variable
from provision.resources import ProjectSettings, Resource, WantedProject, WantedVariable
from provision.tasks import gitlab_api
from provision.tasks.base import Host, task


def _concerned(host: Host) -> bool:
    return bool(host.settings.projects) and gitlab_api.remembers(host)


@task(on="all", where=_concerned)
def project(host: Host) -> Iterator[Resource]:
    """Each project of the inventory has its runners, its registry and its CI/CD variables, through GitLab's API."""
    names = tuple(one.name for one in host.settings.runners)
    for path, one in host.settings.projects.items():
        wanted = WantedProject(
            path,
            _settings(one),
            _runners(host, path, one),
            names,
            tuple(_variable(path, key, each) for key, several in one.variables.items() for each in several),
        )
        gitlab = host.settings.gitlab
        # Where nothing is wanted there may be variables of ours to be removed.
        if not wanted.is_empty or (gitlab and gitlab.api_token):
            yield ProjectSettings(wanted, gitlab_api.required(host, f'projects."{path}"'))


def _settings(one: Project) -> dict[str, Any]:
    found = {"shared_runners_enabled": one.shared_runners, "container_registry_access_level": one.registry}
    return {name: value for name, value in found.items() if value is not None}


def _runners(host: Host, path: str, one: Project) -> tuple[str | int, ...]:
    for runner in host.settings.runners:
        if runner.name in one.runners and runner.locked is False:
            raise UsageError(
                f'projects."{path}".runners: {runner.name} is locked to its projects, and [[runners]] says locked = false',
                hint="take locked out of [[runners]], or the runner out of the project",
            )
    return one.runners


def _variable(path: str, key: str, one: Variable) -> WantedVariable:
    value = one.value.resolve() if isinstance(one.value, SecretSource) else one.value
    if reason := one.unmaskable(value if isinstance(value, str) else value.reveal()):
        scope = "" if one.environment_scope == "*" else f" for {one.environment_scope}"
        raise UsageError(
            f'projects."{path}".variables.{key}{scope}: {reason}',
            hint="give it another value, or take masked and hidden away",
        )
    fields = {name: getattr(one, name) for name in ("masked", "hidden", "protected", "raw", "type", "description")}
    return WantedVariable(key, value, one.environment_scope, **fields)
