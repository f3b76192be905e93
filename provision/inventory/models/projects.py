"""[projects."group/name"]: what is set in a project of GitLab, and its pipeline."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from provision.inventory.models.base import Table, Wrong
from provision.inventory.models.pipeline import Pipeline
from provision.inventory.models.variables import Variables

_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"


class Project(Table):
    """A project that is there already: its runners, its registry, its variables, its pipeline."""

    shared_runners: bool | None = None
    """Whether the instance's runners take its jobs. Default: left alone."""
    runners: tuple[str | int, ...] = Field(default=(), strict=False)
    """Runners that are assigned and locked to it: names of [[runners]], descriptions, or ids in GitLab."""
    registry: Literal["enabled", "private", "disabled"] | None = None
    """Its container registry: for all who see the project, for its members, or none. Default: left alone."""
    variables: Variables = Field(default_factory=dict)
    """CI/CD variables: KEY = a text, a secret, a table, or an array of tables, one for each scope."""
    pipeline: Pipeline | None = None
    """Its .gitlab-ci.yml."""

    @field_validator("runners")
    @classmethod
    def _runners(cls, names: tuple[str | int, ...]) -> tuple[str | int, ...]:
        for place, name in enumerate(names):
            if not str(name).strip() or name in names[:place]:
                raise Wrong(f"expected a runner's name or id, each once, got {name!r}", place)
        return names


def _paths(found: dict[str, Project]) -> dict[str, Project]:
    for path in found:
        if not re.fullmatch(rf"{_PART}(/{_PART})+", path) or path.endswith((".git", ".atom", "/")):
            raise Wrong(f'expected a project\'s path, such as [projects."group/name"], got {path!r}', path)
    return found


Projects = Annotated[dict[str, Project], AfterValidator(_paths)]
