"""The resource: a project of GitLab is set up as the inventory says.

Asked from here, when the wanted state differs from the one on record, when the user named `project`, or when something was
changed earlier in the run. What the inventory does not mention is left to the UI.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from provision.errors import ApiFailed, Refused
from provision.gitlab.api import Api
from provision.host.files import ASK_STATE, read_state
from provision.resources.base import Ask, Call, Change, Json, Note, Observation, Probe, Resource, unproven
from provision.resources.delivery import project_parts
from provision.resources.delivery.project_parts import WantedProject, key_in, keyed, look, project_record, variables_in
from provision.shell import Command, Result, sh


@dataclass(frozen=True)
class ProjectSettings(Resource):
    """Settings, runners and variables of a project that is there already. `always`: ask GitLab whatever is on record."""

    wanted: WantedProject
    api: Api
    always: bool = False

    @property
    def label(self) -> str:
        return f"ProjectSettings {self.wanted.path}"

    def probe(self) -> Probe:
        key = ("gitlab project", self.api.url, self.wanted, self.always)
        return Probe({"gitlab": Ask(key, self._ask, needs=ASK_STATE), "state": ASK_STATE})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        answer = json.loads(seen["gitlab"].text)
        if answer.get("skipped"):
            return
        state = read_state(seen["state"].text)
        text = f"compare project {self.wanted.path} with GitLab"
        if problem := answer.get("problem"):
            if not answer["status"]:  # not reached: on a bare estate check mode foresees that it will be
                yield unproven(text, problem)
                return
            raise ApiFailed(f"project {self.wanted.path}: {problem}", hint=answer["hint"], status=answer["status"])
        if not answer["there"]:
            raise Refused(
                f"project {self.wanted.path} is not there, or gitlab.api_token may not see it",
                hint="correct its path, or make it in GitLab: projects are set up here, not made",
            )
        left = [*self._settings(answer["project"])]
        left += project_parts.runner_changes(self.api, self.wanted, answer["runners"], answer["names"])
        left += project_parts.variable_changes(self.api, self.wanted, answer["variables"], state)
        yield from left
        memory = {**project_parts.remembered(self.wanted, state), project_record(self.wanted.path): self._wish(state)}
        agreed = all(state.get(name) == value for name, value in memory.items())
        if not agreed and not any(one.waits_for for one in left):
            yield Change(text, sh(":"), "run", remember=memory, leaves=False, last=True)

    def _settings(self, now: Mapping[str, Any]) -> Iterator[Change]:
        wrong = {name: value for name, value in self.wanted.settings if now.get(name) != value}
        if not wrong:
            return

        def make() -> tuple[Command, Mapping[str, Json]]:
            self.api.put(self.wanted.address, wrong)
            return sh(":"), {}

        head = [f"--- project {self.wanted.path} (now)", f"+++ project {self.wanted.path} (wanted)"]
        lines = [f"-{name}: {now.get(name)}\n+{name}: {value}" for name, value in wrong.items()]
        text = f"set {', '.join(wrong)} of project {self.wanted.path}"
        yield Change(text, Call(make, "PUT /projects/:id"), diff="\n".join([*head, *lines]))

    def _wish(self, state: Mapping[str, Any]) -> str:
        return keyed(key_in(state), [str(self.api.url), self.wanted.wish])

    def _ask(self, there: Result | None) -> Result:
        state = read_state(there.text if there else "")
        ours = set(variables_in(state, self.wanted.path))
        agreed = not self.always and state.get(project_record(self.wanted.path)) == self._wish(state)
        if agreed or (self.wanted.is_empty and not ours):
            return _json({"skipped": True})
        try:
            found = look(self.api, self.wanted, ours)
        except ApiFailed as error:
            return _json({"problem": error.text, "hint": error.hint, "status": error.status})
        return _json({**found, "there": bool(found)})


def _json(answer: dict[str, Any]) -> Result:
    return Result(json.dumps(answer).encode())
