"""The container registry on the GitLab host: its endpoint, and the images that a change of storage or version would lose.

`UpgradePath` decides whether a version of GitLab may follow the installed one. Since 17.5, GitLab has required upgrade stops:
x.2, x.5, x.8 and x.11 of each major version. Its package refuses an upgrade that skips one, after it was downloaded (1.4 GB), and apt refuses
an older version.

From 19.0 on the registry prefers a database for the names of images. It keeps images from before where a file in its
storage says so, and writes that file when it starts, not when an image is pushed: without a start since the first push, an
upgrade would hide all images. So it is restarted before.

Sources: the distribution API, "Token authentication"; docs.gitlab.com/update/upgrade_paths; omnibus-gitlab,
config/templates/package-scripts/preinst.erb; GitLab's container registry, registry/handlers/app.go,
handleFilesystemLockFile.
"""

from __future__ import annotations

import re
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

_STOPS: Final = (2, 5, 8, 11)
_FIRST_STOP: Final = (17, 5)  # earlier ones do not follow this rule
_DATABASE: Final = (19,)  # from this major version on the registry prefers its database
_REGISTRY: Final = "/opt/gitlab/service/registry"


@dataclass(frozen=True)
class UpgradePath(Resource):
    """The wanted version of GitLab may follow the installed one, and the registry is ready for it.

    version  a glob of the package's version, such as `19.3.0-*`; one without a minor version is not compared
    """

    version: str

    @property
    def label(self) -> str:
        return f"UpgradePath {self.version}"

    def probe(self) -> Probe:
        return Probe({"packages": ASK_PACKAGES, "registry": sh("[ ! -e %s ] || echo enabled", _REGISTRY)})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        self.refuse_early(seen)
        now = _numbers(gitlab_version(read_packages(seen["packages"])))
        if (0,) < now[:1] < _DATABASE <= _numbers(self.version)[:1] and seen["registry"].text.strip():
            yield Change(
                f"restart the registry: it marks images from before GitLab {_DATABASE[0]} in its storage, so that they stay",
                script("restart_registry", CONFIG, RAILS),
                "run",
                deadline=120,
            )

    def refuse_early(self, seen: Observation) -> None:
        installed = gitlab_version(read_packages(seen["packages"]))
        now, wanted = _numbers(installed), _numbers(self.version)
        if len(now) < 2 or len(wanted) < 2:
            return
        if wanted < now[: len(wanted)]:
            raise Refused(
                f"GitLab {installed} is installed, and gitlab.version asks for an older one: {self._shown}",
                hint="GitLab's database cannot go back: change gitlab.version, or install the older version on a new host "
                "and restore a backup that it made",
            )
        stops = [
            f"{major}.{minor}"
            for major in range(now[0], wanted[0] + 1)
            for minor in _STOPS
            if max(now[:2], (_FIRST_STOP[0], _FIRST_STOP[1] - 1)) < (major, minor) < wanted[:2]
        ]
        if stops:
            earlier = ["the stops before 17.5 that GitLab's documentation names"] if now[:2] < _FIRST_STOP else []
            raise Refused(
                f"GitLab {installed} cannot be upgraded to {self._shown} at once: it must go through "
                f"{', '.join([*earlier, *stops])}",
                hint=f'set gitlab.version = "{stops[0]}.*" and run provision gitlab, wait until its background migrations are '
                "finished (Admin, Monitoring), and go on with the next one",
            )

    @property
    def _shown(self) -> str:
        return self.version.removesuffix("-*")


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with: `19.3.*` is (19, 3)."""
    found = re.match(r"\d+(?:\.\d+){0,2}(?=[.\-]|$)", version)
    return tuple(map(int, found[0].split("."))) if found else ()


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
