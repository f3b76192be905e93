"""CI/CD variables of a project.  Source: GitLab's REST API, /projects/:id/variables.

No value is ever shown. Whether a variable is hidden is decided when it is created: to change that, it is deleted and created
again. GitLab does not return hidden values, so those are compared by a fingerprint in the records: HMAC-SHA256 under a
random key of the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from provision.editing.diff import settings_diff
from provision.errors import ApiFailed, ChangedMeanwhile
from provision.gitlab.api import Api
from provision.host.state import fingerprint
from provision.resources.base import ApiAction, Change, Json, Observation
from provision.secret import Secret, reveal

Found = Mapping[str, Any]
"""A variable as the API returns it."""
How = Literal["create", "update", "recreate"]


@dataclass(frozen=True)
class WantedVariable:
    """A CI/CD variable for one environment scope. Without a `description` the existing one stays."""

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
    def name(self) -> str:
        """Its name in plans and messages."""
        return _name(self.key, self.scope)

    @property
    def fields(self) -> dict[str, Any]:
        """What GitLab stores, by the API's names; without key, scope and whether it is hidden."""
        found = {
            "value": reveal(self.value),
            "masked": self.masked or self.hidden,
            "protected": self.protected,
            "raw": self.raw,
            "variable_type": self.type,
        }
        return found | ({"description": self.description} if self.description is not None else {})


@dataclass(frozen=True)
class ProjectVariables:
    """The variables of one project: `path` is its path, `address` its place in the API (`/projects/group%2Fname`)."""

    api: Api
    path: str
    address: str
    wanted: tuple[WantedVariable, ...]

    def changes(self, found: Sequence[Found], seen: Observation) -> Iterator[Change]:
        """The necessary changes: variables to set, then our variables to delete. Other variables are unchanged."""
        existing = {(str(one["key"]), str(one["environment_scope"])): one for one in found}
        for one in self.wanted:
            now = existing.get((one.key, one.scope))
            if now is None:
                yield self._set(one, seen, "create", f"create variable {one.name} of project {self.path}")
            elif bool(now.get("hidden")) != one.hidden:
                how = "hidden" if one.hidden else "not hidden"
                text = f"delete and create variable {one.name} of project {self.path}, so that it is {how}"
                yield self._set(one, seen, "recreate", text)
            elif differing := self._differing(one, now, seen):
                text = f"set {', '.join(differing)} of variable {one.name} of project {self.path}"
                yield self._set(one, seen, "update", text, _diff(one, now, differing))
        for key, scope in self._dropped(seen.records):
            if (key, scope) in existing:
                yield self._delete(key, scope)

    def records(self, seen: Observation) -> dict[str, Json]:
        """The records when all variables are as wanted; None for one that is dropped."""
        dropped: dict[str, Json] = {self._record_key(*one): None for one in self._dropped(seen.records)}
        return {**dropped, **{self._record_key(one.key, one.scope): _fingerprint(one, seen) for one in self.wanted}}

    def recorded(self, records: Mapping[str, Json]) -> list[tuple[str, str]]:
        """Key and scope of the variables that we set."""
        found = []
        for record in records:
            if record.startswith(self._prefix):
                key, _, scope = record.removeprefix(self._prefix).partition(" ")
                found.append((key, scope))
        return found

    def _dropped(self, records: Mapping[str, Json]) -> list[tuple[str, str]]:
        kept = {(one.key, one.scope) for one in self.wanted}
        return [one for one in self.recorded(records) if one not in kept]

    @property
    def _prefix(self) -> str:
        return f"gitlab variable/{self.path} "

    def _record_key(self, key: str, scope: str) -> str:
        return f"{self._prefix}{key} {scope}"

    def _differing(self, one: WantedVariable, now: Found, seen: Observation) -> list[str]:
        fields = one.fields
        recorded = seen.records.get(self._record_key(one.key, one.scope))
        same_value = recorded == _fingerprint(one, seen) if one.hidden else now["value"] == fields["value"]
        differing = [name for name in fields if name != "value" and now.get(name) != fields[name]]
        return differing if same_value else ["value", *differing]

    def _set(self, one: WantedVariable, seen: Observation, how: How, summary: str, diff: str = "") -> Change:
        address = f"{self.address}/variables"
        scope = one.scope

        def make() -> None:
            if how == "update":
                fields = {**one.fields, "filter": {"environment_scope": scope}}
                _unless_raced(lambda: self.api.put(f"{address}/{one.key}", fields))
            elif how == "create":
                _unless_raced(lambda: self._create(one))
            else:
                _unless_raced(lambda: self.api.delete(f"{address}/{one.key}", {"filter[environment_scope]": scope}))
                try:
                    self._create(one)
                except ApiFailed as error:
                    text = f"variable {one.name} of project {self.path} was deleted and could not be created again: {error.text}"
                    raise ApiFailed(text, hint="rerun the command: it creates it", status=error.status) from error

        return Change(
            summary,
            ApiAction(make, f"{'PUT' if how == 'update' else 'POST'} /projects/:id/variables"),
            "create" if how == "create" else "update",
            diff=diff,
            records={self._record_key(one.key, one.scope): _fingerprint(one, seen)},
            id=f"set variable {one.name}",
        )

    def _create(self, one: WantedVariable) -> None:
        fields = {"key": one.key, "environment_scope": one.scope, **one.fields}
        if one.hidden:
            fields["masked_and_hidden"] = True  # in addition to `masked`: GitLab before 17.4 ignores unknown fields
        answer = self.api.post(f"{self.address}/variables", fields)
        if one.hidden and not answer.get("hidden"):
            raise ApiFailed(
                f"variable {one.name} is masked but not hidden: this GitLab does not hide variables",
                hint="hidden needs GitLab 17.4: use masked instead",
            )

    def _delete(self, key: str, scope: str) -> Change:
        def make() -> None:
            address = f"{self.address}/variables/{key}"
            _unless_raced(lambda: self.api.delete(address, {"filter[environment_scope]": scope}))

        name = _name(key, scope)
        return Change(
            f"delete variable {name} of project {self.path}: it is no longer in the inventory",
            ApiAction(make, "DELETE /projects/:id/variables/:key"),
            "delete",
            records={self._record_key(key, scope): None},
            id=f"delete variable {name}",
        )


def _fingerprint(one: WantedVariable, seen: Observation) -> str:
    return fingerprint(seen.fingerprint_key, one.fields["value"])


def _name(key: str, scope: str) -> str:
    return key if scope == "*" else f"{key} for {scope}"


def _diff(one: WantedVariable, now: Found, differing: Sequence[str]) -> str:
    """The differing attributes. Values are secret: they are not shown."""
    wanted = {**one.fields, "value": "(that of the inventory)"}
    return settings_diff(
        f"variable {one.name}", {**now, "value": "(another)"}, {name: wanted[name] for name in differing}
    )


def _unless_raced(request: Callable[[], object]) -> None:
    """Sends the request. Raises ChangedMeanwhile if the variable was created or deleted since it was observed."""
    try:
        request()
    except ApiFailed as error:
        if error.status == 404 or (error.status == 400 and "already been taken" in error.text):
            raise ChangedMeanwhile(
                f"a variable was changed by another program in the meantime: {error.text}"
            ) from error
        raise
