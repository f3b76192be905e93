"""Tokens of runners: what GitLab answers about them, and deleting the runner that a token belongs to.

The host asks, which uses the tokens; each token reaches curl on standard input. Sources: GitLab's REST API, POST
/runners/verify, DELETE /runners (deletes a runner) and DELETE /runners/managers (deletes only this host's part in one, as
`gitlab-runner unregister` does for a token that begins with glrt-).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from provision.editing.toml.model import Entry
from provision.host.curl import failure
from provision.host.scripts import script
from provision.resources.base import Change
from provision.secret import Secret
from provision.shell import Command, Result


@dataclass(frozen=True)
class TokenAnswers:
    """What GitLab servers answered.

    status   the HTTP status for each (url, token); 0 without an answer. Token "-" is for a server that was asked
             without a token, to find out whether it answers
    reasons  by URL, why a server did not answer or reported an error
    """

    status: Mapping[tuple[str, str], int]
    reasons: Mapping[str, str]

    def reason(self, url: str, status: int) -> str:
        """Why this status does not show whether a token is valid."""
        return self.reasons.get(url) or f"it answers {status}"


def ask_tokens(config: str, urls: Sequence[str], given: Sequence[tuple[str, Secret]]) -> Command:
    """Asks each server about our tokens: the `given` ones by URL, and those in the file `config`."""
    lines = "".join(f"{url} {token.reveal()}\n" for url, token in given)
    return script("ask_runner_tokens", config, list(urls)).reading(lines)


def read_tokens(result: Result) -> TokenAnswers:
    """Reads the answer to `ask_tokens`: lines `STATUS CURL_CODE URL TOKEN CONTENT_TYPE`."""
    status, reasons = {}, {}
    for line in result.text.splitlines():
        code, curl_code, url, token, *kind = line.split(" ")
        status[url, token] = int(code)
        if int(code) == 403 and kind and kind[0] and not kind[0].startswith("application/json"):
            # From a proxy, or from a GitLab that has banned the host's address: the token may be valid.
            status[url, token] = 0
            reasons[url] = "it answers every request of the host with 403: the host is banned, or a proxy is in between"
        elif int(code) == 0:
            reasons[url] = failure(int(curl_code))
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
        f"{'-' if created else '/managers'} {entry.url.rstrip('/')} {entry.token}\n" for entry, created in runners
    )
    names = ", ".join(f"{entry.name} ({entry.url})" for entry, _ in runners)
    yield Change(f"unregister {names} from GitLab", script("unregister_runners").reading(lines), "delete", deadline=90)
