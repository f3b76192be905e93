"""[projects."group/name"]: the settings of a project in GitLab: its runners, its registry, its CI/CD variables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from provision.inventory.secrets import SCHEMA, Origin, SecretSource, as_secret
from provision.inventory.tables.base import InvalidValue, Table
from provision.inventory.tables.pipelines import Pipeline
from provision.inventory.tables.runners import Runner
from provision.secret import Secret

_KEY = re.compile(r"[a-zA-Z0-9_]{1,255}")
_SCOPE = re.compile(r"[a-zA-Z0-9_/\\$.{}*\- ]{1,255}")
# Masking: GitLab's own patterns, app/models/concerns/ci/maskable.rb.
_MASKABLE = re.compile(r"[a-zA-Z0-9_+=/@:.~-]{8,}")
_MASKABLE_RAW = re.compile(r"\S{8,}")
_NOWHERE = Origin()
_EXPECTED = "expected a string, a secret, or a table { value = …, masked = true }"


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
    """A project that exists in GitLab: its runners, its registry, its variables, its pipeline."""

    shared_runners: bool | None = None
    """Whether the instance's runners take its jobs. Default: unchanged."""
    runners: tuple[str | int, ...] = ()
    """Runners that are assigned and locked to it: names of [[runners]], descriptions, or ids in GitLab."""
    registry: Literal["enabled", "private", "disabled"] | None = None
    """Its container registry: for all who see the project, for its members, or off. Default: unchanged."""
    variables: Variables = Field(default_factory=dict)
    """CI/CD variables: KEY = a string, a secret, a table, or an array of tables, one for each scope."""
    pipeline: Pipeline | None = None
    """Its .gitlab-ci.yml."""

    def job_runners(self, runners: Sequence[Runner]) -> list[Runner]:
        """The inventory's runners that take its jobs: the named ones, or all if it names none."""
        return [one for one in runners if not self.runners or one.name in self.runners]

    @classmethod
    def check_all(cls, tables: Mapping[str | int, Self]) -> None:
        """Each name is a project's path."""
        for path in map(str, tables):
            if not re.fullmatch(rf"{_PART}(/{_PART})+", path) or path.endswith((".git", ".atom", "/")):
                raise InvalidValue(f'expected a project\'s path, such as [projects."group/name"], got {path!r}', path)

    @field_validator("runners")
    @classmethod
    def _runners(cls, names: tuple[str | int, ...]) -> tuple[str | int, ...]:
        for place, name in enumerate(names):
            if not str(name).strip() or name in names[:place]:
                raise InvalidValue(f"expected a runner's name or id, each once, got {name!r}", place)
        return names
