"""[projects."group/name"]: the settings of a project in GitLab: its runners, its registry, its variables, its source, its
pipeline.

Sources: docs.gitlab.com/ci/docker/using_docker_build (what each way of building needs in config.toml);
github.com/moby/buildkit docs/rootless.md and github.com/containers/buildah issue 4563 (a build without privileges needs
a user namespace, which Docker's default seccomp profile denies).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from provision.errors import UsageError
from provision.image_name import HUB, Reference
from provision.inventory.secrets import SCHEMA, Origin, SecretSource, as_secret
from provision.inventory.tables.base import InvalidValue, Table
from provision.inventory.tables.gitlab import Role, Visibility
from provision.inventory.tables.runners import Runner
from provision.secret import Secret

OUR_BRANCH: Final = "provision/pipeline"
RELEASED_TAG: Final = "latest"
"""The tag that the shipped templates push from the default branch."""
Build = Literal["dind", "dind-without-tls", "socket", "buildah"]
_SOCKET: Final = "/var/run/docker.sock"
_CERTIFICATES: Final = "/certs/client"
_UNCONFINED: Final = ("seccomp:unconfined", "apparmor:unconfined")
_REQUIRED: Final = {
    "dind": f'[runners.docker] with privileged = true and volumes = ["{_CERTIFICATES}", "/cache"]',
    "dind-without-tls": "[runners.docker] with privileged = true",
    "socket": f'[runners.docker] with volumes = ["{_SOCKET}:{_SOCKET}", "/cache"]',
    "buildah": f'[runners.docker] with security_opt = ["{_UNCONFINED[0]}", "{_UNCONFINED[1]}"]',
}
_KEY = re.compile(r"[a-zA-Z0-9_]{1,255}")
_SCOPE = re.compile(r"[a-zA-Z0-9_/\\$.{}*\- ]{1,255}")
# Masking: GitLab's own patterns, app/models/concerns/ci/maskable.rb.
_MASKABLE = re.compile(r"[a-zA-Z0-9_+=/@:.~-]{8,}")
_MASKABLE_RAW = re.compile(r"\S{8,}")
_NOWHERE = Origin()
_EXPECTED = "expected a string, a secret, or a table { value = …, masked = true }"


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
    """How jobs build images: with docker-in-docker (with or without TLS), with the host's Docker daemon through its
    socket, or with Buildah, which needs no daemon and no privileged container."""
    docker: str = "28.5.2"
    """The version of the images docker:VERSION-cli and docker:VERSION-dind."""
    buildah: str = "1.43.1"
    """The version of the image quay.io/buildah/stable:vVERSION, for build = "buildah"."""
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

    def released(self, project: str, variables: Mapping[str, Sequence[Any]]) -> Reference | None:
        """The image that the jobs of a shipped template push as `latest`; None for another template.

        variables  those of the project; DOCKERHUB_REGISTRY leads the template dockerhub to another registry
        """
        if self.template == "registry":
            return Reference("", self.image or project.lower())
        if self.template != "dockerhub" or self.image is None:
            return None
        registry = next((one.value for one in variables.get("DOCKERHUB_REGISTRY", ())), HUB)
        return Reference(registry, self.image) if isinstance(registry, str) else None

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

    @field_validator("docker", "buildah", "python")
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
    if build == "buildah":
        return "" if docker.get("privileged") else _why_no_namespace(docker)
    if build == "socket":
        return "" if any(parts[1:2] == [_SOCKET] for parts in volumes) else f"does not mount {_SOCKET}"
    if not (docker.get("privileged") or docker.get("services_privileged")):
        return "is not privileged"
    shared = any(_CERTIFICATES in parts[:2] for parts in volumes)
    return "" if build != "dind" or shared else f"does not share the volume {_CERTIFICATES}"


def _why_no_namespace(docker: Mapping[str, Any]) -> str:
    """Why a container cannot create a user namespace; "" where it can.

    Docker takes `name=value` and `name:value`. The value may be a profile of the user's own.
    """
    given = {re.split("[:=]", str(option))[0] for option in docker.get("security_opt", ())}
    missing = [option for option in _UNCONFINED if option.partition(":")[0] not in given]
    return f"lacks security_opt {', '.join(missing)}" if missing else ""


class Variable(Table):
    """A CI/CD variable with its attributes, for one environment scope."""

    value: str | SecretSource
    """The value: a string or a secret."""
    masked: bool = False
    """Masked in job logs. GitLab masks a single line of at least 8 characters from a limited set, unless `raw` is true."""
    hidden: bool = False
    """Masked, and never shown in the UI. Only new variables can be hidden: an existing one is deleted and created."""
    protected: bool = False
    """Only for jobs of protected branches and tags."""
    raw: bool = False
    """true: a `$` in it does not refer to another variable."""
    type: Literal["env_var", "file"] = "env_var"
    """file: the variable holds the path of a file with the value."""
    environment_scope: str = "*"
    """The environments that have it: `*` for all, `production`, `review/*`."""
    description: str | None = Field(default=None, max_length=255)
    """A description of its purpose."""

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
                raise InvalidValue(reason, "value")
        return self

    def unmaskable(self, value: str) -> str:
        """Why GitLab would refuse to mask this value; "" if it can be masked, or need not be."""
        if not (self.masked or self.hidden):
            return ""
        if "\n" in value or "\r" in value:
            return 'it cannot be masked: it has several lines (for a key, use type = "file" without masked)'
        if len(value) < 8:
            return "it cannot be masked: GitLab masks values of at least 8 characters"
        if self.raw and not _MASKABLE_RAW.fullmatch(value):
            return "it cannot be masked: it contains a space"
        if not self.raw and not _MASKABLE.fullmatch(value):
            return (
                "it cannot be masked: only letters, digits and _+=/@:.~- are allowed; with raw = true, all but spaces"
            )
        return ""


class _Shapes:
    """The shapes that an entry of `variables` may have, in the JSON schema."""

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        found: dict[str, Any] = handler(schema)
        several = found["additionalProperties"]
        return {**found, "additionalProperties": {"anyOf": [SCHEMA, several["items"], several]}}


def _as_arrays(value: Any) -> Any:
    """Each entry as an array of tables: a string or a secret is the value of one, a table is an array of one."""
    if not isinstance(value, dict):
        return value
    found = {}
    for key, one in value.items():
        if isinstance(one, str | SecretSource) or (isinstance(one, dict) and as_secret(one, _NOWHERE)):
            one = {"value": one}
        if not isinstance(one, dict | list | tuple):
            raise InvalidValue(f"{_EXPECTED}, got {one!r}", key)
        found[key] = [one] if isinstance(one, dict) else one
    return found


def _checked(found: dict[str, tuple[Variable, ...]]) -> dict[str, tuple[Variable, ...]]:
    for key, several in found.items():
        if not _KEY.fullmatch(key):
            raise InvalidValue(f"expected a variable's name of letters, digits and _, got {key!r}", key)
        scopes = [one.environment_scope for one in several]
        if not scopes:
            raise InvalidValue(f"{_EXPECTED}, got an empty array", key)
        for place, scope in enumerate(scopes):
            if scope in scopes[:place]:
                raise InvalidValue(f"the scope {scope!r} is used already", key, place, "environment_scope")
    return found


Variables = Annotated[
    dict[str, Annotated[tuple[Variable, ...], Field(strict=False)]],
    BeforeValidator(_as_arrays),
    AfterValidator(_checked),
    _Shapes(),
]


_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"


class Project(Table, name="projects", occurs="named"):
    """A project in GitLab: its visibility and members, its runners, its registry, its variables, its source, its pipeline."""

    create: bool = False
    """true: create it, if it is missing. Otherwise a missing project is an error."""
    visibility: Visibility | None = None
    """Who sees it. Default: GitLab's own when it is created, else unchanged."""
    description: str | None = None
    """What it is for. Default: unchanged."""
    default_branch: str | None = None
    """Its default branch, which an empty repository gets with the first push. Default: GitLab's own, or unchanged."""
    members: dict[str, Role] = Field(default_factory=dict)
    """Its members and their roles, by user name. Other members stay."""
    shared_runners: bool | None = None
    """Whether the instance's runners take its jobs. Default: unchanged."""
    runners: tuple[str | int, ...] = ()
    """Runners that are assigned and locked to it: names of [[runners]], descriptions, or ids in GitLab."""
    registry: Literal["enabled", "private", "disabled"] | None = None
    """Its container registry: for all who see the project, for its members, or off. Default: unchanged."""
    variables: Variables = Field(default_factory=dict)
    """CI/CD variables: KEY = a string, a secret, a table, or an array of tables, one for each scope."""
    source: Path | None = None
    """Local folder: a git repository, or a plain folder, that is pushed to its default branch. Never by force."""
    pipeline: Pipeline | None = None
    """Its .gitlab-ci.yml."""
    wait: bool = False
    """true: after a push, wait until its pipeline has succeeded, and only then replace apps of its images. The run fails if
    the pipeline fails."""
    wait_timeout: int = Field(default=3600, ge=1)
    """Seconds to wait for the pipeline; it goes on after that."""

    @property
    def has_settings(self) -> bool:
        """Whether the task accounts has something to do for it."""
        return self.create or bool(self.members) or {self.visibility, self.description, self.default_branch} != {None}

    def job_runners(self, runners: Sequence[Runner]) -> list[Runner]:
        """The inventory's runners that take its jobs: the named ones, or all if it names none."""
        return [one for one in runners if not self.runners or one.name in self.runners]

    @classmethod
    def check_all(cls, tables: Mapping[str | int, Self]) -> None:
        """Each name is a project's path."""
        for path in map(str, tables):
            if not re.fullmatch(rf"{_PART}(/{_PART})+", path) or path.endswith((".git", ".atom", "/")):
                raise InvalidValue(f'expected a project\'s path, such as [projects."group/name"], got {path!r}', path)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        for name in ("branch", "merge_request"):
            if self.source and self.pipeline and getattr(self.pipeline, name):
                text = f"source and pipeline.{name} exclude each other: the pipeline is pushed with the source"
                raise InvalidValue(text, "pipeline", name)
        return self

    @model_validator(mode="after")
    def _something_to_wait_for(self) -> Self:
        one = self.pipeline
        if self.wait and not self.source and (one is None or one.path is not None or one.merge_request):
            raise InvalidValue(
                "wait needs a source, or a pipeline that is committed to a branch: without one, nothing is pushed",
                "wait",
            )
        return self

    @field_validator("runners")
    @classmethod
    def _runners(cls, names: tuple[str | int, ...]) -> tuple[str | int, ...]:
        for place, name in enumerate(names):
            if not str(name).strip() or name in names[:place]:
                raise InvalidValue(f"expected a runner's name or id, each once, got {name!r}", place)
        return names
