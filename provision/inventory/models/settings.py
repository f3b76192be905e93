"""All settings of a host: the tables of the inventory, merged."""

from typing import Any

from pydantic import Field, field_validator, model_validator

from provision.inventory.models.apt import Apt
from provision.inventory.models.base import Table, Wrong
from provision.inventory.models.docker import Docker
from provision.inventory.models.firewall import Firewall
from provision.inventory.models.gitlab import Gitlab
from provision.inventory.models.projects import Projects
from provision.inventory.models.registry import Registry
from provision.inventory.models.runner import RunnerProgram
from provision.inventory.models.runners import Runner
from provision.inventory.models.ssh import Ssh

_ALWAYS = ("ssh", "docker", "apt", "firewall", "runner")


class Settings(Table):
    """All settings of a host. `gitlab` and `registry` are None when the inventory has no such table."""

    ssh: Ssh
    gitlab: Gitlab | None = None
    registry: Registry | None = None
    docker: Docker
    apt: Apt
    firewall: Firewall
    runner: RunnerProgram
    runners: tuple[Runner, ...] = Field(default=(), strict=False)
    projects: Projects = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _with_defaults(cls, tree: Any) -> Any:
        return {**{name: {} for name in _ALWAYS}, **tree} if isinstance(tree, dict) else tree

    @field_validator("runners")
    @classmethod
    def _own_names(cls, runners: tuple[Runner, ...]) -> tuple[Runner, ...]:
        seen: dict[str, int] = {}
        for place, runner in enumerate(runners):
            if seen.setdefault(runner.name, place) != place:
                text = f"runners[{seen[runner.name]}] is called {runner.name!r} too: names must differ"
                raise Wrong(text, place, "name")
        return runners
