"""[projects.NAME.pipeline]: a project's .gitlab-ci.yml, its template, and the runners that take its jobs.

Source: docs.gitlab.com/ci/docker/using_docker_build (what each way of building needs in config.toml).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, field_validator, model_validator

from provision.errors import UsageError
from provision.inventory.secrets import SecretSource
from provision.inventory.tables.base import InvalidValue, Table
from provision.inventory.tables.runners import Runner

OUR_BRANCH: Final = "provision/pipeline"
Build = Literal["dind", "dind-without-tls", "socket"]


class Pipeline(Table):
    """The pipeline of a project: rendered from a template, checked by GitLab's lint, committed when it differs."""

    template: str
    """`registry`, `dockerhub`, or your own: templates/pipelines/NAME.gitlab-ci.yml.j2."""
    branch: str | None = None
    """The branch to commit to, or to merge into. Default: the project's default branch."""
    merge_request: bool = False
    """true: commit to the branch provision/pipeline and open a merge request."""
    path: Path | None = None
    """Local file: write the pipeline there instead. GitLab is not contacted."""
    message: str = "Bring the pipeline up to date"
    """The commit's message, and the merge request's title."""
    build: Build = "dind"
    """How jobs reach a Docker daemon: docker-in-docker with TLS, without TLS, or the host's daemon through its socket."""
    docker: str = "28.5.2"
    """The version of the images docker:VERSION-cli and docker:VERSION-dind."""
    image: str | None = None
    """The image's name: user/name for dockerhub. Default for registry: the project's own, $CI_REGISTRY_IMAGE."""
    test: str | None = None
    """The command that runs the tests; the template registry runs it in the built image."""
    python: str = "3.13"
    """The version of the image python:VERSION-slim, for dockerhub."""
    coverage: int = Field(default=100, ge=0, le=100)
    """The percentage of lines that tests must cover, for dockerhub."""
    tags: tuple[str, ...] | None = None
    """Tags of the runners that take the jobs. Default: those that the project's runners in the inventory require."""
    variables: dict[str, Any] = Field(default_factory=dict)
    """`variables` of the file, as strings. They must not be secret: everybody who can see the project can read them."""

    @field_validator("template")
    @classmethod
    def _template(cls, text: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", text):
            raise ValueError(f'expected a template\'s name, such as "registry", got {text!r}')
        return text

    @field_validator("branch")
    @classmethod
    def _branch(cls, text: str | None) -> str | None:
        # Source: git-check-ref-format(1); only what a typo may contain.
        if text is not None and (re.search(r"[\s~^:?*\[\\\x00-\x1f]|\.\.|@\{|//", text) or not text.strip("/.-")):
            raise ValueError(f'expected a branch\'s name, such as "main", got {text!r}')
        return text

    @field_validator("message", "test")
    @classmethod
    def _not_empty(cls, text: str | None) -> str | None:
        if text is not None and not text.strip():
            raise ValueError("expected a string that is not empty")
        return text

    @field_validator("docker", "python")
    @classmethod
    def _pinned(cls, text: str) -> str:
        if not re.fullmatch(r"\d+(\.\d+)*", text):
            raise ValueError(f'expected a version such as "28.5.2", got {text!r}')
        return text

    @field_validator("image")
    @classmethod
    def _image(cls, text: str | None) -> str | None:
        if text is not None and not re.fullmatch(r"[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)+", text):
            raise ValueError(f"expected user/name in lower case, without registry and tag, got {text!r}")
        return text

    @field_validator("variables")
    @classmethod
    def _variables(cls, table: dict[str, Any]) -> dict[str, Any]:
        for key, value in table.items():
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
                raise InvalidValue(f"expected a variable's name of letters, digits and _, got {key!r}", key)
            if isinstance(value, SecretSource):
                text = "a secret must not be in a file of the repository: set it in the project's variables"
                raise InvalidValue(text, key)
            if not isinstance(value, str):
                raise InvalidValue(f'expected a string in quotes, such as "1", got {value!r}', key)
        return table

    @model_validator(mode="after")
    def _fits(self) -> Pipeline:
        for name in ("branch", "merge_request"):
            if self.path is not None and getattr(self, name):
                raise InvalidValue(f"path and {name} exclude each other: the file is written on this machine", name)
        if self.merge_request and self.branch == OUR_BRANCH:
            raise InvalidValue(f"{OUR_BRANCH} is the source of the merge request: give the target branch", "branch")
        return self


_SOCKET: Final = "/var/run/docker.sock"
_CERTIFICATES: Final = "/certs/client"
_REQUIRED: Final = {
    "dind": f'[runners.docker] with privileged = true and volumes = ["{_CERTIFICATES}", "/cache"]',
    "dind-without-tls": "[runners.docker] with privileged = true",
    "socket": f'[runners.docker] with volumes = ["{_SOCKET}:{_SOCKET}", "/cache"]',
}


def job_tags(pipeline: Pipeline, runners: Sequence[Runner]) -> tuple[str, ...]:
    """The tags of the pipeline's jobs: the given ones, else those that `runners` require."""
    if pipeline.tags is not None:
        return pipeline.tags
    if not runners or any(_takes_untagged(one) for one in runners):
        return ()
    return tuple(tag for tag in runners[0].tags if all(tag in one.tags for one in runners))


def check_runners(what: str, pipeline: Pipeline, runners: Sequence[Runner], *, named: bool) -> None:
    """Raises UsageError, about `what`, when the runners that take the jobs cannot build as the pipeline does.

    named  the project names its runners: then each of them must be able to
    """
    tags = pipeline.tags
    taking = [one for one in runners if tags is None or (set(tags) <= set(one.tags) if tags else _takes_untagged(one))]
    if runners and not taking and named:
        listed = ", ".join(one.name for one in runners)
        raise UsageError(
            f"{what}.tags: no runner of the project takes jobs with the tags {list(tags or ())}: {listed}",
            hint="give tags that one of them has, or leave tags out",
        )
    unfit = [(one.name, reason) for one in taking if (reason := _why_unfit(one, pipeline.build))]
    if unfit and (named or len(unfit) == len(taking)):
        reasons = "; ".join(f"{name} {reason}" for name, reason in unfit)
        raise UsageError(
            f'{what}: build = "{pipeline.build}" does not work with the [[runners]] of the inventory: {reasons}',
            hint=f"give the runner {_REQUIRED[pipeline.build]}, or choose another build",
        )


def _takes_untagged(one: Runner) -> bool:
    return not one.tags if one.run_untagged is None else one.run_untagged


def _why_unfit(one: Runner, build: str) -> str:
    """Why a runner cannot build in this way; "" where it can, or where the inventory does not show it (kubernetes)."""
    if one.executor == "kubernetes":
        return ""
    if not one.executor.startswith("docker"):
        return f"has the executor {one.executor}, not docker"
    docker = one.docker or {}
    volumes = [str(volume).split(":") for volume in docker.get("volumes", ())]
    if build == "socket":
        return "" if any(parts[1:2] == [_SOCKET] for parts in volumes) else f"does not mount {_SOCKET}"
    if not (docker.get("privileged") or docker.get("services_privileged")):
        return "is not privileged"
    shared = any(_CERTIFICATES in parts[:2] for parts in volumes)
    return "" if build != "dind" or shared else f"does not share the volume {_CERTIFICATES}"
