"""Matching the inventory's runners with the entries of config.toml, and the status of each.

A runner is identified by its token and server, not by its name. Only GitLab's own 403 means that a token is no longer
valid; any other answer means that this is unknown now, and the entry stays.

The host asks about tokens, because it uses them; each token reaches curl on standard input. Sources: GitLab's REST API,
POST /runners/verify, DELETE /runners (deletes a runner) and DELETE /runners/managers (deletes only this host's part in
one, as `gitlab-runner unregister` does for a token that begins with glrt-).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from provision.editing.toml.model import (
    Entry,
    RunnerId,
    WantedRunner,
    fingerprint,
    has_tls_now,
    same_url,
    server_url,
    undotted,
)
from provision.errors import ProbeFailed
from provision.host.scripts import curl_failure, script
from provision.host.state import mapping, strings
from provision.resources.base import Change
from provision.secret import Secret
from provision.shell import Command, Result


class RunnerRecord(NamedTuple):
    """What a task recorded about a runner that it wrote to config.toml.

    fingerprint  of its token
    id           its number in GitLab, where it is known
    created      whether it was created through the API
    keys         the dotted keys that we set in its entry
    scope        its scope and owner in GitLab, for a runner that we may create
    """

    url: str = ""
    fingerprint: str = ""
    id: int | None = None
    created: bool = False
    keys: tuple[str, ...] = ()
    scope: str = ""

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> RunnerRecord:
        """From state.json. Raises ProbeFailed for a record of another form."""
        found = mapping(data)
        number = found.get("id")
        return cls(
            str(found.get("url", "")),
            str(found.get("fingerprint", "")),
            number if isinstance(number, int) else None,
            bool(found.get("made")),
            dotted_record(found.get("keys")),
            str(found.get("scope", "")),
        )

    def data(self) -> dict[str, Any]:
        """For state.json."""
        data = {"url": self.url, "fingerprint": self.fingerprint, "id": self.id, "made": self.created}
        return {**data, "keys": list(self.keys), **({"scope": self.scope} if self.scope else {})}


def dotted_record(record: Any) -> tuple[str, ...]:
    """A record that is a list of dotted keys. Raises ProbeFailed for another one."""
    keys = tuple(strings(record))
    for key in keys:
        try:
            undotted(key)
        except ValueError as error:
            raise ProbeFailed(
                f"state.json of the host records {key[:80]!r}, which is no key of config.toml",
                hint="correct or remove the record of the task in /var/lib/provision/state.json",
            ) from error
    return keys


class Candidate(NamedTuple):
    """A runner of the inventory without a token. It may be recorded under another name."""

    name: str
    url: str
    keys: tuple[str, ...]
    scope: str = ""

    def is_like(self, record: RunnerRecord) -> bool:
        """Whether it differs from a recorded runner only in its name."""
        return same_url(self.url, record.url) and (self.keys, self.scope) == (record.keys, record.scope)


def under_new_names(
    records: Mapping[str, RunnerRecord], names: Collection[str], candidates: Sequence[Candidate]
) -> dict[str, RunnerRecord]:
    """The records by the names that the runners have now; `names` are all names of the inventory.

    A runner without a token is known in the inventory by its name alone. If one that we created left the inventory, and
    one came that differs only in its name, it is the same. If several could be meant, none is: the old one is dropped
    and a new one is created.
    """
    new = [one for one in candidates if one.name not in records]
    gone = {name: one for name, one in records.items() if name not in names and one.created}
    renamed = {}
    for one in new:
        before = [name for name, record in gone.items() if one.is_like(record)]
        if len(before) == 1 and sum(other.is_like(gone[before[0]]) for other in new) == 1:
            renamed[before[0]] = one.name
    return {renamed.get(name, name): one for name, one in records.items()}


class RunnerStatus(NamedTuple):
    """What is known about one runner of the inventory.

    missing      it has no entry with a valid token
    refused      why its given token cannot be used, and what to do; "" when it can
    unreachable  why GitLab gave no answer about a missing runner; "" when it did
    unknown      it has an entry, and GitLab gave no answer about its token
    note         a message for the user; "" for none
    id           its number in GitLab
    previous     fingerprints of tokens that its entry may have
    url          the URL that its entry keeps for now; "" for that of the inventory
    former_url   the URL that its entry has, when that of the inventory takes its place
    """

    missing: bool = False
    refused: str = ""
    unreachable: str = ""
    unknown: bool = False
    note: str = ""
    id: int | None = None
    previous: tuple[str, ...] = ()
    url: str = ""
    former_url: str = ""


class Registrations(NamedTuple):
    """The entries of a host's config.toml, GitLab's answers about their tokens, and our records by runner."""

    entries: Sequence[Entry]
    answers: TokenAnswers
    records: Mapping[str, RunnerRecord] = {}

    def status(self, name: str, url: str, token: Secret | None) -> RunnerStatus:
        """The status of one runner of the inventory; `token` as the inventory gives it."""
        record = self.records.get(name, RunnerRecord())
        if token is not None:
            return self._status_of_given(name, url, token.reveal(), record)
        entry = self._entry(name, url, record)
        if entry is None:
            return RunnerStatus(missing=True, unreachable=self.answers.reasons.get(url, ""))
        previous = (fingerprint(entry.token),)
        former = "" if same_url(entry.url, url) else entry.url
        answer = self.answers.status.get((url, entry.token), 0)
        if answer == 403:
            note = f"GitLab at {url} no longer knows runner {name}: it is created again"
            return RunnerStatus(missing=True, note=note, previous=previous, former_url=former)
        if answer != 200:
            note = self._unknown(name, url, answer)
            return RunnerStatus(unknown=True, note=note, id=entry.id, previous=previous, url=former)
        return RunnerStatus(id=entry.id, previous=previous, former_url=former)

    def _status_of_given(self, name: str, url: str, token: str, record: RunnerRecord) -> RunnerStatus:
        previous = (record.fingerprint,) if record.fingerprint else ()
        former = "" if same_url(record.url, url) else record.url
        answer = self.answers.status.get((url, token), 0)
        if answer in (403, 422):
            return RunnerStatus(refused="it was deleted or reset there, or belongs to another GitLab: give a valid one")
        exists = any(one.token == token and same_url(one.url, url) for one in self.entries)
        if answer == 200:
            return RunnerStatus(missing=not exists, previous=previous, former_url=former)
        if exists:
            return RunnerStatus(unknown=True, note=self._unknown(name, url, answer), previous=previous)
        reason = self.answers.reason(url, answer)
        return RunnerStatus(missing=True, unreachable=reason, previous=previous, former_url=former)

    @property
    def owned_keys(self) -> dict[str, list[str]]:
        """The keys that we set earlier in each runner's entry."""
        return {name: list(one.keys) for name, one in self.records.items()}

    def created(self, name: str) -> bool:
        """Whether this runner was created through the API."""
        return name in self.records and self.records[name].created

    def dropped(self, kept: Sequence[WantedRunner]) -> list[RunnerId]:
        """The runners that we wrote earlier and that are not kept."""
        names = {one.name for one in kept}
        gone = [one for name, one in self.records.items() if name not in names and one.fingerprint]
        return [RunnerId(one.url, one.fingerprint, one.id) for one in gone]

    def to_unregister(self, wanted: Sequence[WantedRunner]) -> list[tuple[Entry, bool]]:
        """The entries that we wrote for runners that are no longer wanted, and whether we created those.

        A runner whose token is still wanted was renamed: it is not among them.
        """
        names, tokens = {one.name for one in wanted}, {one.token for one in wanted}
        gone = [one for name, one in self.records.items() if name not in names]
        return [
            (entry, record.created)
            for record in gone
            for entry in self.entries
            if fingerprint(entry.token) == record.fingerprint and same_url(entry.url, record.url)
            if entry.token not in tokens
        ]

    def _entry(self, name: str, url: str, record: RunnerRecord) -> Entry | None:
        here = [one for one in self.entries if same_url(one.url, url)]
        # Its server may have had no TLS when we wrote the entry. On another host the token is not even asked about.
        before = [one for one in self.entries if same_url(one.url, record.url) and has_tls_now(one.url, url)]
        for one in (*here, *before):
            if fingerprint(one.token) == record.fingerprint or (one.id and one.id == record.id):
                return one
        # Not recorded (state.json was lost, or it was registered by hand): it is used, so that none is created twice.
        recorded = {one.fingerprint for one in self.records.values()}
        same = [one for one in here if one.name == name and fingerprint(one.token) not in recorded]
        return same[0] if len(same) == 1 else None

    def _unknown(self, name: str, url: str, answer: int) -> str:
        reason = self.answers.reason(url, answer)
        return f"whether GitLab at {url} knows runner {name} is unknown ({reason}): its entry stays unchanged"


class TokenAnswers(NamedTuple):
    """What GitLab servers answered.

    status   the HTTP status for each (url, token); 0 without an answer. Token "-" is for a server that was asked
             without a token, to find out whether it answers
    reasons  by URL, why a server did not answer or reported an error
    """

    status: Mapping[tuple[str, str], int]
    reasons: Mapping[str, str]

    def reason(self, url: str, status: int) -> str:
        """The reason why this status does not show whether a token is valid."""
        return self.reasons.get(url) or f"it answers {status}"


def ask_tokens(config: str, urls: Sequence[str], given: Sequence[tuple[str, Secret]]) -> Command:
    """Asks each server about our tokens: the `given` ones by URL, and those in the file `config`."""
    lines = "".join(f"{url} {token.reveal()}\n" for url, token in given)
    return script("ask_runner_tokens", config, list(urls)).reading(lines)


def read_tokens(result: Result) -> TokenAnswers:
    """Reads the answer to `ask_tokens`: lines `STATUS CURL_CODE URL TOKEN CONTENT_TYPE`."""
    status, reasons = {}, {}
    for line in result.text.splitlines():
        words = line.split(" ")
        if len(words) < 4 or not all(one.isascii() and one.isdigit() and len(one) < 6 for one in words[:2]):
            raise ProbeFailed(
                f"the answer about the runners' tokens cannot be read: {line.partition(' ')[0][:40]!r}",
                hint="check that curl works on the host: curl -V",
            )
        code, curl_code, url, token, *kind = words
        status[url, token] = int(code)
        if int(code) == 403 and kind and not kind[0].startswith("application/json"):
            # From a proxy, or from a GitLab that has banned the host's address: the token may be valid.
            status[url, token] = 0
            reasons[url] = "it answers every request of the host with 403: the host is banned, or a proxy is in between"
        elif int(code) == 0:
            reasons[url] = curl_failure(int(curl_code))
        elif int(code) >= 500:
            reasons[url] = f"it answers {code}"
    return TokenAnswers(status, reasons)


def unregister(runners: Sequence[tuple[Entry, bool]]) -> Iterator[Change]:
    """The change that deletes runners in GitLab, before their entries are removed from config.toml; none for no runners.

    runners  each entry, and whether we created the runner by the API: then it is deleted, otherwise only this host's
             part in it. GitLab's 403 and 404 mean that it does not exist any more; any other failure changes nothing
    """
    if not runners:
        return
    lines = "".join(
        f"{'-' if created else '/managers'} {server_url(entry.url)} {entry.token}\n" for entry, created in runners
    )
    names = ", ".join(f"{entry.name} ({entry.url})" for entry, _ in runners)
    yield Change(f"unregister {names} from GitLab", script("unregister_runners").reading(lines), "delete", deadline=90)
