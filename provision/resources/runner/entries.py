"""The `[[runners]]` of the inventory in /etc/gitlab-runner/config.toml, each with a token that GitLab accepts.

gitlab-runner reads a changed file by itself within 3 seconds: it is not restarted. Sources: gitlab-runner's documentation
on config.toml, and on building Docker images: docker-in-docker (`privileged` and the volume /certs/client), or the host's
socket (the volume /var/run/docker.sock).

The settings of a runner that GitLab stores are tags, paused, locked, …. Source: GitLab's REST API, /runners/:id. GitLab is
called from here, with gitlab.api_token, and only when the wanted settings differ from the recorded ones, or when a
verification is due. So `provision all` stays quick, and `provision register` finds what was changed in the UI. Settings
that the inventory does not mention belong to the UI.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from provision.editing.diff import settings_diff
from provision.editing.toml.edit import entries, reconcile
from provision.editing.toml.masking import diff
from provision.editing.toml.model import Reconciled, WantedRunner, dotted_keys, fingerprint
from provision.errors import ApiFailed, ProbeFailed, Refused
from provision.gitlab.api import Api
from provision.gitlab.runners import NewRunner, RunnerCreator
from provision.host.docker import CI_JOBS_LIMIT_SECONDS, wait_for_ci_jobs
from provision.host.files import replace
from provision.host.pending import Handler
from provision.host.scripts import body, curl_remedy
from provision.host.state import mapping
from provision.resources.base import (
    NOTHING,
    ApiAction,
    ApiQuery,
    Change,
    Note,
    Observation,
    Outcome,
    Probe,
    Resource,
    unverified,
)
from provision.resources.runner.registrations import (
    Candidate,
    Registrations,
    RunnerRecord,
    RunnerStatus,
    ask_tokens,
    dotted_record,
    read_tokens,
    under_new_names,
    unregister,
)
from provision.resources.system.file import ask_file, read_file
from provision.secret import Secret, revealed
from provision.shell import Command, sh

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


CONFIG: Final = "/etc/gitlab-runner/config.toml"
# A restart cancels CI jobs, so it waits until none runs.
RESTART: Final = Handler(
    "restart-runner",
    "restart gitlab-runner",
    Command(f"{wait_for_ci_jobs()}systemctl restart gitlab-runner"),
    deadline=CI_JOBS_LIMIT_SECONDS + 120.0,
)
_RECORD_KEY: Final = "config.toml"
_PLACEHOLDER: Final = "glrt-not-created-yet"
_NOT_SETTINGS: Final = ("name", "url", "token", "id")


@dataclass(frozen=True)
class RunnerEntry:
    """One runner of the inventory.

    settings              its keys in config.toml
    token                 its token; None: GitLab creates the runner, through `creator`
    settings_fingerprint  of the settings that GitLab stores; a new runner is created with them
    """

    name: str
    url: str
    settings: Mapping[str, Any] = field(hash=False)
    token: Secret | None = None
    creator: RunnerCreator | None = None
    settings_fingerprint: str = ""

    @property
    def own_settings(self) -> dict[str, Any]:
        """The settings with secrets in plain text, without the keys that identify the runner."""
        plain: dict[str, Any] = revealed(self.settings)
        return {key: value for key, value in plain.items() if key not in _NOT_SETTINGS}

    @property
    def candidate(self) -> Candidate:
        """The description of the runner that finds it under an earlier name."""
        keys = tuple(sorted(dotted_keys(self.own_settings)))
        return Candidate(self.name, self.url, keys, self.creator.scope_and_owner if self.creator else "")

    def wanted(self, status: RunnerStatus) -> WantedRunner:
        """Its entry as it should be."""
        token = self.token.reveal() if self.token else None
        url = status.url or self.url
        return WantedRunner(self.name, url, token, self.own_settings, status.id, status.previous, status.former_url)


@dataclass(frozen=True)
class RunnerEntries(Resource):
    """config.toml has these runners and the top-level keys `top`; runners and keys of ours that were dropped are removed.

    Raises Refused for a token that GitLab refuses, and for a runner that has no token and cannot be created.
    """

    runners: tuple[RunnerEntry, ...]
    top: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def handlers(self) -> tuple[Handler, ...]:
        return (RESTART,)

    @property
    def label(self) -> str:
        return f"RunnerEntries {CONFIG}"

    @property
    def record_key(self) -> str:
        return _RECORD_KEY

    def probe(self) -> Probe:
        given = [(one.url, one.token) for one in self.runners if one.token]
        urls = list(dict.fromkeys(one.url for one in self.runners))
        return Probe({"file": ask_file(CONFIG), "tokens": ask_tokens(CONFIG, urls, given)})

    def recorded(self, records: Mapping[str, Any]) -> dict[str, RunnerRecord]:
        """What the task recorded about each runner, by the name that it has now; `records` as in `Observation`."""
        found = mapping(mapping(records.get(_RECORD_KEY)).get("runners"))
        return under_new_names(
            {name: RunnerRecord.parse(one) for name, one in found.items()},
            [one.name for one in self.runners],
            [one.candidate for one in self.runners if one.creator is not None],
        )

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        file = read_file(CONFIG, seen, "file")
        text = _decoded(file.content or b"")
        found = entries(text)
        for entry in found:
            Secret(entry.token)  # masked in the output of programs from now on, including tokens that are not ours
        registrations = Registrations(found, read_tokens(seen["tokens"]), self.recorded(seen.records))
        statuses = {one.name: registrations.status(one.name, one.url, one.token) for one in self.runners}
        for one in self.runners:
            yield from _notes(one, statuses[one.name])
        yield from unregister(registrations.to_unregister(self._wanted(statuses)))
        owned_top = dotted_record(mapping(seen.record).get("top"))
        yield from _Rewrite(self, file.content, text, statuses, registrations, owned_top).plan()
        if unknown := [name for name, status in statuses.items() if status.unknown]:
            yield unverified(f"verify with GitLab the tokens of {', '.join(unknown)}", "it gave no answer: see above")

    def _wanted(self, statuses: Mapping[str, RunnerStatus]) -> list[WantedRunner]:
        return [one.wanted(statuses[one.name]) for one in self.runners]


def _notes(one: RunnerEntry, status: RunnerStatus) -> Iterator[Note]:
    """Yields notes about a runner. Raises Refused."""
    if status.refused:
        raise Refused(f"GitLab at {one.url} refuses the token of runner {one.name}", hint=status.refused)
    if status.note:
        yield Note(status.note)
    if status.missing and one.creator is None and one.token is None:
        raise Refused(
            f"runner {one.name} has no token, and cannot be created",
            hint="give it token = …, or a token for its server's API: gitlab.api_token, or that of gitlab.servers",
        )
    docker = one.settings.get("docker")
    volumes = [str(volume) for volume in docker.get("volumes", [])] if isinstance(docker, Mapping) else []
    socket = any(volume.partition(":")[2].startswith("/var/run/docker.sock") for volume in volumes)
    if socket and any(volume.partition(":")[0] == "/certs/client" for volume in volumes):
        yield Note(
            f"runner {one.name} has docker-in-docker (/certs/client) and the host's socket (/var/run/docker.sock): "
            "jobs use the socket and reach the host's Docker; remove one of the two volumes"
        )


class _Rewrite(NamedTuple):
    """The change of config.toml itself.

    before     the file's content; None when it does not exist. It is replaced only if it still has this content:
               gitlab-runner writes to it as well
    owned_top  top-level keys that we set earlier
    """

    resource: RunnerEntries
    before: bytes | None
    text: str
    statuses: Mapping[str, RunnerStatus]
    registrations: Registrations
    owned_top: Sequence[str]

    def plan(self) -> Iterator[Change]:
        """Yields the change, if the file differs."""
        to_create = [one for one in self.resource.runners if self.statuses[one.name].missing and one.token is None]
        # Check mode shows runners that GitLab has not created yet with a placeholder for their token.
        predicted = {one.name: NewRunner(0, Secret(f"{_PLACEHOLDER}-{one.name}")) for one in to_create}
        result = self._reconciled(predicted)
        if not result.changed:
            return

        def create() -> Outcome:
            created = {one.name: one.creator.create() for one in to_create if one.creator}
            compared = {
                settings_key(one.name): one.settings_fingerprint for one in to_create if one.settings_fingerprint
            }
            return Outcome(self._write(self._reconciled(created).text), self._record(created), compared)

        summary = "; ".join(one.summary for one in result.actions)
        if to_create:
            names = ", ".join(one.name for one in to_create)
            summary = f"create {names} in GitLab at {to_create[0].url}; {summary}"
        waiting = next((one.unreachable for one in reversed([*self.statuses.values()]) if one.unreachable), "")
        yield Change(
            f"{summary} ({waiting})" if waiting else summary,
            ApiAction(create, "POST /user/runners") if to_create else self._write(result.text),
            "create" if to_create or self.before is None else "update",
            diff(self.text, result.text),
            (RESTART,) if _listen_address(self.text) != _listen_address(result.text) else (),
            record=self._record(predicted),
            deadline=120,
            requires="gitlab" if waiting else "",
            remedy=curl_remedy(waiting),
        )

    def _reconciled(self, created: Mapping[str, NewRunner]) -> Reconciled:
        wanted = [one.wanted(self.statuses[one.name]) for one in self.resource.runners]
        return reconcile(
            self.text,
            top=revealed(self.resource.top),
            runners=[
                dataclasses.replace(one, token=created[one.name].token.reveal(), id=created[one.name].id or None)
                if one.name in created
                else one
                for one in wanted
            ],
            owned_top=list(self.owned_top),
            dropped=self.registrations.dropped([one for one in wanted if one.name not in created]),
            owned_keys=self.registrations.owned_keys,
        )

    def _record(self, created: Mapping[str, NewRunner]) -> dict[str, Any] | None:
        runners = {one.name: self._runner_record(one, created.get(one.name)).data() for one in self.resource.runners}
        top = sorted(dotted_keys(self.resource.top))
        return {"top": top, "runners": runners} if top or runners else None

    def _runner_record(self, one: RunnerEntry, created: NewRunner | None) -> RunnerRecord:
        wanted = one.wanted(self.statuses[one.name])
        token = created.token.reveal() if created else wanted.token
        return RunnerRecord(
            wanted.url,
            fingerprint(token) if token else "".join(wanted.previous[:1]),
            created.id if created else wanted.id,
            bool(created) or self.registrations.created(one.name),
            one.candidate.keys,
            one.candidate.scope,
        )

    def _write(self, text: str) -> Command:
        check = body("check_runner_config")
        return replace(CONFIG, text, mode="0600", owner="root:root", check=check, seen=self.before or b"")


def _listen_address(text: str) -> Any:
    """The only setting that needs a restart."""
    return tomllib.loads(text).get("listen_address")


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProbeFailed(
            f"{CONFIG} is not UTF-8: {error}", hint="fix the file on the host; it was not changed"
        ) from error
