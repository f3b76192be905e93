"""CI/CD variables of a project, and GitLab's rules of what can be masked."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from provision.inventory.models.base import Table, Wrong
from provision.inventory.secrets import Origin, SecretSource, as_secret
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
    def _can_be_masked(self) -> "Variable":
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
