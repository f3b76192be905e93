"""The registry answers `/v2/` with 401 and sends clients to GitLab for a token.  Source: the distribution API's token auth.

The registry's images are not left behind when its storage changes.

A registry that is switched to another driver or bucket starts empty: what was pushed before is still in the
old place, and no longer found. So a switch away from storage that holds images, or may, is refused until the
user says that this is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from provision.errors import Refused
from provision.host.facts import ASK_PACKAGES, read_packages
from provision.host.pending import Handler
from provision.resources.base import Change, Note, Observation, Probe, Resource
from provision.resources.gitlab.ruby_settings import ASK_GITLAB_RB, gitlab_version, read_gitlab_rb
from provision.secret import reveal
from provision.shell import sh
from provision.url import Url


@dataclass(frozen=True)
class RegistryAnswer(Resource):
    """Asked on the GitLab host itself, so that no firewall or DNS stands between. One that does not answer owes a reconfigure."""

    url: Url
    realm: str
    repair: Handler

    @property
    def handlers(self) -> tuple[Handler, ...]:
        return (self.repair,)

    @property
    def label(self) -> str:
        return f"RegistryAnswer {self.url}"

    def probe(self) -> Probe:
        # `--resolve` takes no IPv6 address as the name; this connects to the host itself whatever the URL names.
        ask = sh("curl -sk -o /dev/null -D - --max-time 10 --connect-to ::127.0.0.1: -- %s", f"{self.url}/v2/")
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
                requires="" if ready else "gitlab",
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


_DEFAULT: Final = "/var/opt/gitlab/gitlab-rails/shared/registry"
_CONFIG: Final = "/var/opt/gitlab/registry/config.yml"
# Prints the folder and, when it holds any, one repository.
_ASK_FOLDER: Final = sh(
    'dir=$(sed -n \'s/^storage:.*"filesystem":{"rootdirectory":"\\([^"]*\\)".*/\\1/p\' %s 2>/dev/null); '
    'dir=${dir:-%s}; echo "$dir"; ls -A "$dir/docker/registry/v2/repositories" 2>/dev/null | head -n 1',
    _CONFIG,
    _DEFAULT,
)
_S3: Final = {"s3", "s3_v2", "s3aws"}  # three names of one driver
_PLACE: Final = ("bucket", "regionendpoint", "rootdirectory")
_HOW: Final = (
    "stop the registry, copy all objects below docker/ from there (aws s3 sync, rclone), then run with "
    "--set registry.migrate=acknowledged; to begin empty, just run with it"
)


@dataclass(frozen=True)
class RegistryStorage(Resource):
    """A switch of storage is meant.

    wanted        the S3 driver's parameters
    acknowledged  the user knows that images stay behind, or has copied them
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
        left = _left_behind(text, self.wanted, folder, repository)
        if left and not self.acknowledged:
            raise Refused(f"the registry's storage would change, and {left}", hint=_HOW)
        if left:
            yield Note(f"storage changes as acknowledged: {left}")


def _left_behind(text: bytes, wanted: Mapping[str, Any], folder: str, repository: str) -> str:
    """What would no longer be found after the switch; "" when nothing would, or there is no switch."""
    from provision.editing.ruby.assignments import effective
    from provision.editing.ruby.values import MISSING, NotLiteral

    now = effective(text, ("registry", "storage"))
    if isinstance(now, NotLiteral):
        return "what it is now cannot be told: gitlab.rb computes it"
    driver = next((key for key in now if key in _S3), "") if isinstance(now, Mapping) else ""
    if driver and isinstance(now, Mapping):
        old = now[driver] if isinstance(now[driver], Mapping) else {}
        if all(_plain(old.get(key)) == _plain(wanted.get(key)) for key in _PLACE):
            return ""
        return f"images in bucket {old.get('bucket')} would no longer be found"
    if now is not MISSING and isinstance(now, Mapping) and now and "filesystem" not in now:
        return f"images in its {next(iter(now))} storage would no longer be found"
    return f"images in {folder} would no longer be found ({repository} is one)" if repository else ""


def _plain(value: Any) -> str:
    return str(reveal(value)) if value else ""
