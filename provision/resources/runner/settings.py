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
from provision.host.files import ASK_STATE, read_state
from provision.resources.base import Ask, Call, Change, Json, Note, Observation, Probe, Resource, unproven
from provision.secret import Secret
from provision.shell import Command, Result, sh

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


# A verification without the host's system id would leave a machine of no name in GitLab's list.
_ASK = sh(
    "system=; { read -r system < /etc/gitlab-runner/.runner_system_id; } 2>/dev/null; printf '%%s\\n' \"$system\"; "
    f"{ASK_STATE.script}"
)


def settings_key(name: str) -> str:
    """Under which name state.json remembers what was last agreed with GitLab."""
    return f"gitlab runner/{name}"


def settings_fingerprint(fields: Mapping[str, Any]) -> str:
    """A name for a set of wanted settings."""
    return hashlib.sha256(json.dumps(dict(fields), sort_keys=True, default=str).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class RunnerSettings(Resource):
    """`fields` are the API's own names; only those given are compared. `token`: the runner's, where the inventory has it.

    records  finds our runners in state.json, by name
    """

    name: str
    api: Api
    fields: Mapping[str, Any] = field(hash=False)
    token: Secret | None = None
    always: bool = False
    records: Callable[[Mapping[str, Any]], Records] = field(default=lambda _: {}, compare=False, repr=False)

    @property
    def label(self) -> str:
        return f"RunnerSettings {self.name}"

    def probe(self) -> Probe:
        key = ("runner settings", self.api.url, self.name, self._wish, self.always)
        return Probe({"server": Ask(key, self._ask, needs=_ASK), "state": ASK_STATE})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        answer = json.loads(seen["server"].text)
        memory = {settings_key(self.name): self._wish}
        if answer.get("skipped"):
            return
        if problem := answer.get("problem"):
            yield unproven(f"compare runner {self.name} with GitLab", problem)
            return
        if refused := answer.get("refused"):
            yield Note(refused)
            yield Change(
                f"note that runner {self.name} cannot be compared", sh(":"), "run", remember=memory, leaves=False
            )
            return
        wrong = {name: value for name, value in self.fields.items() if not _same(value, answer["runner"].get(name))}
        if wrong:
            lines = [f"-{name}: {_shown(answer['runner'].get(name))}\n+{name}: {_shown(wrong[name])}" for name in wrong]
            yield Change(
                f"set {', '.join(wrong)} of runner {self.name} in GitLab",
                Call(lambda: self._put(int(answer["runner"]["id"]), wrong, memory), "PUT /runners/:id"),
                diff="\n".join([f"--- runner {self.name} (now)", f"+++ runner {self.name} (wanted)", *lines]),
            )
        elif read_state(seen["state"].text).get(settings_key(self.name)) != memory[settings_key(self.name)]:
            yield Change(f"compare runner {self.name} with GitLab", sh(":"), "run", remember=memory, leaves=False)

    @property
    def _wish(self) -> str:
        # With another token it is another runner in GitLab, of which nothing has been agreed.
        token = {"token": fingerprint(self.token.reveal())} if self.token else {}
        return settings_fingerprint({**self.fields, **token})

    def _ask(self, there: Result | None) -> Result:
        system, _, state = (there.text if there else "").partition("\n")
        known = read_state(state)
        if not self.always and known.get(settings_key(self.name)) == self._wish:
            return _json({"skipped": True})
        try:
            number = self.records(known).get(self.name, {}).get("id") or self._number(system)
            if number is None:
                return _json({"skipped": True})
            return _json({"runner": self.api.get(f"/runners/{number}")})
        except ApiFailed as error:
            if error.status == 404:
                return _json({"skipped": True})
            if error.status in (401, 403):
                return _json({"refused": f"runner {self.name}: its settings are not compared with GitLab's: {error.text}; "
                                         "that takes a token with scope api of somebody who may manage the runner"})  # fmt: skip
            return _json({"problem": error.text})

    def _number(self, system: str) -> int | None:
        if self.token is None or not system:
            return None
        return int(self.api.post("/runners/verify", {"token": self.token.reveal(), "system_id": system})["id"])

    def _put(
        self, number: int, wrong: Mapping[str, Any], memory: Mapping[str, Json]
    ) -> tuple[Command, Mapping[str, Json]]:
        data = {name: ",".join(value) if isinstance(value, list) else value for name, value in wrong.items()}
        self.api.put(f"/runners/{number}", data)
        return sh(":"), memory


def _same(wanted: Any, now: Any) -> bool:
    if isinstance(wanted, list):
        return sorted(wanted) == sorted(now or [])  # tags have no order
    return bool(wanted == now)


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _json(answer: dict[str, Any]) -> Result:
    return Result(json.dumps(answer).encode())
