"""Runners through the API: creating them, why none takes a job, and what they write into a job's log.

Sources: GitLab's REST API, POST /user/runners and POST /runners; /projects/:id/runners and /runners/:id; app/models/ci/build.rb (`stuck?`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from provision.errors import ApiFailed, ChangeFailed
from provision.gitlab.api import Api
from provision.masking import mask, printable_lines
from provision.secret import Secret

_MOST_SHOWN: Final = 5
_LONGEST_LINE: Final = 400  # characters of a log's line that are shown
# The beginning of a line from a runner with FF_TIMESTAMPS: time, stream, and `+` if it continues the line before.
# Source: gitlab-runner's common/buildlogger, GitLab's Gitlab::Ci::Ansi2json.
_TIMESTAMP: Final = re.compile(r"^\d{4}-\d\d-\d\dT[0-9:.]{8,24}Z [0-9a-f]{2}[EO]([ +]?)")
_SECTION: Final = re.compile(r"section_(start|end):\d+:([\w.-]+)(?:\[[^\]\r]*\])?\r")
_CLEANUP: Final = "cleanup_file_variables"  # the section that a runner prints after the script


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


def why_not_taken(api: Api, project: str, tags: Sequence[str]) -> str:
    """Why no runner takes a job with these tags, with the runners of the project at an address such as `/projects/7`."""
    try:
        listed = api.get_list(f"{project}/runners", {"per_page": 100})
    except ApiFailed as error:
        if error.status != 403:
            raise
        return "the token may not list the project's runners"
    wanted = f"the tags {', '.join(tags)}" if tags else "no tags"
    if not listed:
        return f"the project has no runner; the job has {wanted}"
    runners = [_Runner.of(one, _details(api, one)) for one in listed]
    taking = [one for one in runners if one.takes(tags)]
    if not taking:
        return f"no runner takes it: the job has {wanted}; {', '.join(map(str, runners[:_MOST_SHOWN]))}"
    ready = [one for one in taking if one.is_ready]
    if not ready:
        states = ", ".join(f"{one} is {one.state}" for one in taking[:_MOST_SHOWN])
        return f"no runner that takes it is ready: {states}"
    return f"it waits for {' or '.join(map(str, ready[:_MOST_SHOWN]))}, which may be busy"


def _details(api: Api, one: Mapping[str, Any]) -> Mapping[str, Any]:
    """A runner with what the API gives only to its administrators; {} for others."""
    try:
        return api.get(f"/runners/{one['id']}")
    except ApiFailed as error:
        if error.status not in (403, 404):
            raise
        return {}


class _Runner(NamedTuple):
    """A runner, as far as it decides which jobs it takes. `tags` is None if the token may not read them."""

    name: str
    state: str
    tags: tuple[str, ...] | None
    untagged: bool

    @classmethod
    def of(cls, listed: Mapping[str, Any], details: Mapping[str, Any]) -> _Runner:
        state = "paused" if listed.get("paused") else str(listed.get("status") or "unknown")
        tags = tuple(map(str, details["tag_list"])) if "tag_list" in details else None
        name = str(listed.get("description") or f"#{listed['id']}")
        return cls(name, state.replace("_", " "), tags, bool(details.get("run_untagged", True)))

    def takes(self, tags: Sequence[str]) -> bool:
        if self.tags is None:
            return True
        return set(tags) <= set(self.tags) if tags else self.untagged

    @property
    def is_ready(self) -> bool:
        return self.state in ("online", "idle", "active")

    def __str__(self) -> str:
        return f"runner {self.name} ({', '.join(self.tags)})" if self.tags else f"runner {self.name}"


def log_lines(raw: bytes, count: int) -> list[str]:
    """The last lines of a job's log: without a runner's times, sections and colours, masked and printable."""
    lines: list[str] = []
    for line in raw.decode(errors="replace").split("\n"):
        time_of = _TIMESTAMP.match(line)
        text = line[time_of.end() :] if time_of else line
        if time_of and time_of[1] == "+" and lines:
            lines[-1] += text
        else:
            lines.append(text)
    kept, inside = [], ""
    for line in lines:
        for kind, name in _SECTION.findall(line):
            inside = name if kind == "start" else ""
        if inside != _CLEANUP:
            kept.append(line)
    # Masked twice: a secret may hold a tab, or be interrupted by a colour.
    shown = printable_lines(mask("\n".join(kept), keep_lines=True))
    found = [line for line in mask("\n".join(shown), keep_lines=True).split("\n") if line.strip()][-count:]
    return [line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…" for line in found]
