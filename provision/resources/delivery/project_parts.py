"""What is asked for of a project.

What state.json remembers of projects: that they were as wanted, and which variables are ours.

A value that GitLab never tells again is compared by its fingerprint: HMAC-SHA256 under a random key that state.json
keeps. Without that file a fingerprint says nothing, not even whether two values are equal.

What is there in GitLab, as far as it is needed to compare a project with what is wanted.

Which runners are to be assigned to a project, and locked to it.  Source: GitLab's REST API, /projects/:id/runners.

Which CI/CD variables differ, and what brings them about.  Source: GitLab's REST API, /projects/:id/variables.

No value is ever shown. Whether a variable is hidden is decided when it is made: to change that, it is deleted and made anew.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from provision.errors import ApiFailed, ChangedMeanwhile, Refused, did_you_mean
from provision.gitlab.api import Api
from provision.resources.base import NOTHING, ApiAction, Change, Json, Observation
from provision.secret import Secret, reveal


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


def keyed(key: str, value: Any) -> str:
    """The fingerprint of plain data."""
    text = json.dumps(value, sort_keys=True)
    return hmac.new(bytes.fromhex(key), text.encode(), hashlib.sha256).hexdigest()[:32]


def project_record(path: str) -> str:
    """The record key of the project's last comparison with GitLab."""
    return f"gitlab project/{path}"


def variable_record(path: str, name: str, scope: str) -> str:
    """The record key of a variable that is ours; its record is the fingerprint of its value."""
    return f"gitlab variable/{path} {name} {scope}"


def variables_in(records: Mapping[str, Json], path: str) -> Iterator[tuple[str, str]]:
    """Name and scope of the variables of a project that are ours."""
    for record in records:
        before, _, after = record.partition(f"gitlab variable/{path} ")
        if not before and after:
            name, _, scope = after.partition(" ")
            yield name, scope


def look(api: Api, wanted: WantedProject, ours: Collection[tuple[str, str]]) -> dict[str, Any]:
    """The project's settings, its variables (wanted ones and ours), and runners of the wanted names.

    Raises ApiFailed; `{}` where there is no such project for this token.
    """
    project = api.find(wanted.address)
    if project is None:
        return {}
    concerned = {(one.key, one.scope) for one in wanted.variables} | set(ours)
    variables = api.get_list(f"{wanted.address}/variables", {"per_page": 100}) if concerned else []
    return {
        "project": {name: project.get(name) for name, _ in wanted.settings},
        "variables": [one for one in variables if (one["key"], one["environment_scope"]) in concerned],
        **_runners(api, wanted, int(project["id"])),
    }


def _runners(api: Api, wanted: WantedProject, project: int) -> dict[str, Any]:
    if not wanted.runners:
        return {"runners": [], "names": []}
    listed = _all_runners(api)
    chosen = [one for one in listed if one["description"] in wanted.runners or one["id"] in wanted.runners]
    found = []
    for one in sorted(chosen, key=lambda one: int(one["id"])):
        details = api.get(f"/runners/{one['id']}") if one["runner_type"] == "project_type" else one
        assigned = any(other["id"] == project for other in details.get("projects", ()))
        kept = {name: details.get(name) for name in ("id", "description", "runner_type", "locked")}
        found.append({**kept, "assigned": assigned})
    return {"runners": found, "names": sorted({str(one["description"]) for one in listed if one["description"]})}


def _all_runners(api: Api) -> list[dict[str, Any]]:
    """All that the token may see: an administrator's sees all, others' those of their own projects and groups."""
    query = {"per_page": 100}
    try:
        return api.get_list("/runners/all", query)
    except ApiFailed as error:
        if error.status != 403:
            raise
        return api.get_list("/runners", query)


Found = Mapping[str, Any]


def runner_changes(api: Api, wanted: WantedProject, runners: Sequence[Found], names: Sequence[str]) -> Iterator[Change]:
    """What is left to do for each wanted runner. Raises Refused for one that is not there, or that cannot be assigned."""
    for name in wanted.runners:
        found = [one for one in runners if name in (one["id"], one["description"])]
        if not found and name in wanted.registered:
            yield Change(
                f"assign runner {name} to project {wanted.path}, and lock it",
                NOTHING,
                requires="register",
                id=str(name),
            )
        elif not found:
            raise Refused(
                f"project {wanted.path}: no runner in GitLab is called {name!r}{did_you_mean(str(name), names)}",
                hint="name one of [[runners]], the description of one that GitLab knows, or its id",
            )
        own = [one for one in found if one["runner_type"] == "project_type"]
        if found and not own:
            raise Refused(
                f"project {wanted.path}: runner {name} is of {found[0]['runner_type']}: only a project's runner can be "
                "assigned and locked",
                hint='register it with project = "group/name" in [[runners]], or take it out of the project\'s runners',
            )
        for one in own:
            yield from _change(api, wanted, one)


def _change(api: Api, wanted: WantedProject, runner: Found) -> Iterator[Change]:
    called = f"runner {runner['description']} (#{runner['id']})"
    if runner["assigned"] and runner["locked"]:
        return

    def make() -> None:
        number = int(runner["id"])
        if not runner["assigned"]:
            # GitLab assigns none that is locked to other projects; another project may have locked it a moment ago.
            if api.get(f"/runners/{number}")["locked"]:
                api.put(f"/runners/{number}", {"locked": False})
            api.post(f"{wanted.address}/runners", {"runner_id": number})
        api.put(f"/runners/{number}", {"locked": True})

    if runner["assigned"]:
        yield Change(f"lock {called} to its projects", ApiAction(make, "PUT /runners/:id"), id=called)
    else:
        call = ApiAction(make, "POST /projects/:id/runners")
        yield Change(f"assign {called} to project {wanted.path}, and lock it", call, "create", id=called)


FoundVariable = Mapping[str, Any]


def variable_changes(
    api: Api, wanted: WantedProject, there: Sequence[FoundVariable], seen: Observation
) -> Iterator[Change]:
    """What is left to do: first those to be set, then those of ours that are wanted no more. Others' are left alone."""
    found = {(str(one["key"]), str(one["environment_scope"])): one for one in there}
    for one in wanted.variables:
        now = found.get((one.key, one.scope))
        if now is None:
            yield _set(api, wanted, one, seen, "create", f"create variable {one.shown} of project {wanted.path}")
        elif bool(now.get("hidden")) != one.hidden:
            how = "hidden" if one.hidden else "not hidden"
            text = f"delete variable {one.shown} of project {wanted.path} and make it anew: {how} it can only be from the start"
            yield _set(api, wanted, one, seen, "replace", text)
        elif wrong := _differing(
            one, now, seen.records.get(variable_record(wanted.path, one.key, one.scope)), seen.fingerprint_key
        ):
            text = f"set {', '.join(wrong)} of variable {one.shown} of project {wanted.path}"
            yield _set(api, wanted, one, seen, "update", text, _diff(one, now, wrong))
    for name, scope in dropped(wanted, seen.records):
        if (name, scope) in found:
            yield _delete(api, wanted, name, scope)


def variable_records(wanted: WantedProject, seen: Observation) -> dict[str, Json]:
    """The records of the project's variables when all of them are as wanted; None for one that is dropped."""
    key = seen.fingerprint_key
    ours = {
        variable_record(wanted.path, one.key, one.scope): keyed(key, one.fields["value"]) for one in wanted.variables
    }
    return {**{variable_record(wanted.path, *one): None for one in dropped(wanted, seen.records)}, **ours}


def dropped(wanted: WantedProject, records: Mapping[str, Json]) -> list[tuple[str, str]]:
    """Name and scope of those that are ours, and wanted no more."""
    kept = {(one.key, one.scope) for one in wanted.variables}
    return [one for one in variables_in(records, wanted.path) if one not in kept]


def _differing(one: WantedVariable, now: FoundVariable, agreed: Any, key: str) -> list[str]:
    fields = one.fields
    # A hidden value is never told again.
    same_value = agreed == keyed(key, fields["value"]) if one.hidden else now["value"] == fields["value"]
    wrong = [name for name in fields if name != "value" and now.get(name) != fields[name]]
    return wrong if same_value else ["value", *wrong]


def _diff(one: WantedVariable, now: FoundVariable, wrong: Sequence[str]) -> str:
    lines = [f"--- variable {one.shown} (now)", f"+++ variable {one.shown} (wanted)"]
    for name in wrong:
        if name == "value":
            lines += ["-value: (another)", "+value: (that of the inventory)"]
        else:
            lines += [f"-{name}: {now.get(name)}", f"+{name}: {one.fields[name]}"]
    return "\n".join(lines)


def _set(
    api: Api, wanted: WantedProject, one: WantedVariable, seen: Observation, how: str, summary: str, diff: str = ""
) -> Change:
    place = f"{wanted.address}/variables"
    fingerprint = keyed(seen.fingerprint_key, one.fields["value"])
    made = {"key": one.key, "environment_scope": one.scope, **one.fields}
    if one.hidden:
        made["masked_and_hidden"] = True  # beside `masked`: a GitLab before 17.4 passes over what it does not know

    def make() -> None:
        if how == "update":
            _raced(lambda: api.put(f"{place}/{one.key}", {**one.fields, "filter": {"environment_scope": one.scope}}))
        elif how == "create":
            _raced(lambda: _make(api, place, one, made))
        else:
            _raced(lambda: api.delete(f"{place}/{one.key}", {"filter[environment_scope]": one.scope}))
            try:
                _make(api, place, one, made)
            except ApiFailed as error:
                text = f"variable {one.shown} of project {wanted.path} was deleted, and could not be made anew: {error.text}"
                raise ApiFailed(text, hint="run the same command again: it makes it", status=error.status) from error

    call = ApiAction(make, f"{'PUT' if how == 'update' else 'POST'} /projects/:id/variables")
    return Change(
        summary,
        call,
        "create" if how == "create" else "update",
        diff=diff,
        records={variable_record(wanted.path, one.key, one.scope): fingerprint},
        id=f"set variable {one.shown}",
    )


def _make(api: Api, place: str, one: WantedVariable, made: Mapping[str, Any]) -> None:
    answer = api.post(place, dict(made))
    if one.hidden and not answer.get("hidden"):
        raise ApiFailed(
            f"variable {one.shown} is masked, and not hidden: this GitLab does not hide variables",
            hint="that takes GitLab 17.4: say masked instead of hidden",
        )


def _delete(api: Api, wanted: WantedProject, name: str, scope: str) -> Change:
    def make() -> None:
        place = f"{wanted.address}/variables/{name}"
        _raced(lambda: api.delete(place, {"filter[environment_scope]": scope}))

    shown = name if scope == "*" else f"{name} for {scope}"
    text = f"delete variable {shown} of project {wanted.path}: we set it, and it is wanted no more"
    return Change(
        text,
        ApiAction(make, "DELETE /projects/:id/variables/:key"),
        "delete",
        records={variable_record(wanted.path, name, scope): None},
        id=f"delete variable {shown}",
    )


def _raced(ask: Callable[[], object]) -> None:
    """Raises ChangedMeanwhile where somebody else made or deleted the variable since it was looked at."""
    try:
        ask()
    except ApiFailed as error:
        if error.status == 404 or (error.status == 400 and "already been taken" in error.text):
            raise ChangedMeanwhile(f"somebody else changed a variable meanwhile: {error.text}") from error
        raise
