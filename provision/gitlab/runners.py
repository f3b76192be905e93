"""Runners of GitLab, made by its API.  Source: GitLab's REST API, POST /user/runners and POST /runners."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from provision.errors import ApiFailed, ChangeFailed
from provision.gitlab.api import Api
from provision.secret import Secret


@dataclass(frozen=True)
class Made:
    """A runner that GitLab has just made; its token is told only this once."""

    id: int
    token: Secret


@dataclass(frozen=True)
class RunnerMaker:
    """How a runner comes to be: `fields` are the API's own (description, tag_list, locked, …).

    marker              a line of the maintenance note that tells which host and runner it was made for
    registration_token  the legacy way; else `api.token` must hold scope create_runner or api
    """

    api: Api
    fields: Mapping[str, Any] = field(hash=False)
    scope: str = "instance_type"
    owner: int | str | None = None
    registration_token: Secret | None = None
    marker: str = ""

    @property
    def whose(self) -> str:
        """Whose runner it is to be: what tells it from one of another project."""
        return " ".join(str(one) for one in (self.scope, self.owner) if one is not None)

    def make(self) -> Made:
        """Makes it, or takes one over that an earlier, killed run has made. Raises ApiFailed with GitLab's reason."""
        orphan = self._orphan() if self.marker and self.registration_token is None else None
        if orphan is not None:
            self.api.put(f"/runners/{orphan}", self._changed_since())
            answer = self.api.post(f"/runners/{orphan}/reset_authentication_token", {})
            return Made(orphan, Secret(str(answer["token"])))
        data = {key: value for key, value in self.fields.items() if value is not None}
        if self.marker:
            note = data.get("maintenance_note")
            data["maintenance_note"] = f"{note}\n{self.marker}" if note else self.marker
        if self.registration_token is not None:
            answer = self.api.post("/runners", {**data, "token": self.registration_token.reveal()})
        else:
            answer = self.api.post("/user/runners", {**data, "runner_type": self.scope, **self._owner()})
        try:
            return Made(int(answer["id"]), Secret(str(answer["token"])))
        except (KeyError, ValueError) as error:
            raise ChangeFailed(f"GitLab at {self.api.url} made a runner but told no token: {sorted(answer)}") from error

    def _changed_since(self) -> dict[str, Any]:
        # The inventory may say something else by now than when it was made.
        return {key: value for key, value in self.fields.items() if value is not None and key != "maintenance_note"}

    def _orphan(self) -> int | None:
        """A runner of ours that was made and never came to its host: by the marker in its note.

        A token that may only create runners cannot see any: then none is looked for.
        """
        path = "/runners/all" if self.scope == "instance_type" else "/runners"
        try:
            for one in self.api.get_list(path, {"status": "never_contacted", "type": self.scope}):
                if one.get("description") != self.fields.get("description"):
                    continue
                note = str(self.api.get(f"/runners/{one['id']}").get("maintenance_note") or "")
                if self.marker in note.splitlines():
                    return int(one["id"])
        except ApiFailed as error:
            if error.status not in (401, 403):
                raise
        return None

    def _owner(self) -> dict[str, int]:
        if self.owner is None:
            return {}
        if self.scope == "project_type":
            return {"project_id": self.owner if isinstance(self.owner, int) else self.api.id_of("projects", self.owner)}
        if self.scope == "group_type":
            return {"group_id": self.owner if isinstance(self.owner, int) else self.api.id_of("groups", self.owner)}
        return {}
