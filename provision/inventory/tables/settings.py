"""All settings of a host: the tables of the inventory, merged."""

from typing import Any

from pydantic import Field, field_validator, model_validator

from provision.inventory.tables.apps import App
from provision.inventory.tables.apt import Apt
from provision.inventory.tables.base import Table, Wrong
from provision.inventory.tables.docker import Docker
from provision.inventory.tables.firewall import Firewall
from provision.inventory.tables.gitlab import Gitlab
from provision.inventory.tables.images import Image
from provision.inventory.tables.projects import Projects
from provision.inventory.tables.prune import Prune
from provision.inventory.tables.registry import Registry
from provision.inventory.tables.runners import Runner, RunnerProgram
from provision.inventory.tables.ssh import Ssh

_ALWAYS = ("ssh", "docker", "apt", "firewall", "runner", "prune")


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
    images: tuple[Image, ...] = Field(default=(), strict=False)
    apps: tuple[App, ...] = Field(default=(), strict=False)
    prune: Prune

    @model_validator(mode="before")
    @classmethod
    def _with_defaults(cls, tree: Any) -> Any:
        return {**{name: {} for name in _ALWAYS}, **tree} if isinstance(tree, dict) else tree

    @field_validator("runners")
    @classmethod
    def _own_names(cls, runners: tuple[Runner, ...]) -> tuple[Runner, ...]:
        _differ("runners", [one.name for one in runners])
        return runners

    @field_validator("images")
    @classmethod
    def _own_images(cls, images: tuple[Image, ...]) -> tuple[Image, ...]:
        known: dict[str, int] = {}
        for place, one in enumerate(images):
            for number, tag in enumerate(one.tags):
                if (first := known.setdefault(f"{one.name}:{tag}", place)) != place:
                    raise Wrong(
                        f"images[{first}] is {one.name}:{tag} too: names or tags must differ", place, "tags", number
                    )
        return images

    @field_validator("apps")
    @classmethod
    def _own_apps(cls, apps: tuple[App, ...]) -> tuple[App, ...]:
        _differ("apps", [one.name for one in apps])
        return apps


def _differ(table: str, names: list[str]) -> None:
    for place, name in enumerate(names):
        if (first := names.index(name)) != place:
            raise Wrong(f"{table}[{first}] is called {name!r} too: names must differ", place, "name")
