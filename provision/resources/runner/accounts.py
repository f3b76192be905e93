"""Taking a runner that we once registered out of GitLab, before its entry leaves config.toml.

Asked from the host, with the runner's own token on curl's standard input: `DELETE /runners` removes a runner that we made by
the API, `DELETE /runners/managers` only this host's part in one that somebody else made (as `gitlab-runner
unregister` does with a glrt- token). GitLab's 403 and 404 mean that it is gone already; anything else leaves all as it is.

What GitLab says of the tokens of runners, and what follows for each runner of the inventory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from provision.editing.toml.model import Entry, RunnerId, WantedRunner, fingerprint
from provision.host.curl import failure
from provision.host.scripts import script
from provision.resources.base import Change
from provision.secret import Secret
from provision.shell import Command, Result


def unregister(gone: Sequence[tuple[Entry, bool]]) -> Iterator[Change]:
    """A change that takes these entries' runners out of GitLab; True with one that we made by the API."""
    if not gone:
        return
    lines = "".join(f"{'-' if made else '/managers'} {entry.url.rstrip('/')} {entry.token}\n" for entry, made in gone)
    names = ", ".join(f"{entry.name} ({entry.url})" for entry, _ in gone)
    yield Change(f"unregister {names} from GitLab", script("unregister_runners").reading(lines), "delete", deadline=90)


def ask_tokens(config: str, urls: Sequence[str], given: Sequence[tuple[str, Secret]]) -> Command:
    """Asks each server about our tokens: those of the inventory, and those in the file. One process per token."""
    lines = "".join(f"{url} {token.reveal()}\n" for url, token in given)
    return script("ask_runner_tokens", config, list(urls)).reading(lines)


@dataclass(frozen=True)
class Answers:
    """For each (url, token) the HTTP status, or 0 with the reason why there is none. Token "-": the server alone."""

    status: Mapping[tuple[str, str], int]
    reasons: Mapping[str, str]


def read_tokens(result: Result) -> Answers:
    """Reads `STATUS CURL_CODE URL TOKEN CONTENT_TYPE` lines."""
    status, reasons = {}, {}
    for line in result.text.splitlines():
        code, exit_code, url, token, *kind = line.split(" ")
        status[url, token] = int(code)
        if int(code) == 403 and kind and kind[0] and not kind[0].startswith("application/json"):
            # A proxy's, or that of a GitLab that has banned the host's address: no word on the token.
            status[url, token] = 0
            reasons[url] = (
                "it answers 403 to whatever the host asks: the host is barred there, or a proxy is in between"
            )
            continue
        if int(code) == 0:
            reasons[url] = failure(int(exit_code))
        elif int(code) >= 500:
            reasons[url] = f"it answers {code}"
    return Answers(status, reasons)


@dataclass(frozen=True)
class Verdict:
    """What follows for one runner.

    missing      it has no entry that works; refused: its given token is not accepted (the hint says more)
    unreachable  why GitLab could not be asked; "" when it could
    unsure       it has an entry, of which GitLab says nothing now
    """

    missing: bool = False
    refused: str = ""
    unreachable: str = ""
    unsure: bool = False
    note: str = ""
    id: int | None = None
    previous: tuple[str, ...] = ()


@dataclass(frozen=True)
class Accounts:
    """The file's entries, GitLab's answers, and what state.json remembers of our runners."""

    found: Sequence[Entry]
    answers: Answers
    memory: Mapping[str, Any] = field(default_factory=dict)

    def judge(self, name: str, url: str, token: Secret | None) -> Verdict:
        """What is to be done about one runner of the inventory."""
        known = self._ours().get(name, {})
        previous = tuple(one for one in [known.get("fingerprint")] if one)
        if token is not None:
            return self._judge_given(name, url, token, previous)
        entry = self._entry(name, url, known)
        if entry is None:
            return Verdict(missing=True, unreachable=self._unreachable(url))
        mine = (fingerprint(entry.token),)
        status = self.answers.status.get((url, entry.token), 0)
        if status == 403:
            note = f"GitLab at {url} no longer knows runner {name}: it is created anew"
            return Verdict(missing=True, note=note, previous=mine)
        note = "" if status == 200 else self._unsure(name, url, status)
        return Verdict(unsure=bool(note), note=note, id=entry.id, previous=mine)

    def _judge_given(self, name: str, url: str, token: Secret, previous: tuple[str, ...]) -> Verdict:
        text = token.reveal()
        status = self.answers.status.get((url, text), 0)
        if status in (403, 422):
            return Verdict(refused="it was deleted or reset there, or belongs to another GitLab: give the right one")
        there = any(one.token == text and one.url.rstrip("/") == url for one in self.found)
        if status == 200:
            return Verdict(missing=not there, previous=previous)
        if there:
            return Verdict(unsure=True, note=self._unsure(name, url, status), previous=previous)
        return Verdict(missing=True, unreachable=self._unreachable(url) or f"it answers {status}", previous=previous)

    @property
    def owned_top(self) -> list[str]:
        """Top-level keys that we once set."""
        return list(self.memory.get("top", []))

    @property
    def owned_keys(self) -> dict[str, list[str]]:
        """By runner, the keys that we once set in its entry."""
        return {name: list(one.get("keys", [])) for name, one in self._ours().items()}

    def dropped(self, kept: Sequence[WantedRunner]) -> list[RunnerId]:
        """Entries that we once wrote and that no kept runner is."""
        names = {one.name for one in kept}
        gone = [one for name, one in self._ours().items() if name not in names and one.get("fingerprint")]
        return [RunnerId(str(one["url"]), str(one["fingerprint"]), one.get("id")) for one in gone]

    def made(self, name: str) -> bool:
        """Whether we once had GitLab make this runner."""
        return bool(self._ours().get(name, {}).get("made"))

    def leaving(self, wanted: Sequence[WantedRunner]) -> list[tuple[Entry, bool]]:
        """The entries that we once wrote for runners that are no longer wanted, and whether we made those.

        One whose token is still wanted was renamed: it stays.
        """
        names, tokens = {one.name for one in wanted}, {one.token for one in wanted}
        gone = [known for name, known in self._ours().items() if name not in names]
        return [
            (entry, bool(known.get("made")))
            for known in gone
            for entry in self.found
            if fingerprint(entry.token) == known.get("fingerprint") and entry.url.rstrip("/") == known.get("url")
            if entry.token not in tokens
        ]

    def _ours(self) -> Mapping[str, Any]:
        ours: Mapping[str, Any] = self.memory.get("runners", {})
        return ours

    def _entry(self, name: str, url: str, known: Mapping[str, Any]) -> Entry | None:
        here = [one for one in self.found if one.url.rstrip("/") == url]
        for one in here:
            if known and (fingerprint(one.token) == known.get("fingerprint") or (one.id and one.id == known.get("id"))):
                return one
        # Not on record (state.json was lost, or somebody registered it by hand): adopted rather than made twice.
        taken = {one.get("fingerprint") for one in self._ours().values()}
        same = [one for one in here if one.name == name and fingerprint(one.token) not in taken]
        return same[0] if len(same) == 1 else None

    def _unreachable(self, url: str) -> str:
        return self.answers.reasons.get(url, "")

    def _unsure(self, name: str, url: str, status: int) -> str:
        why = self._unreachable(url) or f"it answers {status}"
        return f"GitLab at {url} cannot say whether it knows runner {name} ({why}): its entry is left as it is"
