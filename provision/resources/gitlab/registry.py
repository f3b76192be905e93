"""The container registry on the GitLab host: its endpoint, and the images that a change of its storage would lose.

Source: the distribution API, "Token authentication".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from provision.errors import Refused
from provision.host.pending import Handler
from provision.host.releases import ASK_PACKAGES, read_packages
from provision.host.scripts import NO_PROGRAM, script
from provision.resources.base import NOTHING, Change, Note, Observation, Probe, Resource, without_program
from provision.resources.gitlab.gitlab_rb import ASK_GITLAB_RB, gitlab_version, read_gitlab_rb
from provision.secret import reveal
from provision.shell import sh
from provision.url import Url

CONFIG: Final = "/var/opt/gitlab/registry/config.yml"
RAILS: Final = "/var/opt/gitlab/gitlab-rails/etc/gitlab.yml"
_S3: Final = {"s3", "s3_v2", "s3aws"}  # three names of one driver
_LOCATION: Final = ("bucket", "regionendpoint", "rootdirectory")
_HOW_TO_MIGRATE: Final = (
    "stop the registry, copy all objects below docker/ from there to the new place (aws s3 sync, rclone), then run with "
    "--set registry.migrate=acknowledged; copy them in any case: a registry with a metadata database (GitLab 19 and later) "
    "still lists every image afterwards, and cannot be pulled from"
)


@dataclass(frozen=True)
class RegistryEndpoint(Resource):
    """The registry answers `/v2/` with 401 and sends clients to `realm` for a token. If not, `repair` is notified.

    It is asked on the GitLab host itself, so that neither a firewall nor DNS matters.
    """

    url: Url
    realm: str
    repair: Handler

    @property
    def handlers(self) -> tuple[Handler, ...]:
        return (self.repair,)

    def probe(self) -> Probe:
        # --connect-to takes an IPv6 address, --resolve does not.
        connect = f"::{self.url.loopback}:"
        # A proxy of the host's environment must not answer in the registry's place.
        options = "-sk --noproxy '*' -o /dev/null -D - --max-time 10"
        ask = sh(f"curl {options} --connect-to %s -- %s", connect, f"{self.url}/v2/")
        return Probe({"answer": ask, "packages": ASK_PACKAGES})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        if seen["answer"].code == NO_PROGRAM:
            yield without_program(f"check the registry endpoint {self.url}/v2/", "curl")
            return
        problem = endpoint_problem(seen["answer"].text, self.realm)
        if problem:
            installed = bool(gitlab_version(read_packages(seen["packages"])))
            yield Change(
                f"repair the registry endpoint {self.url}/v2/: {problem}",
                NOTHING,
                "run",
                notify=(self.repair,),
                requires="" if installed else "gitlab",
                id="repair",
            )


def endpoint_problem(headers: str, realm: str) -> str:
    """The fault in the headers of an answer of `/v2/`; "" if there is none. Without `realm` any realm is accepted."""
    lines = headers.splitlines()
    if not lines:
        return "no answer"
    fields = lines[0].split()
    if len(fields) < 2 or fields[1] != "401":
        return f"it answers {' '.join(fields[1:])} instead of 401"
    challenge = next((line for line in lines if line.lower().startswith("www-authenticate:")), "")
    if realm and f'realm="{realm}"' not in challenge:
        return f"it sends clients to {challenge.partition(':')[2].strip() or 'no address'} instead of {realm}"
    return ""


@dataclass(frozen=True)
class RegistryStorage(Resource):
    """The images stay reachable when the registry's storage changes, or the user acknowledged that they do not.

    What was pushed before a switch to another driver or bucket stays in the old place. A registry with a metadata database
    still lists it, so an empty place is no option: the images must be copied. Such a switch is refused until it is
    acknowledged. The registry itself is asked whether it has images: it knows those whose names only its database has.

    wanted        the parameters of the S3 driver
    acknowledged  registry.migrate = "acknowledged"
    """

    wanted: Mapping[str, Any] = field(hash=False)
    acknowledged: bool = False

    @property
    def label(self) -> str:
        return "RegistryStorage"

    def probe(self) -> Probe:
        place = [_plain(self.wanted.get(key)) for key in _LOCATION]
        return Probe({"file": ASK_GITLAB_RB, "images": script("find_image", CONFIG, RAILS, *place)})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        text = read_gitlab_rb(seen)
        if text is None:
            return
        kind, _, detail = seen["images"].text.strip().partition(" ")
        if kind in ("never", "same", "none"):
            return
        place = _left_place(text, self.wanted)
        if not place:
            return
        if kind == "image":
            loss = f"images {place} would no longer be found ({detail} is one)"
        else:
            reason = detail or seen["images"].errors.strip()
            loss = f"images {place} would no longer be found, if there are any: {reason}"
        if not self.acknowledged:
            raise Refused(f"the registry's storage would change: {loss}", hint=_HOW_TO_MIGRATE)
        yield Note(f"the registry's storage changes, as acknowledged: {loss}; images that were not copied are lost")


def _left_place(text: bytes, wanted: Mapping[str, Any]) -> str:
    """Where the registry has its images, if it would not find them with the new storage; "" if that is the same place."""
    from provision.editing.ruby.assignments import effective
    from provision.editing.ruby.values import MISSING, NotLiteral

    now = effective(text, ("registry", "storage"))
    if isinstance(now, NotLiteral):
        return "in the current storage, which gitlab.rb computes,"
    if now is MISSING or not isinstance(now, Mapping) or not now or "filesystem" in now:
        return "on the host's disk"
    driver = next((key for key in now if key in _S3), "")
    if not driver:
        return f"in its {next(iter(now))} storage"
    old = now[driver] if isinstance(now[driver], Mapping) else {}
    if all(_plain(old.get(key)) == _plain(wanted.get(key)) for key in _LOCATION):
        return ""
    return f"in bucket {old.get('bucket')}"


def _plain(value: Any) -> str:
    return str(reveal(value)) if value else ""
