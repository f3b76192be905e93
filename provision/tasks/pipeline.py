"""The task `pipeline`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from provision.errors import UsageError, did_you_mean
from provision.gitlab.access import keeps_records, required_api
from provision.inventory import Host
from provision.inventory.tables.gitlab import Gitlab
from provision.inventory.tables.pipelines import OUR_BRANCH, Pipeline, check_runners, job_tags
from provision.inventory.tables.projects import Project
from provision.inventory.tables.registry import Registry
from provision.inventory.tables.runners import Runner
from provision.resources import Resource
from provision.tasks.base import task
from provision.templating import names

if TYPE_CHECKING:
    from provision.resources import Recipe

_ENDING = ".gitlab-ci.yml.j2"


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
        runners = one.job_runners(host.settings.all(Runner))
        check_runners(what, wanted, runners, named=bool(one.runners))
        recipe = _recipe(path, wanted, job_tags(wanted, runners))
        if wanted.path is not None:
            yield LocalPipeline(wanted.path, recipe.text)
            continue
        ours = OUR_BRANCH if wanted.merge_request else ""
        yield PipelineFile(path, required_api(host, what), recipe, wanted.message, wanted.branch, ours)


def _recipe(path: str, wanted: Pipeline, tags: tuple[str, ...]) -> Recipe:
    """Template and values. Raises UsageError for an unknown template."""
    from provision.resources import Recipe

    known = [one.removesuffix(_ENDING) for one in names("pipelines", _ENDING)]
    if wanted.template not in known:
        raise UsageError(
            f'projects."{path}".pipeline.template: no template has the name {wanted.template!r}{did_you_mean(wanted.template, known)}',
            hint=f"your own are templates/pipelines/NAME{_ENDING} beside the inventory",
        )
    options = ("build", "docker", "image", "test", "python", "coverage", "variables")
    given = {name: value for name in options if (value := getattr(wanted, name)) is not None}
    values = json.dumps({**given, "tags": tags, "project": path})
    return Recipe(f'projects."{path}".pipeline', f"pipelines/{wanted.template}{_ENDING}", values)
