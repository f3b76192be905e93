"""Projects of GitLab: settings, assigned runners and CI/CD variables, through the API.

Sources: GitLab's REST API, /projects/:id, /projects/:id/runners and /runners. What the inventory does not mention is left
unchanged. GitLab is asked when the wanted state differs from the recorded one, or when a verification is due.

CI/CD variables: /projects/:id/variables. No value is ever shown. Whether a variable is hidden is decided when it is
created: to change that, it is deleted and created again. GitLab does not return hidden values, so those are compared by a
fingerprint in the records: HMAC-SHA256 under a random key of the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from provision.editing.diff import settings_diff
from provision.errors import ApiFailed, ChangedMeanwhile, Refused, did_you_mean
from provision.gitlab.api import NO_PROJECT_HINT, Api, project_address
from provision.host.state import fingerprint
from provision.resources.base import (
    NOTHING,
    ApiAction,
    ApiQuery,
    Change,
    Json,
    Note,
    Observation,
    Probe,
    Resource,
    unverified,
)
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


@dataclass(frozen=True)
class WantedProject:
    """What a project should be.

    settings    by the API's own names
    runners     to assign and lock, by description or id
    registered  descriptions of runners that an earlier task registers
    created     whether an earlier task creates it
    """

    path: str
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    runners: tuple[str | int, ...] = ()
    registered: tuple[str, ...] = ()
    variables: tuple[WantedVariable, ...] = ()
    created: bool = False

    @property
    def address(self) -> str:
        """Its place below /api/v4."""
        return project_address(self.path)

    @property
    def is_empty(self) -> bool:
        """Whether it wants nothing."""
        return not (self.settings or self.runners or self.variables)

    def revealed(self) -> dict[str, Any]:
        """The project as plain data with secrets in clear text, to compute a fingerprint."""
        variables = [[one.key, one.scope, one.hidden, one.fields] for one in self.variables]
        return {"settings": dict(self.settings), "runners": list(self.runners), "variables": variables}


@dataclass(frozen=True)
class FoundRunner:
    """A runner in GitLab. `assigned`: to the project."""

    id: int
    description: str
    type: str
    locked: bool
    assigned: bool

    @property
    def name(self) -> str:
        """Its name in plans and messages."""
        return f"runner {self.description} (#{self.id})"


@dataclass(frozen=True)
class FoundProject:
    """A project in GitLab, as far as it is compared.

    variables     wanted ones and ours, as the API returns them
    runners       those with a wanted description or id
    descriptions  of all runners that the token may see
    """

    settings: Mapping[str, Any]
    variables: tuple[Mapping[str, Any], ...]
    runners: tuple[FoundRunner, ...]
    descriptions: tuple[str, ...]


@dataclass(frozen=True)
class ProjectSettings(Resource):
    """An existing project has these settings, runners and variables."""

    wanted: WantedProject
    api: Api

    @property
    def label(self) -> str:
        return f"ProjectSettings {self.wanted.path}"

    @property
    def record_key(self) -> str:
        return f"gitlab project/{self.wanted.path}"

    def probe(self) -> Probe:
        key = ("gitlab project", self.api.url, self.wanted)
        return Probe({"gitlab": ApiQuery(key, self._ask)})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        found: FoundProject | Refused | ApiFailed | None = seen.data("gitlab")
        if found is None:
            return
        path = self.wanted.path
        compare = f"compare project {path} with GitLab"
        if isinstance(found, ApiFailed):
            if not found.status:  # no answer: check mode on a bare estate predicts that there will be one
                yield unverified(compare, found.text, found.requires)
                return
            raise ApiFailed(f"project {path}: {found.text}", hint=found.hint, status=found.status)
        if isinstance(found, Refused) and self.wanted.created:
            yield unverified(compare, found.text, "accounts")
            return
        if isinstance(found, Refused):
            raise found
        changes = [*self._settings(found), *self._runners(found), *self._variables.changes(found.variables, seen)]
        yield from changes
        record, records = self._fingerprint(seen), self._variables.records(seen)
        is_recorded = seen.record == record and all(seen.records.get(key) == value for key, value in records.items())
        if not is_recorded and not any(one.requires for one in changes):
            yield Change(
                compare, NOTHING, "run", record=record, records=records, verification=True, final=True, id="compare"
            )

    @property
    def _variables(self) -> ProjectVariables:
        return ProjectVariables(self.api, self.wanted.path, self.wanted.address, self.wanted.variables)

    def _fingerprint(self, seen: Observation) -> str:
        return fingerprint(seen.fingerprint_key, [str(self.api.url), self.wanted.revealed()])

    def _settings(self, found: FoundProject) -> Iterator[Change]:
        now, path = found.settings, self.wanted.path
        differing = {name: value for name, value in self.wanted.settings.items() if now.get(name) != value}
        if not differing:
            return

        def make() -> None:
            self.api.put(self.wanted.address, differing)

        diff = settings_diff(f"project {path}", now, differing)
        text = f"set {', '.join(differing)} of project {path}"
        yield Change(text, ApiAction(make, "PUT /projects/:id"), diff=diff)

    def _runners(self, found: FoundProject) -> Iterator[Change]:
        """Raises Refused for a runner that does not exist, or that cannot be assigned."""
        path = self.wanted.path
        for wanted in self.wanted.runners:
            matching = [one for one in found.runners if wanted in (one.id, one.description)]
            if not matching and wanted in self.wanted.registered:
                text = f"assign runner {wanted} to project {path} and lock it"
                yield Change(text, NOTHING, requires="register", id=str(wanted))
            elif not matching:
                raise Refused(
                    f"project {path}: no runner in GitLab is called {wanted!r}"
                    f"{did_you_mean(str(wanted), found.descriptions)}",
                    hint="name one of [[runners]], or the description or id of a runner in GitLab",
                )
            assignable = [one for one in matching if one.type == "project_type"]
            if matching and not assignable:
                raise Refused(
                    f"project {path}: runner {wanted} is of {matching[0].type}: only a project's runner can be assigned "
                    "and locked",
                    hint='register it with project = "group/name" in [[runners]], or remove it from the project\'s runners',
                )
            for one in assignable:
                yield from self._assign(one)

    def _assign(self, runner: FoundRunner) -> Iterator[Change]:
        if runner.assigned and runner.locked:
            return
        address = f"/runners/{runner.id}"

        def make() -> None:
            if not runner.assigned:
                # GitLab does not assign a locked runner; another project may have locked it since it was observed.
                if self.api.get(address)["locked"]:
                    self.api.put(address, {"locked": False})
                self.api.post(f"{self.wanted.address}/runners", {"runner_id": runner.id})
            self.api.put(address, {"locked": True})

        if runner.assigned:
            yield Change(f"lock {runner.name} to its projects", ApiAction(make, "PUT /runners/:id"), id=runner.name)
        else:
            text = f"assign {runner.name} to project {self.wanted.path} and lock it"
            yield Change(text, ApiAction(make, "POST /projects/:id/runners"), "create", id=runner.name)

    def _ask(self, seen: Observation) -> FoundProject | Refused | ApiFailed | None:
        """The project in GitLab; None if nothing is to be compared."""
        recorded = self._variables.recorded(seen.records)
        is_recorded = not seen.due and seen.record == self._fingerprint(seen)
        if is_recorded or (self.wanted.is_empty and not recorded):
            return None
        try:
            project = self.api.find(self.wanted.address)
            if project is None:
                return Refused(
                    f"project {self.wanted.path} does not exist, or gitlab.api_token may not see it",
                    hint=NO_PROJECT_HINT,
                )
            compared = {(one.key, one.scope) for one in self.wanted.variables} | set(recorded)
            variables = self.api.get_list(f"{self.wanted.address}/variables", {"per_page": 100}) if compared else []
            runners, descriptions = self._find_runners(int(project["id"]))
        except ApiFailed as error:
            return error
        return FoundProject(
            {name: project.get(name) for name in self.wanted.settings},
            tuple(one for one in variables if (one["key"], one["environment_scope"]) in compared),
            tuple(runners),
            tuple(descriptions),
        )

    def _find_runners(self, project: int) -> tuple[list[FoundRunner], list[str]]:
        """The runners of the wanted descriptions and ids, and the descriptions of all."""
        if not self.wanted.runners:
            return [], []
        listed = self._all_runners()
        chosen = [one for one in listed if {one["description"], one["id"]} & set(self.wanted.runners)]
        found = []
        for one in sorted(chosen, key=lambda one: int(one["id"])):
            details = self.api.get(f"/runners/{one['id']}") if one["runner_type"] == "project_type" else one
            assigned = any(other["id"] == project for other in details.get("projects", ()))
            description, kind = str(details.get("description")), str(details.get("runner_type"))
            found.append(FoundRunner(int(one["id"]), description, kind, bool(details.get("locked")), assigned))
        return found, sorted({str(one["description"]) for one in listed if one["description"]})

    def _all_runners(self) -> list[dict[str, Any]]:
        """All that the token may see: an administrator's sees all runners, others those of their projects and groups."""
        query = {"per_page": 100}
        try:
            return self.api.get_list("/runners/all", query)
        except ApiFailed as error:
            if error.status != 403:
                raise
            return self.api.get_list("/runners", query)
