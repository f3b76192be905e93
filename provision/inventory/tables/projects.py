"""CI/CD variables of a project, and GitLab's rules of what can be masked.

A project's .gitlab-ci.yml: the template that it is made of, and how it comes into the project.

[projects."group/name"]: what is set in a project of GitLab, and its pipeline.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from provision.inventory.secrets import Origin, SecretSource, as_secret
from provision.inventory.tables.base import Table, Wrong
from provision.secret import Secret

_KEY = re.compile(r"[a-zA-Z0-9_]{1,255}")
_SCOPE = re.compile(r"[a-zA-Z0-9_/\\$.{}*\- ]{1,255}")
# Masking: GitLab's own patterns, app/models/concerns/ci/maskable.rb.
_MASKABLE = re.compile(r"[a-zA-Z0-9_+=/@:.~-]{8,}")
_MASKABLE_RAW = re.compile(r"\S{8,}")
_NOWHERE = Origin()
_EXPECTED = "expected a string, a secret, or a table { value = …, masked = true }"


class Variable(Table):
    """A CI/CD variable with all that GitLab keeps of it, for one environment scope."""

    value: str | SecretSource
    """What jobs see: a text or a secret."""
    masked: bool = False
    """Blanked in job logs. GitLab takes that of one line of at least 8 letters alone, and of few signs unless raw."""
    hidden: bool = False
    """Masked, and never shown again in the UI. Only a new variable can be: an existing one is deleted and made anew."""
    protected: bool = False
    """Only for jobs of protected branches and tags."""
    raw: bool = False
    """true: a `$` in it is no reference to another variable."""
    type: Literal["env_var", "file"] = "env_var"
    """file: jobs find a file's path in the variable, and the value in that file."""
    environment_scope: str = "*"
    """For which environments: `*` for all, `production`, `review/*`."""
    description: str | None = Field(default=None, max_length=255)
    """What it is for."""

    @field_validator("value", mode="wrap")
    @classmethod
    def _value(cls, value: Any, _: Any) -> str | SecretSource:
        found = value if isinstance(value, str) else as_secret(value, _NOWHERE)
        if found is None:
            raise ValueError("expected a string or a secret")
        return found

    @field_validator("environment_scope")
    @classmethod
    def _scope(cls, text: str) -> str:
        if not _SCOPE.fullmatch(text):
            raise ValueError(
                f'expected an environment\'s name, with * for any letters, such as "review/*", got {text!r}'
            )
        return text

    @model_validator(mode="before")
    @classmethod
    def _masked_is_secret(cls, table: Any) -> Any:
        if (
            isinstance(table, dict)
            and isinstance(table.get("value"), str)
            and (table.get("masked") or table.get("hidden"))
        ):
            return {**table, "value": SecretSource.plain(table["value"])}
        return table

    @model_validator(mode="after")
    def _can_be_masked(self) -> Variable:
        if isinstance(self.value, SecretSource) and isinstance(self.value.value, Secret):
            reason = self.unmaskable(self.value.value.reveal())
            if reason:
                raise Wrong(reason, "value")
        return self

    def unmaskable(self, value: str) -> str:
        """Why GitLab would refuse to mask this value; "" when it would not, or need not."""
        if not (self.masked or self.hidden):
            return ""
        if "\n" in value or "\r" in value:
            return 'it cannot be masked: it has several lines (type = "file" without masked keeps a key as a file)'
        if len(value) < 8:
            return "it cannot be masked: GitLab masks from 8 letters on"
        if self.raw and not _MASKABLE_RAW.fullmatch(value):
            return "it cannot be masked: it has a blank"
        if not self.raw and not _MASKABLE.fullmatch(value):
            return "it cannot be masked: only letters, digits and _+=/@:.~- may be in it, or no blank at all with raw = true"
        return ""


class _Shapes:
    """The shapes that an entry of `variables` may have, in the JSON schema."""

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        from provision.inventory.json_schema import SECRET

        found: dict[str, Any] = handler(schema)
        several = found["additionalProperties"]
        return {**found, "additionalProperties": {"anyOf": [SECRET, several["items"], several]}}


def _as_arrays(value: Any) -> Any:
    """Each entry as an array of tables: a text or a secret alone is a value, a table alone an array of one."""
    if not isinstance(value, dict):
        return value
    found = {}
    for key, one in value.items():
        if isinstance(one, str | SecretSource) or (isinstance(one, dict) and as_secret(one, _NOWHERE)):
            one = {"value": one}
        if not isinstance(one, dict | list | tuple):
            raise Wrong(f"{_EXPECTED}, got {one!r}", key)
        found[key] = [one] if isinstance(one, dict) else one
    return found


def _checked(found: dict[str, tuple[Variable, ...]]) -> dict[str, tuple[Variable, ...]]:
    for key, several in found.items():
        if not _KEY.fullmatch(key):
            raise Wrong(f"expected a variable's name of letters, digits and _, got {key!r}", key)
        scopes = [one.environment_scope for one in several]
        if not scopes:
            raise Wrong(f"{_EXPECTED}, got an empty array", key)
        for place, scope in enumerate(scopes):
            if scope in scopes[:place]:
                raise Wrong(f"the scope {scope!r} is there already", key, place, "environment_scope")
    return found


Variables = Annotated[
    dict[str, Annotated[tuple[Variable, ...], Field(strict=False)]],
    BeforeValidator(_as_arrays),
    AfterValidator(_checked),
    _Shapes(),
]


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
    def _fits(self) -> Pipeline:
        for name in ("branch", "merge_request"):
            if self.path is not None and getattr(self, name):
                raise Wrong(f"path and {name} exclude each other: the file is written on this machine", name)
        if self.merge_request and self.branch == OUR_BRANCH:
            raise Wrong(f"{OUR_BRANCH} is the branch that merge requests come from: name the one they go to", "branch")
        return self


OUR_BRANCH = "provision/pipeline"


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
