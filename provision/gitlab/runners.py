"""Creating runners through the API.  Source: GitLab's REST API, POST /user/runners and POST /runners."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from provision.errors import ApiFailed, ChangeFailed
from provision.gitlab.api import Api
from provision.secret import Secret


class NewRunner(NamedTuple):
    """A runner that GitLab has just created. GitLab shows its token only once."""

    id: int
    token: Secret


@dataclass(frozen=True)
class RunnerCreator:
    """How to create a runner.

    fields              the API's own fields: description, tag_list, locked, …; None values are not sent
    scope               "instance_type", "group_type" or "project_type"
    owner               the project or group, by number or path
    registration_token  the legacy way; without it `api.token` must have the scope create_runner or api
    marker              a line of the maintenance note that identifies the host and the runner. It finds a runner of the
                        same project or group that an earlier, killed run created and that never contacted GitLab
    """

    api: Api
    fields: Mapping[str, Any] = field(hash=False)
    scope: str = "instance_type"
    owner: int | str | None = None
    registration_token: Secret | None = None
    marker: str = ""

    @property
    def scope_and_owner(self) -> str:
        """The scope and owner as one text, such as "project_type sammy/hello"."""
        return " ".join(str(one) for one in (self.scope, self.owner) if one is not None)

    def create(self) -> NewRunner:
        """Creates the runner, or takes over one that an earlier, killed run created. Raises ApiFailed, ChangeFailed."""
        unused = self._find_unused() if self.marker and self.registration_token is None else None
        if unused is not None:
            # The inventory may have changed since that run.
            fields = {name: value for name, value in self._given().items() if name != "maintenance_note"}
            self.api.put(f"/runners/{unused}", fields)
            answer = self.api.post(f"/runners/{unused}/reset_authentication_token", {})
            return NewRunner(unused, Secret(str(answer["token"])))
        data = self._given()
        if self.marker:
            note = data.get("maintenance_note")
            data["maintenance_note"] = f"{note}\n{self.marker}" if note else self.marker
        if self.registration_token is not None:
            answer = self.api.post("/runners", {**data, "token": self.registration_token.reveal()})
        else:
            answer = self.api.post("/user/runners", {**data, "runner_type": self.scope, **self._owner()})
        try:
            return NewRunner(int(answer["id"]), Secret(str(answer["token"])))
        except (KeyError, ValueError) as error:
            raise ChangeFailed(
                f"GitLab at {self.api.url} created a runner but returned no token: {sorted(answer)}"
            ) from error

    def _given(self) -> dict[str, Any]:
        return {name: value for name, value in self.fields.items() if value is not None}

    def _find_unused(self) -> int | None:
        """The number of a runner of the same project or group with our marker that never contacted GitLab.

        None also for a token that may create runners but not list them. Another estate may have a host and a runner of
        the same names in another project: its runner is not ours.
        """
        path = "/runners/all" if self.scope == "instance_type" else "/runners"
        try:
            for one in self.api.get_list(path, {"status": "never_contacted", "type": self.scope}):
                if one.get("description") != self.fields.get("description"):
                    continue
                found = self.api.get(f"/runners/{one['id']}")
                note = str(found.get("maintenance_note") or "")
                if self.marker in note.splitlines() and self._is_of_owner(found):
                    return int(one["id"])
        except ApiFailed as error:
            if error.status not in (401, 403):
                raise
        return None

    def _is_of_owner(self, found: Mapping[str, Any]) -> bool:
        """Whether a runner belongs to our project or group and to no other one."""
        if found.get("runner_type") != self.scope:
            return False
        kind = {"project_type": "projects", "group_type": "groups"}.get(self.scope)
        return kind is None or [one.get("id") for one in found.get(kind) or ()] == list(self._owner().values())

    def _owner(self) -> dict[str, int]:
        if self.owner is None:
            return {}
        if self.scope == "project_type":
            return {"project_id": self.owner if isinstance(self.owner, int) else self.api.id_of("projects", self.owner)}
        if self.scope == "group_type":
            return {"group_id": self.owner if isinstance(self.owner, int) else self.api.id_of("groups", self.owner)}
        return {}
