"""The registry answers `/v2/` with 401 and sends clients to GitLab for a token.  Source: the distribution API's token auth."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from provision.resources.base import Change, Handler, Note, Observation, Probe, Resource
from provision.resources.host_facts import ASK_PACKAGES, read_packages
from provision.resources.ruby_settings import gitlab_version
from provision.shell import sh
from provision.values import dataclass


@dataclass(frozen=True)
class RegistryAnswer(Resource):
    """Asked on the GitLab host itself, so that no firewall or DNS stands between. One that does not answer owes a reconfigure."""

    url: str
    realm: str
    repair: Handler

    @property
    def handlers(self) -> tuple[Handler, ...]:
        return (self.repair,)

    @property
    def label(self) -> str:
        return f"RegistryAnswer {self.url}"

    def probe(self) -> Probe:
        parts = urlsplit(self.url)
        port = parts.port or {"https": 443, "http": 80}[parts.scheme]
        ask = sh(
            "curl -sk -o /dev/null -D - --max-time 10 --resolve %s -- %s",
            f"{parts.hostname}:{port}:127.0.0.1",
            f"{self.url.rstrip('/')}/v2/",
        )
        return Probe({"answer": ask, "packages": ASK_PACKAGES})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        problem = judge(seen["answer"].text, self.realm)
        if problem:
            ready = bool(gitlab_version(read_packages(seen["packages"])))
            yield Change(
                f"bring {self.url}/v2/ up: {problem}",
                sh(":"),
                "run",
                notify=(self.repair,),
                waits_for="" if ready else "gitlab",
            )


def judge(headers: str, realm: str) -> str:
    """What is wrong with an answer's headers; "" when it is as it should be. Without a realm any will do."""
    lines = headers.splitlines()
    if not lines:
        return "it does not answer"
    fields = lines[0].split()
    if len(fields) < 2 or fields[1] != "401":
        return f"it answers {' '.join(fields[1:])} instead of 401"
    challenge = next((line for line in lines if line.lower().startswith("www-authenticate:")), "")
    if realm and f'realm="{realm}"' not in challenge:
        return f"it sends clients to {challenge.partition(':')[2].strip() or 'nowhere'} instead of {realm}"
    return ""
