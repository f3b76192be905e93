"""The task `pipeline`."""

from __future__ import annotations

import json
from collections.abc import Iterator

from provision.errors import UsageError, did_you_mean
from provision.inventory.tables.projects import OUR_BRANCH, Pipeline
from provision.resources import LocalPipeline, PipelineFile, Recipe, Resource
from provision.tasks import gitlab_api, job_runners
from provision.tasks.base import Host, task
from provision.templating import names

_ENDING = ".gitlab-ci.yml.j2"


def _concerned(host: Host) -> bool:
    return any(one.pipeline for one in host.settings.projects.values()) and gitlab_api.remembers(host)


@task(on="all", where=_concerned)
def pipeline(host: Host) -> Iterator[Resource]:
    """Each project's .gitlab-ci.yml is the one of its template, accepted by GitLab's lint; or it lies in a local file."""
    for path, one in host.settings.projects.items():
        wanted = one.pipeline
        if wanted is None:
            continue
        runners = job_runners.of(host.settings.runners, one.runners)
        job_runners.check(f'projects."{path}".pipeline', wanted, runners, named=bool(one.runners))
        recipe = _recipe(path, wanted, job_runners.tags(wanted, runners))
        if wanted.path is not None:
            yield LocalPipeline(wanted.path, recipe.text)
            continue
        api = gitlab_api.required(host, f'projects."{path}".pipeline')
        ours = OUR_BRANCH if wanted.merge_request else ""
        yield PipelineFile(path, api, recipe, wanted.message, wanted.branch, ours)


def _recipe(path: str, wanted: Pipeline, tags: tuple[str, ...]) -> Recipe:
    """Template and values. Raises UsageError for an unknown template."""
    known = [one.removesuffix(_ENDING) for one in names("pipelines", _ENDING)]
    if wanted.template not in known:
        raise UsageError(
            f'projects."{path}".pipeline.template: there is no template {wanted.template!r}{did_you_mean(wanted.template, known)}',
            hint=f"one of your own stands in templates/pipelines/NAME{_ENDING}, beside the inventory",
        )
    options = ("build", "docker", "image", "test", "python", "coverage", "variables")
    given = {name: value for name in options if (value := getattr(wanted, name)) is not None}
    values = json.dumps({**given, "tags": tags, "project": path})
    return Recipe(f'projects."{path}".pipeline', f"pipelines/{wanted.template}{_ENDING}", values)
