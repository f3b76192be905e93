"""What is asked for of a project."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from provision.secret import Secret, reveal
from provision.values import dataclass


@dataclass(frozen=True)
class WantedVariable:
    """A CI/CD variable for one environment scope; `description` None is left alone."""

    key: str
    value: str | Secret
    scope: str = "*"
    masked: bool = False
    hidden: bool = False
    protected: bool = False
    raw: bool = False
    type: str = "env_var"
    description: str | None = None

    @property
    def shown(self) -> str:
        """How it is called in plans."""
        return self.key if self.scope == "*" else f"{self.key} for {self.scope}"

    @property
    def fields(self) -> dict[str, Any]:
        """What GitLab keeps of it, by the API's own names; without key, scope and whether it is hidden."""
        found = {
            "value": reveal(self.value),
            "masked": self.masked or self.hidden,
            "protected": self.protected,
            "raw": self.raw,
            "variable_type": self.type,
        }
        return found | ({"description": self.description} if self.description is not None else {})


@dataclass(frozen=True)
class WantedProject:
    """A project: `settings` by the API's own names, runners by name or id, variables.

    registered  names of runners that a task before this one registers
    """

    path: str
    settings: tuple[tuple[str, Any], ...] = ()
    runners: tuple[str | int, ...] = ()
    registered: tuple[str, ...] = ()
    variables: tuple[WantedVariable, ...] = ()

    @property
    def address(self) -> str:
        """Where it is below /api/v4."""
        return project_address(self.path)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked for."""
        return not (self.settings or self.runners or self.variables)

    @property
    def wish(self) -> dict[str, Any]:
        """All of it as plain data, secrets revealed: to be fingerprinted, not to be kept."""
        variables = [[one.key, one.scope, one.hidden, one.fields] for one in self.variables]
        return {"settings": dict(self.settings), "runners": list(self.runners), "variables": variables}


def project_address(path: str) -> str:
    """`/projects/group%2Fname`."""
    return f"/projects/{quote(path, safe='')}"
