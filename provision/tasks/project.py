"""The tasks `project`, `source` and `pipeline`: what is set in GitLab about a project, its repository, its .gitlab-ci.yml."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from provision.errors import UsageError, did_you_mean
from provision.gitlab.access import has_token, keeps_records, required_api
from provision.inventory import Estate, Host, SecretSource
from provision.inventory.tables.gitlab import Gitlab
from provision.inventory.tables.projects import OUR_BRANCH, Pipeline, Project, Variable, check_runners, job_tags
from provision.inventory.tables.registry import Registry
from provision.inventory.tables.runners import Runner
from provision.resources import Resource
from provision.tasks.base import task
from provision.templating import names

if TYPE_CHECKING:
    from provision.resources import Awaited, Recipe, WantedVariable

_ENDING = ".gitlab-ci.yml.j2"


def _has_projects(host: Host) -> bool:
    return bool(host.settings.named(Project)) and keeps_records(host)


@task(on="all", uses=(Project, Runner, Gitlab, Registry), where=_has_projects)
def project(host: Host) -> Iterator[Resource]:
    """Set up the runners, the registry and the CI/CD variables of each project."""
    from provision.resources import ProjectSettings, WantedProject  # not every inventory has projects

    gitlab, runners = host.settings.get(Gitlab), host.settings.all(Runner)
    every_name = tuple(one.name for one in runners)
    for path, one in host.settings.named(Project).items():
        wanted = WantedProject(
            path,
            _settings(one),
            _runners(runners, path, one),
            every_name,
            tuple(_variable(path, key, each) for key, several in one.variables.items() for each in several),
            created=one.create,
        )
        # A project without any settings may have variables that an earlier run set: they are removed.
        if not wanted.is_empty or (gitlab and has_token(host, gitlab.external_url)):
            yield ProjectSettings(wanted, required_api(host, f'projects."{path}"'))


def _settings(one: Project) -> dict[str, Any]:
    found = {"shared_runners_enabled": one.shared_runners, "container_registry_access_level": one.registry}
    return {name: value for name, value in found.items() if value is not None}


def _runners(runners: tuple[Runner, ...], path: str, one: Project) -> tuple[str | int, ...]:
    for runner in runners:
        if runner.name in one.runners and runner.locked is False:
            raise UsageError(
                f'projects."{path}".runners: {runner.name} becomes locked to its projects, and [[runners]] has locked = false',
                hint="remove locked from [[runners]], or the runner from the project",
            )
    return one.runners


def _variable(path: str, key: str, one: Variable) -> WantedVariable:
    from provision.resources import WantedVariable

    value = one.value.resolve() if isinstance(one.value, SecretSource) else one.value
    if reason := one.unmaskable(value if isinstance(value, str) else value.reveal()):
        scope = "" if one.environment_scope == "*" else f" for {one.environment_scope}"
        raise UsageError(
            f'projects."{path}".variables.{key}{scope}: {reason}',
            hint="give it another value, or remove masked and hidden",
        )
    fields = {name: getattr(one, name) for name in ("masked", "hidden", "protected", "raw", "type", "description")}
    return WantedVariable(key, value, one.environment_scope, **fields)


def _has_sources(host: Host) -> bool:
    return any(one.source for one in host.settings.named(Project).values()) and keeps_records(host)


@task(on="all", uses=(Project, Runner, Gitlab, Registry), where=_has_sources)
def source(host: Host) -> Iterator[Resource]:
    """Push each project's source to its default branch, with its pipeline."""
    from provision.resources import ProjectSource  # not every inventory has sources

    for path, one in host.settings.named(Project).items():
        if one.source is None:
            continue
        what, wanted = f'projects."{path}".source', one.pipeline
        if not one.source.is_dir():
            raise UsageError(
                f"{what}: {one.source} is not a folder on this machine", hint="name a repository or a folder"
            )
        recipe = _recipe(host, path, one, wanted) if wanted and wanted.path is None else None
        message = wanted.message if wanted and "message" in wanted.model_fields_set else ProjectSource.message
        awaited = _awaited(host, one)
        api, branch = required_api(host, what), one.default_branch
        yield ProjectSource(path, api, one.source, recipe, message, branch, one.create, awaited)


def _has_pipelines(host: Host) -> bool:
    return any(one.pipeline for one in host.settings.named(Project).values()) and keeps_records(host)


@task(on="all", uses=(Project, Runner, Gitlab, Registry), where=_has_pipelines)
def pipeline(host: Host) -> Iterator[Resource]:
    """Render each project's .gitlab-ci.yml, check it with GitLab's lint and commit it."""
    from provision.resources import LocalPipeline, PipelineFile  # not every inventory has pipelines

    for path, one in host.settings.named(Project).items():
        wanted = one.pipeline
        if wanted is None:
            continue
        what = f'projects."{path}".pipeline'
        recipe = _recipe(host, path, one, wanted)
        if wanted.path is not None:
            yield LocalPipeline(wanted.path, recipe.text)
            continue
        branch = wanted.branch or one.default_branch
        ours, pushed = OUR_BRANCH if wanted.merge_request else "", bool(one.source)
        awaited = None if pushed else _awaited(host, one)
        api, message = required_api(host, what), wanted.message
        yield PipelineFile(path, api, recipe, message, branch, ours, one.create, pushed, awaited)


def _awaited(host: Host, one: Project) -> Awaited | None:
    from provision.resources import Awaited

    return Awaited(one.wait_timeout, held_projects(host.estate)) if one.wait else None


def held_projects(estate: Estate) -> set[str]:
    """The projects whose pipeline is waited for and has not succeeded in this run; the hosts of a run share it."""
    return estate.once("held projects", set)


def _recipe(host: Host, path: str, one: Project, wanted: Pipeline) -> Recipe:
    """Template and values. Raises UsageError for an unknown template, and for runners that cannot build in this way."""
    from provision.resources import Recipe

    runners = one.job_runners(host.settings.all(Runner))
    check_runners(f'projects."{path}".pipeline', wanted, runners, named=bool(one.runners))

    known = [one.removesuffix(_ENDING) for one in names("pipelines", _ENDING)]
    if wanted.template not in known:
        raise UsageError(
            f'projects."{path}".pipeline.template: no template has the name {wanted.template!r}{did_you_mean(wanted.template, known)}',
            hint=f"your own are templates/pipelines/NAME{_ENDING} beside the inventory",
        )
    options = ("build", "docker", "buildah", "image", "test", "python", "coverage", "variables")
    given = {name: value for name in options if (value := getattr(wanted, name)) is not None}
    values = json.dumps({**given, "tags": job_tags(wanted, runners), "project": path})
    return Recipe(f'projects."{path}".pipeline', f"pipelines/{wanted.template}{_ENDING}", values)
