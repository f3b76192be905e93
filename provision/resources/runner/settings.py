"""The settings of a runner that GitLab stores: tags, paused, locked, ….  Source: GitLab's REST API, /runners/:id.

GitLab is called from here, with gitlab.api_token, and only when the wanted settings differ from the recorded ones, or when
a verification is due. So `provision all` stays quick, and `provision register` finds what was changed in the UI. Settings
that the inventory does not mention belong to the UI.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from provision.editing.diff import settings_diff
from provision.editing.toml.model import fingerprint
from provision.errors import ApiFailed
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
from provision.resources.runner.registrations import RunnerRecord
from provision.secret import Secret
from provision.shell import sh

# Without the host's system id a verification would add an unnamed machine to GitLab's list.
_ASK_SYSTEM_ID = sh(
    "system=; { read -r system < /etc/gitlab-runner/.runner_system_id; } 2>/dev/null; printf '%%s\\n' \"$system\""
)


def settings_key(name: str) -> str:
    """The record key of the settings that were last compared with GitLab."""
    return f"gitlab runner/{name}"


def settings_fingerprint(fields: Mapping[str, Any]) -> str:
    """16 hex digits that identify a set of wanted settings."""
    return hashlib.sha256(json.dumps(dict(fields), sort_keys=True, default=str).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class RunnerSettings(Resource):
    """A runner has these settings in GitLab.

    fields    the API's own names with their values; other settings are not compared
    token     the runner's token, if the inventory has it
    recorded  from what the task recorded, by record key, to its records about runners, by name (`RunnerEntries.recorded`)
    """

    name: str
    api: Api
    fields: Mapping[str, Any] = field(hash=False)
    token: Secret | None = None
    recorded: Callable[[Mapping[str, Any]], Mapping[str, RunnerRecord]] = field(
        default=lambda _: {}, compare=False, repr=False
    )

    @property
    def record_key(self) -> str:
        return settings_key(self.name)

    def probe(self) -> Probe:
        key = ("runner settings", self.api.url, self.name, self._fingerprint)
        return Probe({"runner": ApiQuery(key, self._find, needs=_ASK_SYSTEM_ID)})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        found: Mapping[str, Any] | ApiFailed | None = seen.data("runner")
        if found is None:
            return
        if isinstance(found, ApiFailed):
            yield from self._not_compared(found)
            return
        number = int(found["id"])
        wrong = {name: value for name, value in self.fields.items() if not _is_same(value, found.get(name))}
        if wrong:
            yield Change(
                f"set {', '.join(wrong)} of runner {self.name} in GitLab",
                ApiAction(lambda: self._set(number, wrong), "PUT /runners/:id"),
                diff=settings_diff(f"runner {self.name}", found, wrong),
                record=self._fingerprint,
            )
        elif seen.record != self._fingerprint:
            yield self._record(f"compare runner {self.name} with GitLab")

    def _not_compared(self, error: ApiFailed) -> Iterator[Change | Note]:
        if error.status not in (401, 403):
            yield unverified(f"compare runner {self.name} with GitLab", error.text, error.requires)
            return
        yield Note(
            f"the settings of runner {self.name} are not compared with GitLab: {error.text}; "
            "that takes a token with scope api of a user who may manage the runner"
        )
        yield self._record(f"record that runner {self.name} cannot be compared")

    def _record(self, summary: str) -> Change:
        return Change(summary, NOTHING, "run", record=self._fingerprint, verification=True)

    @property
    def _fingerprint(self) -> str:
        # With another token it is another runner in GitLab, whose settings have not been compared.
        token = {"token": fingerprint(self.token.reveal())} if self.token else {}
        return settings_fingerprint({**self.fields, **token})

    def _find(self, seen: Observation) -> Mapping[str, Any] | ApiFailed | None:
        """The runner in GitLab; None where nothing is to be compared."""
        if not seen.due and seen.record == self._fingerprint:
            return None
        if not self.api.token:
            server = f'gitlab.servers."{self.api.url.origin}"'
            return ApiFailed(f"{self.api.url} is not gitlab.external_url, and {server} has no api_token", status=401)
        try:
            number = self.recorded(seen.records).get(self.name, RunnerRecord()).id or self._number(seen.text.strip())
            found: Mapping[str, Any] | None = self.api.get(f"/runners/{number}") if number is not None else None
        except ApiFailed as error:
            return None if error.status == 404 else error
        return found

    def _number(self, system_id: str) -> int | None:
        if self.token is None or not system_id:
            return None
        return int(self.api.post("/runners/verify", {"token": self.token.reveal(), "system_id": system_id})["id"])

    def _set(self, number: int, wrong: Mapping[str, Any]) -> None:
        data = {name: ",".join(value) if isinstance(value, list) else value for name, value in wrong.items()}
        self.api.put(f"/runners/{number}", data)


def _is_same(wanted: Any, found: Any) -> bool:
    if isinstance(wanted, list):
        return sorted(wanted) == sorted(found or [])  # tags have no order
    return bool(wanted == found)
