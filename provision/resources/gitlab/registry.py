"""The container registry on the GitLab host: its endpoint, and the images that a change of its storage would lose.

Source: the distribution API, "Token authentication".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from provision.errors import Refused
from provision.host.curl import NO_PROGRAM
from provision.host.facts import ASK_PACKAGES, read_packages
from provision.host.pending import Handler
from provision.resources.base import NOTHING, Change, Note, Observation, Probe, Resource, without_program
from provision.resources.gitlab.gitlab_rb import ASK_GITLAB_RB, gitlab_version, read_gitlab_rb
from provision.secret import reveal
from provision.shell import sh
from provision.url import Url

_DEFAULT_FOLDER: Final = "/var/opt/gitlab/gitlab-rails/shared/registry"
_CONFIG: Final = "/var/opt/gitlab/registry/config.yml"
# Prints the folder of the images, then one repository in it, if there is any.
_ASK_FOLDER: Final = sh(
    'dir=$(sed -n \'s/^storage:.*"filesystem":{"rootdirectory":"\\([^"]*\\)".*/\\1/p\' %s 2>/dev/null); '
    'dir=${dir:-%s}; echo "$dir"; ls -A "$dir/docker/registry/v2/repositories" 2>/dev/null | head -n 1',
    _CONFIG,
    _DEFAULT_FOLDER,
)
_S3: Final = {"s3", "s3_v2", "s3aws"}  # three names of one driver
_LOCATION: Final = ("bucket", "regionendpoint", "rootdirectory")
_HOW_TO_MIGRATE: Final = (
    "stop the registry, copy all objects below docker/ from there (aws s3 sync, rclone), then run with "
    "--set registry.migrate=acknowledged; to start empty, run with it right away"
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

    A registry that is switched to another driver or bucket starts empty: what was pushed before stays in the old place.
    Such a switch is refused until it is acknowledged.

    wanted        the parameters of the S3 driver
    acknowledged  registry.migrate = "acknowledged"
    """

    wanted: Mapping[str, Any] = field(hash=False)
    acknowledged: bool = False

    @property
    def label(self) -> str:
        return "RegistryStorage"

    def probe(self) -> Probe:
        return Probe({"file": ASK_GITLAB_RB, "folder": _ASK_FOLDER})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        text = read_gitlab_rb(seen)
        if text is None:
            return
        folder, _, repository = seen["folder"].text.strip().partition("\n")
        loss = _unreachable_images(text, self.wanted, folder, repository)
        if loss and not self.acknowledged:
            raise Refused(f"the registry's storage would change: {loss}", hint=_HOW_TO_MIGRATE)
        if loss:
            yield Note(f"the registry's storage changes, as acknowledged: {loss}")


def _unreachable_images(text: bytes, wanted: Mapping[str, Any], folder: str, repository: str) -> str:
    """A description of the images that the registry would not find with the new storage; "" if it finds all."""
    from provision.editing.ruby.assignments import effective
    from provision.editing.ruby.values import MISSING, NotLiteral

    now = effective(text, ("registry", "storage"))
    if isinstance(now, NotLiteral):
        return "the current storage is unknown, since gitlab.rb computes it"
    driver = next((key for key in now if key in _S3), "") if isinstance(now, Mapping) else ""
    if driver and isinstance(now, Mapping):
        old = now[driver] if isinstance(now[driver], Mapping) else {}
        if all(_plain(old.get(key)) == _plain(wanted.get(key)) for key in _LOCATION):
            return ""
        return f"images in bucket {old.get('bucket')} would no longer be found"
    if now is not MISSING and isinstance(now, Mapping) and now and "filesystem" not in now:
        return f"images in its {next(iter(now))} storage would no longer be found"
    return f"images in {folder} would no longer be found ({repository} is one)" if repository else ""


def _plain(value: Any) -> str:
    return str(reveal(value)) if value else ""
