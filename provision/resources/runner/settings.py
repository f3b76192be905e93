"""A runner that has no token in the inventory is known there by its name alone: one that got another name is found again.

One that we made has left the inventory, and one came that differs in nothing else that we know of it: it is the same.
Where more than one could be meant, nothing is guessed: the old one is dropped, and a new one is made.

What GitLab keeps of a runner (tags, paused, locked, …) is as the inventory says.  Source: GitLab's REST API, /runners/:id.

Asked from here, with gitlab.api_token: when the wanted settings differ from those on record, or when the user named
`register`. So a run over everything stays quick, and `provision register` notices what was changed in the UI. What the
inventory does not mention is left to the UI.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
from provision.secret import Secret
from provision.shell import sh

Records = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Sought:
    """A runner of the inventory without a token. `keys`: those of config.toml that it sets; `scope`: whose it is."""

    name: str
    url: str
    keys: tuple[str, ...]
    scope: str = ""

    @property
    def kind(self) -> tuple[str, tuple[str, ...], str]:
        """All but the name."""
        return self.url, self.keys, self.scope


def follow(records: Records, names: Collection[str], sought: Sequence[Sought]) -> dict[str, Mapping[str, Any]]:
    """What is on record of our runners, by the names that they have now in the inventory (`names` are all of it)."""
    new = [one for one in sought if one.name not in records]
    gone = {name: _kind(name, one) for name, one in records.items() if name not in names and one.get("made")}
    found = {}
    for one in new:
        before = [name for name, kind in gone.items() if kind == one.kind]
        if len(before) == 1 and [other.kind for other in new].count(one.kind) == 1:
            found[before[0]] = one.name
    return {found.get(name, name): one for name, one in records.items()}


def _kind(name: str, record: Mapping[str, Any]) -> tuple[str, tuple[str, ...], str]:
    return Sought(name, str(record.get("url", "")), tuple(record.get("keys", ())), str(record.get("scope", ""))).kind


# A verification without the host's system id would leave a machine without a name in GitLab's list.
_ASK_SYSTEM_ID = sh(
    "system=; { read -r system < /etc/gitlab-runner/.runner_system_id; } 2>/dev/null; printf '%%s\\n' \"$system\""
)


def settings_key(name: str) -> str:
    """The record key of the settings that were last compared with GitLab."""
    return f"gitlab runner/{name}"


def settings_fingerprint(fields: Mapping[str, Any]) -> str:
    """A name for a set of wanted settings."""
    return hashlib.sha256(json.dumps(dict(fields), sort_keys=True, default=str).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class RunnerSettings(Resource):
    """`fields` are the API's own names; only those given are compared. `token`: the runner's, where the inventory has it.

    records  from what the task recorded, by record key, to what it recorded about our runners, by name
    """

    name: str
    api: Api
    fields: Mapping[str, Any] = field(hash=False)
    token: Secret | None = None
    records: Callable[[Mapping[str, Any]], Records] = field(default=lambda _: {}, compare=False, repr=False)

    @property
    def label(self) -> str:
        return f"RunnerSettings {self.name}"

    @property
    def record_key(self) -> str:
        return settings_key(self.name)

    def probe(self) -> Probe:
        key = ("runner settings", self.api.url, self.name, self._wish)
        return Probe({"server": ApiQuery(key, self._ask, needs=_ASK_SYSTEM_ID)})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        found: Mapping[str, Any] | ApiFailed | None = seen.data("server")
        if found is None:
            return
        if isinstance(found, ApiFailed):
            yield from self._not_compared(found)
            return
        number = int(found["id"])
        wrong = {name: value for name, value in self.fields.items() if not _same(value, found.get(name))}
        if wrong:
            lines = [f"-{name}: {_shown(found.get(name))}\n+{name}: {_shown(wrong[name])}" for name in wrong]
            yield Change(
                f"set {', '.join(wrong)} of runner {self.name} in GitLab",
                ApiAction(lambda: self._put(number, wrong), "PUT /runners/:id"),
                diff="\n".join([f"--- runner {self.name} (now)", f"+++ runner {self.name} (wanted)", *lines]),
                record=self._wish,
            )
        elif seen.record != self._wish:
            yield Change(
                f"compare runner {self.name} with GitLab", NOTHING, "run", record=self._wish, verification=True
            )

    def _not_compared(self, error: ApiFailed) -> Iterator[Change | Note]:
        if error.status not in (401, 403):
            yield unverified(f"compare runner {self.name} with GitLab", error.text)
            return
        yield Note(
            f"runner {self.name}: its settings are not compared with GitLab's: {error.text}; "
            "that takes a token with scope api of somebody who may manage the runner"
        )
        summary = f"record that runner {self.name} cannot be compared"
        yield Change(summary, NOTHING, "run", record=self._wish, verification=True)

    @property
    def _wish(self) -> str:
        # With another token it is another runner in GitLab, of which nothing has been agreed.
        token = {"token": fingerprint(self.token.reveal())} if self.token else {}
        return settings_fingerprint({**self.fields, **token})

    def _ask(self, seen: Observation) -> Mapping[str, Any] | ApiFailed | None:
        """The runner in GitLab; None where nothing is to be compared."""
        if not seen.due and seen.record == self._wish:
            return None
        try:
            number = self.records(seen.records).get(self.name, {}).get("id") or self._number(seen.text.strip())
            found: Mapping[str, Any] | None = self.api.get(f"/runners/{number}") if number is not None else None
        except ApiFailed as error:
            return None if error.status == 404 else error
        return found

    def _number(self, system: str) -> int | None:
        if self.token is None or not system:
            return None
        return int(self.api.post("/runners/verify", {"token": self.token.reveal(), "system_id": system})["id"])

    def _put(self, number: int, wrong: Mapping[str, Any]) -> None:
        data = {name: ",".join(value) if isinstance(value, list) else value for name, value in wrong.items()}
        self.api.put(f"/runners/{number}", data)


def _same(wanted: Any, now: Any) -> bool:
    if isinstance(wanted, list):
        return sorted(wanted) == sorted(now or [])  # tags have no order
    return bool(wanted == now)


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
