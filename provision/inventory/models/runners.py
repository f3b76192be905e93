"""[[runners]]: one runner each, with config.toml's own keys and its registration."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from provision.inventory.models.base import Wrong
from provision.inventory.models.runner_config import RunnerConfig
from provision.inventory.secrets import SecretSource


class Runner(RunnerConfig):
    """One runner: config.toml's own keys, and how it is registered.

    With `token` it exists in GitLab already; with `registration_token` it is registered the old way; with neither it
    is created through the API (gitlab.api_token).
    """

    token: SecretSource | None = None
    """The runner's authentication token, glrt-… (a secret)."""
    registration_token: SecretSource | None = None
    """The old way, off by default since GitLab 17.0 (a secret)."""
    tags: tuple[str, ...] = Field(default=(), strict=False)
    """Tags of the jobs it takes; kept by GitLab."""
    run_untagged: bool | None = None
    """Takes jobs without tags too; kept by GitLab. Default: true exactly when it has no tags."""
    locked: bool | None = None
    """Kept to its projects; kept by GitLab."""
    paused: bool | None = None
    """Takes no jobs; kept by GitLab."""
    access_level: Literal["not_protected", "ref_protected"] | None = None
    """ref_protected: only jobs of protected branches and tags; kept by GitLab."""
    maximum_timeout: int | None = Field(default=None, ge=600)
    """Seconds that a job may take at most, from 600 on; kept by GitLab."""
    maintenance_note: str | None = Field(default=None, max_length=1024)
    """A note for administrators; kept by GitLab."""
    runner_type: Literal["instance_type", "group_type", "project_type"] | None = None
    """Whose runner it is, when created through the API. Default: what `project` or `group` says, else instance_type."""
    group: int | str | None = None
    """Path or id of the group it is created for."""
    project: int | str | None = None
    """Path or id of the project it is created for."""

    @property
    def scope(self) -> str:
        """runner_type, or what it follows from."""
        implied = "project_type" if self.project is not None else "group_type" if self.group is not None else None
        return self.runner_type or implied or "instance_type"

    @field_validator("tags")
    @classmethod
    def _tags(cls, tags: tuple[str, ...]) -> tuple[str, ...]:
        for place, tag in enumerate(tags):
            if not tag.strip() or "," in tag:  # a comma separates tags in the API
                raise Wrong(f"expected one tag, got {tag!r}", place)
        return tags

    @model_validator(mode="after")
    def _fits(self) -> "Runner":
        if self.token is not None and self.registration_token is not None:
            raise Wrong("token and registration_token exclude each other: keep one", "registration_token")
        owners = {"group_type": self.group, "project_type": self.project}
        for kind, owner in owners.items():
            if owner is not None and self.scope != kind:
                name = kind.removesuffix("_type")
                raise Wrong(f"a runner of {self.scope} has no {name}", name)
        if owners.get(self.scope, "") is None:
            raise Wrong(f'"{self.scope.removesuffix("_type")}" is missing: it goes with {self.scope}', "runner_type")
        if self.executor.startswith("docker") and not (self.docker or {}).get("image"):
            raise Wrong(f'"image" is missing: the executor {self.executor} needs one, such as "docker:28"', "docker")
        return self
