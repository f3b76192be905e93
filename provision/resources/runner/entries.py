"""Two ways to build images in jobs that exclude each other.  Source: GitLab's documentation on building Docker images.

docker-in-docker: `privileged` and the volume /certs/client; the socket: the host's /var/run/docker.sock as a volume.

The `[[runners]]` of the inventory in `/etc/gitlab-runner/config.toml`, each with a token that GitLab accepts.

A runner is known by its token and server, never by its name. Tokens are proven by asking GitLab from the host
that uses them (POST /runners/verify); only a clear 403 means "gone", anything else means "not known now". The
runner reads the file again by itself within 3 s: nothing is restarted.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from provision.editing.toml.masking import diff
from provision.editing.toml.model import Reconciled, WantedRunner, dotted_keys, fingerprint
from provision.editing.toml.reconcile import entries, reconcile
from provision.errors import ProbeFailed, Refused
from provision.gitlab.runners import Made, RunnerMaker
from provision.host.curl import remedy
from provision.host.docker import CI_JOBS_LIMIT_SECONDS, wait_for_ci_jobs
from provision.host.files import replace
from provision.host.pending import Handler
from provision.host.scripts import body
from provision.resources.base import ApiAction, Change, Note, Observation, Outcome, Probe, Resource, unverified
from provision.resources.runner.accounts import Accounts, ask_tokens, read_tokens, unregister
from provision.resources.runner.settings import Records, Sought, follow, settings_key
from provision.resources.system.file import ask_file, read_file
from provision.secret import Secret, revealed
from provision.shell import Command


def mixed_ways(name: str, settings: Mapping[str, Any]) -> Iterator[Note]:
    """A note for a runner that has both."""
    docker = settings.get("docker")
    if not isinstance(docker, Mapping):
        return
    volumes = [str(one) for one in docker.get("volumes", [])]
    socket = any(one.partition(":")[2].startswith("/var/run/docker.sock") for one in volumes)
    inside = any(one.partition(":")[0] == "/certs/client" for one in volumes)
    if socket and inside:
        yield Note(
            f"runner {name} has docker-in-docker (/certs/client) and the host's socket (/var/run/docker.sock): "
            "jobs use the socket, and see the host's Docker; take one of the two volumes out"
        )


CONFIG: Final = "/etc/gitlab-runner/config.toml"
STATE: Final = "config.toml"
# The runner takes all else over by itself; a restart would cancel its jobs, so it waits until none runs.
RESTART: Final = Handler(
    "restart-runner",
    "restart gitlab-runner",
    Command(f"{wait_for_ci_jobs()}systemctl restart gitlab-runner"),
    deadline=CI_JOBS_LIMIT_SECONDS + 120.0,
)
_PLACEHOLDER: Final = "glrt-not-made-yet"


@dataclass(frozen=True)
class RunnerEntry:
    """One runner as the inventory has it. Without a token, `maker` can have GitLab make one.

    agreed  fingerprint of the settings that GitLab keeps of it, which a runner that is made has from the start
    """

    name: str
    url: str
    settings: Mapping[str, Any] = field(hash=False)
    token: Secret | None = None
    maker: RunnerMaker | None = None
    agreed: str = ""


@dataclass(frozen=True)
class RunnerEntries(Resource):
    """Ours stand in the file, with `top` as its top-level keys; what we once wrote and dropped is gone."""

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
        return STATE

    def probe(self) -> Probe:
        given = [(one.url, one.token) for one in self.runners if one.token]
        urls = list(dict.fromkeys(one.url for one in self.runners))
        return Probe({"file": ask_file(CONFIG), "tokens": ask_tokens(CONFIG, urls, given)})

    def runners_in(self, records: Mapping[str, Any]) -> Records:
        """What the task recorded about our runners, by the names that they have now; `records` by record key."""
        sought = [
            Sought(one.name, one.url, self._keys(one), one.maker.whose) for one in self.runners if one.maker is not None
        ]
        return follow(records.get(STATE, {}).get("runners", {}), [one.name for one in self.runners], sought)

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        found = read_file(CONFIG, seen, "file")
        text = _decoded(found.content or b"")
        there = entries(text)
        for entry in there:
            Secret(entry.token)  # other people's too: from now on masked, should a program speak of them
        record = {**(seen.record or {}), "runners": self.runners_in(seen.records)}
        accounts = Accounts(there, read_tokens(seen["tokens"]), record)
        seen_now = found.content
        waiting = ""
        missing: list[RunnerEntry] = []
        wanted: list[WantedRunner] = []
        unsure: list[str] = []
        for one in self.runners:
            verdict = accounts.judge(one.name, one.url, one.token)
            if verdict.refused:
                raise Refused(f"GitLab at {one.url} refuses the token of runner {one.name}", hint=verdict.refused)
            if verdict.note:
                yield Note(verdict.note)
            if verdict.unsure:
                unsure.append(one.name)
            yield from mixed_ways(one.name, one.settings)
            if verdict.missing and one.maker is None and one.token is None:
                raise Refused(
                    f"runner {one.name} has no token, and nothing to make one with",
                    hint="give it token = …, or gitlab.api_token so that it can be created",
                )
            if verdict.missing:
                missing.append(one)
            if verdict.unreachable and verdict.missing:
                waiting = verdict.unreachable
            token = one.token.reveal() if one.token else None
            wanted.append(WantedRunner(one.name, one.url, token, self._settings(one), verdict.id, verdict.previous))
        yield from unregister(accounts.leaving(wanted))
        yield from self._change(text, seen_now, wanted, missing, accounts, waiting)
        if unsure:
            yield unverified(f"GitLab says whether it knows {', '.join(unsure)}", "it did not answer that: see above")

    def _change(
        self,
        text: str,
        seen: bytes | None,
        wanted: list[WantedRunner],
        missing: list[RunnerEntry],
        accounts: Accounts,
        waiting: str,
    ) -> Iterator[Change]:
        create = [one for one in missing if one.token is None]
        foreseen = {one.name: Made(0, Secret(f"{_PLACEHOLDER}-{one.name}")) for one in create}
        result = self._reconcile(text, wanted, foreseen, accounts)
        record = self._record(wanted, foreseen, accounts)
        if not result.changed:
            return

        def make() -> Outcome:
            made = {one.name: one.maker.make() for one in create if one.maker}
            write = self._write(self._reconcile(text, wanted, made, accounts).text, seen)
            agreed = {settings_key(one.name): one.agreed for one in create if one.agreed}
            return Outcome(write, self._record(wanted, made, accounts), agreed)

        summary = "; ".join(one.summary for one in result.actions)
        if create:
            summary = f"create {', '.join(one.name for one in create)} in GitLab at {create[0].url}; {summary}"
        yield Change(
            f"{summary} ({waiting})" if waiting else summary,
            ApiAction(make, "POST /user/runners") if create else self._write(result.text, seen),
            "create" if create or seen is None else "update",
            diff(text, result.text),
            (RESTART,) if _listens(text) != _listens(result.text) else (),
            record=record,
            deadline=120,
            requires="gitlab" if waiting else "",
            remedy=remedy(waiting),
        )

    def _reconcile(
        self, text: str, wanted: Sequence[WantedRunner], made: Mapping[str, Made], accounts: Accounts
    ) -> Reconciled:
        runners = [
            dataclasses.replace(one, token=made[one.name].token.reveal(), id=made[one.name].id or None)
            if one.name in made
            else one
            for one in wanted
        ]
        return reconcile(
            text,
            top=revealed(self.top),
            runners=runners,
            owned_top=accounts.owned_top,
            dropped=accounts.dropped([one for one in wanted if one.name not in made]),
            owned_keys=accounts.owned_keys,
        )

    def _record(
        self, wanted: Sequence[WantedRunner], made: Mapping[str, Made], accounts: Accounts
    ) -> dict[str, Any] | None:
        runners = {}
        makers = {one.name: one.maker for one in self.runners}
        for one in wanted:
            maker = makers[one.name]
            new = made.get(one.name)
            token = new.token.reveal() if new else one.token
            runners[one.name] = {
                "url": one.url,
                "fingerprint": fingerprint(token) if token else "".join(one.previous[:1]),
                "id": new.id if new else one.id,
                "made": bool(new) or accounts.made(one.name),
                "keys": sorted(dotted_keys(one.settings)),
                **({"scope": maker.whose} if maker else {}),
            }
        top = sorted(dotted_keys(self.top))
        return {"top": top, "runners": runners} if top or runners else None

    def _keys(self, one: RunnerEntry) -> tuple[str, ...]:
        return tuple(sorted(dotted_keys(self._settings(one))))

    @staticmethod
    def _settings(one: RunnerEntry) -> dict[str, Any]:
        plain = revealed(one.settings)
        return {key: value for key, value in plain.items() if key not in ("name", "url", "token", "id")}

    @staticmethod
    def _write(text: str, seen: bytes | None) -> Command:
        # The runner rewrites this file itself now and then: what was not looked at is not written over.
        return replace(
            CONFIG, text, mode="0600", owner="root:root", check=body("check_runner_config"), seen=seen or b""
        )


def _listens(text: str) -> Any:
    return tomllib.loads(text).get("listen_address")


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProbeFailed(
            f"{CONFIG} is not UTF-8: {error}", hint="mend it on the host first: it is not written over"
        ) from error
