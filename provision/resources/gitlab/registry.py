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
_BLOBS: Final = "blobs"
# Prints the folder of the images; then one repository in it, or `blobs` where only the data of images is there, since the
# registry's metadata database has their names; then `ran` if the registry was ever configured.
_ASK_FOLDER: Final = sh(
    'dir=$(sed -n \'s/^storage:.*"filesystem":{"rootdirectory":"\\([^"]*\\)".*/\\1/p\' %s 2>/dev/null); '
    'dir=${dir:-%s}; echo "$dir"; cd "$dir/docker/registry/v2" 2>/dev/null && '
    '{ ls -A repositories; [ -z "$(ls -A blobs/sha256)" ] || echo %s; } 2>/dev/null | head -n 1 | grep . || echo; '
    "[ ! -e %s ] || echo ran",
    _CONFIG,
    _DEFAULT_FOLDER,
    _BLOBS,
    _CONFIG,
)
_S3: Final = {"s3", "s3_v2", "s3aws"}  # three names of one driver
_LOCATION: Final = ("bucket", "regionendpoint", "rootdirectory")
_HOW_TO_MIGRATE: Final = (
    "stop the registry, copy all objects below docker/ from there to the new place (aws s3 sync, rclone), then run with "
    "--set registry.migrate=acknowledged; copy them in any case: the registry's metadata database (GitLab 19 and later) "
    "still lists every image, so that pushes skip what it lists and pulls fail"
)
_NOT_SEEN: Final = (
    "no images were found in {folder}, so the registry's storage is changed; what only its metadata database lists cannot "
    "be seen from here: if there are images, copy them"
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

    What was pushed before a switch to another driver or bucket stays in the old place. From GitLab 19 on the registry's
    metadata database still lists it, so an empty place is no option: the images must be copied. Such a switch is refused
    until it is acknowledged. Images are seen in gitlab.rb's storage and in folders of the host, not in the database.

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
        folder, repository, ran = (*seen["folder"].text.splitlines(), "", "", "")[:3]
        loss = _unreachable_images(text, self.wanted, folder, repository)
        if loss and not self.acknowledged:
            raise Refused(f"the registry's storage would change: {loss}", hint=_HOW_TO_MIGRATE)
        if loss:
            yield Note(f"the registry's storage changes, as acknowledged: {loss}; images that were not copied are lost")
        elif ran and _is_on_disk(text):
            yield Note(_NOT_SEEN.format(folder=folder))


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
    one = "their names are in the metadata database" if repository == _BLOBS else f"{repository} is one"
    return f"images in {folder} would no longer be found ({one})" if repository else ""


def _is_on_disk(text: bytes) -> bool:
    """Whether gitlab.rb has the images on the host's own disk, as GitLab does by default."""
    from provision.editing.ruby.assignments import effective
    from provision.editing.ruby.values import MISSING

    now = effective(text, ("registry", "storage"))
    return now is MISSING or (isinstance(now, Mapping) and (not now or "filesystem" in now))


def _plain(value: Any) -> str:
    return str(reveal(value)) if value else ""
