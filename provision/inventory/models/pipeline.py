"""A project's .gitlab-ci.yml: the template that it is made of, and how it comes into the project."""

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from provision.inventory.models.base import Table, Wrong
from provision.inventory.secrets import SecretSource

Build = Literal["dind", "dind-without-tls", "socket"]


class Pipeline(Table):
    """The pipeline of a project: rendered from a template, checked by GitLab's lint, committed where it differs."""

    template: str
    """`registry`, `dockerhub`, or one of your own: templates/pipelines/NAME.gitlab-ci.yml.j2."""
    branch: str | None = None
    """The branch it is committed to, or merged into. Default: the project's default branch."""
    merge_request: bool = False
    """true: it goes to a branch of ours, with a merge request."""
    path: Path | None = None
    """Local file: it is written there instead, and the project is not asked."""
    message: str = "Bring the pipeline up to date"
    """The commit's message, and the merge request's title."""
    build: Build = "dind"
    """How jobs reach a Docker daemon: docker-in-docker with TLS, without, or the host's own by its socket."""
    docker: str = "28.5.2"
    """The version of the images docker:VERSION-cli and docker:VERSION-dind."""
    image: str | None = None
    """The image's name: user/name for dockerhub. Default for registry: the project's own, $CI_REGISTRY_IMAGE."""
    test: str | None = None
    """The command that tests; registry runs it in the built image."""
    python: str = "3.13"
    """The version of the image python:VERSION-slim, for dockerhub."""
    coverage: int = Field(default=100, ge=0, le=100)
    """How many percent of the lines tests must reach, for dockerhub."""
    tags: tuple[str, ...] | None = Field(default=None, strict=False)
    """Tags of the runners that take its jobs. Default: those of the project's runners in the inventory, if they need any."""
    variables: dict[str, Any] = Field(default_factory=dict)
    """`variables` of the file, as texts. Nothing secret: everybody who sees the project reads them."""

    @field_validator("template")
    @classmethod
    def _template(cls, text: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", text):
            raise ValueError(f'expected a template\'s name, such as "registry", got {text!r}')
        return text

    @field_validator("branch")
    @classmethod
    def _branch(cls, text: str | None) -> str | None:
        # git-check-ref-format(1), as far as a slip of the hand goes
        if text is not None and (re.search(r"[\s~^:?*\[\\\x00-\x1f]|\.\.|@\{|//", text) or not text.strip("/.-")):
            raise ValueError(f'expected a branch\'s name, such as "main", got {text!r}')
        return text

    @field_validator("message", "test")
    @classmethod
    def _not_empty(cls, text: str | None) -> str | None:
        if text is not None and not text.strip():
            raise ValueError("expected a text that is not empty")
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
                raise Wrong(f"expected a variable's name of letters, digits and _, got {key!r}", key)
            if isinstance(value, SecretSource):
                text = "a secret does not belong in a file of the repository: give it in the project's own variables"
                raise Wrong(text, key)
            if not isinstance(value, str):
                raise Wrong(f'expected a text in quotes, such as "1", got {value!r}', key)
        return table

    @model_validator(mode="after")
    def _fits(self) -> "Pipeline":
        for name in ("branch", "merge_request"):
            if self.path is not None and getattr(self, name):
                raise Wrong(f"path and {name} exclude each other: the file is written on this machine", name)
        if self.merge_request and self.branch == OUR_BRANCH:
            raise Wrong(f"{OUR_BRANCH} is the branch that merge requests come from: name the one they go to", "branch")
        return self


OUR_BRANCH = "provision/pipeline"
