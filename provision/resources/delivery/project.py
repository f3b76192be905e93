"""The resource: a project of GitLab is set up as the inventory says.

Asked from here, when the wanted state differs from the one on record, when the user named `project`, or when something was
changed earlier in the run. What the inventory does not mention is left to the UI.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from provision.errors import ApiFailed, Refused
from provision.gitlab.api import Api
from provision.resources.base import (
    NOTHING,
    ApiAction,
    ApiQuery,
    Change,
    Note,
    Observation,
    Probe,
    Resource,
    unverified,
)
from provision.resources.delivery import project_parts
from provision.resources.delivery.project_parts import WantedProject, keyed, look, project_record, variables_in


@dataclass(frozen=True)
class ProjectSettings(Resource):
    """Settings, runners and variables of an existing project. What the inventory does not mention is left unchanged."""

    wanted: WantedProject
    api: Api

    @property
    def label(self) -> str:
        return f"ProjectSettings {self.wanted.path}"

    @property
    def record_key(self) -> str:
        return project_record(self.wanted.path)

    def probe(self) -> Probe:
        key = ("gitlab project", self.api.url, self.wanted)
        return Probe({"gitlab": ApiQuery(key, self._ask)})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        found: Mapping[str, Any] | ApiFailed | None = seen.data("gitlab")
        if found is None:
            return
        text = f"compare project {self.wanted.path} with GitLab"
        if isinstance(found, ApiFailed):
            if not found.status:  # not reached: on a bare estate, check mode predicts that it will be
                yield unverified(text, found.text)
                return
            raise ApiFailed(f"project {self.wanted.path}: {found.text}", hint=found.hint, status=found.status)
        if not found:
            raise Refused(
                f"project {self.wanted.path} does not exist, or gitlab.api_token may not see it",
                hint="correct its path, or create it in GitLab: this tool sets projects up and does not create them",
            )
        left = [*self._settings(found["project"])]
        left += project_parts.runner_changes(self.api, self.wanted, found["runners"], found["names"])
        left += project_parts.variable_changes(self.api, self.wanted, found["variables"], seen)
        yield from left
        record, records = self._wish(seen), project_parts.variable_records(self.wanted, seen)
        agreed = seen.record == record and all(seen.records.get(key) == value for key, value in records.items())
        if not agreed and not any(one.requires for one in left):
            yield Change(
                text, NOTHING, "run", record=record, records=records, verification=True, final=True, id="compare"
            )

    def _settings(self, now: Mapping[str, Any]) -> Iterator[Change]:
        wrong = {name: value for name, value in self.wanted.settings if now.get(name) != value}
        if not wrong:
            return

        def make() -> None:
            self.api.put(self.wanted.address, wrong)

        head = [f"--- project {self.wanted.path} (now)", f"+++ project {self.wanted.path} (wanted)"]
        lines = [f"-{name}: {now.get(name)}\n+{name}: {value}" for name, value in wrong.items()]
        text = f"set {', '.join(wrong)} of project {self.wanted.path}"
        yield Change(text, ApiAction(make, "PUT /projects/:id"), diff="\n".join([*head, *lines]))

    def _wish(self, seen: Observation) -> str:
        return keyed(seen.fingerprint_key, [str(self.api.url), self.wanted.wish])

    def _ask(self, seen: Observation) -> Mapping[str, Any] | ApiFailed | None:
        """The project in GitLab, empty where it does not exist; None where nothing is to be compared."""
        ours = set(variables_in(seen.records, self.wanted.path))
        agreed = not seen.due and seen.record == self._wish(seen)
        if agreed or (self.wanted.is_empty and not ours):
            return None
        try:
            return look(self.api, self.wanted, ours)
        except ApiFailed as error:
            return error
