"""Which CI/CD variables differ, and what brings them about.  Source: GitLab's REST API, /projects/:id/variables.

No value is ever shown. Whether a variable is hidden is decided when it is made: to change that, it is deleted and made anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from provision.errors import ApiFailed, ChangedMeanwhile
from provision.gitlab.api import Api
from provision.resources.base import Call, Change, Json
from provision.resources.gitlab_project.memory import KEY, key_in, keyed, variable_record, variables_in
from provision.resources.gitlab_project.model import WantedProject, WantedVariable
from provision.shell import Command, sh

Found = Mapping[str, Any]
State = Mapping[str, Any]


def changes(api: Api, wanted: WantedProject, there: Sequence[Found], state: State) -> Iterator[Change]:
    """What is left to do: first those to be set, then those of ours that are wanted no more. Others' are left alone."""
    found = {(str(one["key"]), str(one["environment_scope"])): one for one in there}
    for one in wanted.variables:
        now = found.get((one.key, one.scope))
        if now is None:
            yield _set(api, wanted, one, state, "create", f"create variable {one.shown} of project {wanted.path}")
        elif bool(now.get("hidden")) != one.hidden:
            how = "hidden" if one.hidden else "not hidden"
            text = f"delete variable {one.shown} of project {wanted.path} and make it anew: {how} it can only be from the start"
            yield _set(api, wanted, one, state, "replace", text)
        elif wrong := _differing(one, now, state.get(variable_record(wanted.path, one.key, one.scope)), key_in(state)):
            text = f"set {', '.join(wrong)} of variable {one.shown} of project {wanted.path}"
            yield _set(api, wanted, one, state, "update", text, _diff(one, now, wrong))
    for name, scope in dropped(wanted, state):
        if (name, scope) in found:
            yield _delete(api, wanted, name, scope)


def remembered(wanted: WantedProject, state: State) -> dict[str, Json]:
    """What state.json should say of the project's variables once all is as wanted; None: nothing."""
    key = key_in(state)
    ours = {
        variable_record(wanted.path, one.key, one.scope): keyed(key, one.fields["value"]) for one in wanted.variables
    }
    return {**{variable_record(wanted.path, *one): None for one in dropped(wanted, state)}, **ours, KEY: key}


def dropped(wanted: WantedProject, state: State) -> list[tuple[str, str]]:
    """Name and scope of those that are ours, and wanted no more."""
    kept = {(one.key, one.scope) for one in wanted.variables}
    return [one for one in variables_in(state, wanted.path) if one not in kept]


def _differing(one: WantedVariable, now: Found, agreed: Any, key: str) -> list[str]:
    fields = one.fields
    # A hidden value is never told again.
    same_value = agreed == keyed(key, fields["value"]) if one.hidden else now["value"] == fields["value"]
    wrong = [name for name in fields if name != "value" and now.get(name) != fields[name]]
    return wrong if same_value else ["value", *wrong]


def _diff(one: WantedVariable, now: Found, wrong: Sequence[str]) -> str:
    lines = [f"--- variable {one.shown} (now)", f"+++ variable {one.shown} (wanted)"]
    for name in wrong:
        if name == "value":
            lines += ["-value: (another)", "+value: (that of the inventory)"]
        else:
            lines += [f"-{name}: {now.get(name)}", f"+{name}: {one.fields[name]}"]
    return "\n".join(lines)


def _set(
    api: Api, wanted: WantedProject, one: WantedVariable, state: State, how: str, summary: str, diff: str = ""
) -> Change:
    place = f"{wanted.address}/variables"
    key = key_in(state)
    memory = {variable_record(wanted.path, one.key, one.scope): keyed(key, one.fields["value"]), KEY: key}
    made = {"key": one.key, "environment_scope": one.scope, **one.fields}
    if one.hidden:
        made["masked_and_hidden"] = True  # beside `masked`: a GitLab before 17.4 passes over what it does not know

    def make() -> tuple[Command, Mapping[str, Json]]:
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
        return sh(":"), memory

    call = Call(make, f"{'PUT' if how == 'update' else 'POST'} /projects/:id/variables")
    return Change(summary, call, "create" if how == "create" else "update", diff=diff)


def _make(api: Api, place: str, one: WantedVariable, made: Mapping[str, Any]) -> None:
    answer = api.post(place, dict(made))
    if one.hidden and not answer.get("hidden"):
        raise ApiFailed(
            f"variable {one.shown} is masked, and not hidden: this GitLab does not hide variables",
            hint="that takes GitLab 17.4: say masked instead of hidden",
        )


def _delete(api: Api, wanted: WantedProject, name: str, scope: str) -> Change:
    def make() -> tuple[Command, Mapping[str, Json]]:
        place = f"{wanted.address}/variables/{name}"
        _raced(lambda: api.delete(place, {"filter[environment_scope]": scope}))
        return sh(":"), {variable_record(wanted.path, name, scope): None}

    shown = name if scope == "*" else f"{name} for {scope}"
    text = f"delete variable {shown} of project {wanted.path}: we set it, and it is wanted no more"
    return Change(text, Call(make, "DELETE /projects/:id/variables/:key"), "delete")


def _raced(ask: Callable[[], object]) -> None:
    """Raises ChangedMeanwhile where somebody else made or deleted the variable since it was looked at."""
    try:
        ask()
    except ApiFailed as error:
        if error.status == 404 or (error.status == 400 and "already been taken" in error.text):
            raise ChangedMeanwhile(f"somebody else changed a variable meanwhile: {error.text}") from error
        raise
