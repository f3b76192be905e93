"""Images: those that are built on a host and pushed, the verification of push and pull, and the removal of unused ones.

Sources: docker-build(1), docker-push(1), docker-login(1), docker-image(1), docker-builder(1), the distribution API.

An image has a label with the fingerprint of everything that it is made of. It counts as built and pushed when, in
the registry, each of its tags names the image with that label. This is recorded; a run that finds the record asks neither Docker
nor the registry, unless a verification is due.

One script lists and removes what is unused, and is what the prune timer runs. Containers and images of apps stay, whatever
their age, and so do GitLab Runner's containers and helper images, and all volumes.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from provision.errors import ApiFailed, ProbeFailed, Refused
from provision.gitlab.api import Api, project_address
from provision.host.docker import RegistryAccess
from provision.host.scripts import script
from provision.host.state import mapping, unless_recorded
from provision.image_name import Reference
from provision.resources.base import (
    KEEP,
    NOTHING,
    ApiAction,
    Change,
    Note,
    Observation,
    Outcome,
    Probe,
    Resource,
    failed_check,
)
from provision.secret import Secret, mask, reveal
from provision.shell import Command, sh
from provision.url import Url

if TYPE_CHECKING:
    from provision.formats.build_context import Context

_LABEL: Final = "provision.build"
_UNITS: Final = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_KINDS: Final = ("container", "image", "cache")
_NAMES: Final = 10  # the most names in one line


@dataclass(frozen=True)
class BuiltImage(Resource):
    """The image is built from a local context and pushed under its tags.

    image      its name, without a tag
    digest     of the context
    push       False: it stays on the host
    arguments  build arguments
    target     the stage to build; "": the last
    """

    image: Reference
    tags: tuple[str, ...]
    context: Context
    digest: str
    registry: RegistryAccess
    push: bool = True
    arguments: Mapping[str, str] = field(default_factory=dict, hash=False)
    target: str = ""

    @property
    def label(self) -> str:
        return f"Image {self.image.name}"

    @property
    def record_key(self) -> str:
        return f"image {self.image.name}:{self.tags[0]}"

    def probe(self) -> Probe:
        ask, ask_when_due = self._question(due=False), self._question(due=True)
        unless = unless_recorded(self.fingerprint, ask) if self.push else ask
        return Probe({"image": unless}, when_due={"image": ask_when_due})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        known = next((one for one in map(mapping, (seen.record, *seen.others.values())) if one), {})
        is_recorded = known.get("made") == self.fingerprint
        lines = seen["image"].text.splitlines()
        if self.push and not lines and not seen.due and is_recorded:
            return
        no_docker = any(line.startswith("docker ") for line in lines)
        built = [line.split()[2:] for line in lines if line.startswith(f"local {self.fingerprint} ")]
        tags = {tag: what for tag, _, what in (line[4:].partition(" ") for line in lines if line.startswith("tag "))}
        if not self.push:
            if len(built) == len(self.tags):
                return
        elif (digest := _common_digest(tags, self.tags)) and not no_docker:
            found = {"made": self.fingerprint, "digest": digest}
            if known == found:
                return
            if built and any(one.endswith(f"@{digest}") for one in built[0][1:]):
                yield self._record(found)
                return
        if is_recorded and (reason := next((one for one in tags.values() if one[:1] == "?"), "")):
            yield failed_check(f"ask the registry for {self.image.name}", f"{self.image.domain}: {reason[2:]}")
            return
        yield Change(
            f"build {'and push ' if self.push else ''}{self.image.name}:{', '.join(self.tags)}",
            ApiAction(self._build, "docker build"),
            "run",
            diff=self._diff(known, tags),
            deadline=3600,
            requires="docker" if no_docker else "",
        )
        if self.push and not no_docker:
            yield self._record({})

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the image's content and of its destination."""
        arguments = list(self.arguments.items())
        parts = [self.digest, self.context.dockerfile, self.target, self.image.name, self.tags, arguments]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    @property
    def _references(self) -> list[str]:
        return [str(self.image.tagged(tag)) for tag in self.tags]

    def _question(self, *, due: bool) -> Command:
        ask = script(
            "inspect_image",
            self.fingerprint,
            _yes(self.push),
            _yes(due),
            self.registry.url,
            self.image.path,
            self.registry.user,
            " ".join(self.tags),
            *self.registry.access,
            self._references,
        )
        return ask.reading(self.registry.password.reveal() + "\n")

    def _build(self) -> Outcome:
        packed, digest = self.context.packed()
        if digest != self.digest:
            raise Refused(f"{self.context.folder} was changed during this run", hint="nothing was built: run again")
        # Without --force-rm the classic builder leaves the container of a failed step.
        options = ["--force-rm", "-f", self.context.dockerfile, "--label", f"{_LABEL}={self.fingerprint}"]
        for reference in self._references:
            options += ["-t", reference]
        for name, value in self.arguments.items():
            options += ["--build-arg", f"{name}={value}"]
        options += ["--target", self.target] if self.target else []
        references, push = self._references, _yes(self.push)
        command = script(
            "build_image", self.image.domain, self.registry.user, push, len(references), references, options
        )
        return Outcome(command.reading(self.registry.password.reveal().encode() + b"\n" + packed))

    def _record(self, found: Mapping[str, str]) -> Change:
        """Records what the registry answered. Before the build nothing is recorded: it is planned again after it."""
        summary = f"verify that the registry has {self.image.name}:{', '.join(self.tags)} as it was built"
        record = dict(found) or KEEP
        return Change(summary, NOTHING, "run", record=record, verification=True, final=True, id="record")

    def _diff(self, known: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        made = "(another)" if "made" in known else "nothing yet"  # no hash: build arguments are part of it
        before = [f"content and arguments: {made}", *(f"{tag}: {what}" for tag, what in tags.items())]
        after = ["content and arguments: (those of the inventory)"]
        lines = [f"--- {self.image.name} (now)", f"+++ {self.image.name} (wanted)"]
        return "\n".join([*lines, *(f"-{line}" for line in before), *(f"+{line}" for line in after)]) + "\n"


def _common_digest(tags: Mapping[str, str], wanted: tuple[str, ...]) -> str:
    """The digest that all tags name, or ""."""
    found = {tags.get(tag, "") for tag in wanted}
    digest = found.pop()
    return digest if not found and digest.startswith("sha256:") else ""


def _yes(value: bool) -> str:
    return "yes" if value else "no"


# Whether the name has an address and the port opens, in 3 ms where curl takes 12. Other resources check the registry's
# answer on the GitLab host, and install its CA on this host.
_CONNECT = "timeout 5 bash -c ': 2>/dev/null <>/dev/tcp/$0/$1' %s %s"


class ProjectBot(NamedTuple):
    """A login for one check: a bot of the project, whose token is revoked after it.

    The role and the scope are those that deleting an image needs. A deploy token could push and pull, and not delete.
    Sources: GitLab's lib/api/resource_access_tokens.rb; Auth::ContainerRegistryAuthenticationService (can_access?).

    name  of its token; what a killed run left under this name is revoked
    """

    api: Api
    project: str
    name: str

    def make(self) -> tuple[Secret, Callable[[], None]]:
        """A token, and what revokes it. It ends in two days, should a run be killed before that. Raises ApiFailed."""
        place = f"{project_address(self.project)}/access_tokens"
        try:
            for one in self.api.get_list(place, {"state": "active", "per_page": 100}):
                if one["name"] == self.name:
                    self.api.delete(f"{place}/{one['id']}")
            # GitLab compares with its own date, which may be tomorrow's.
            end = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=2)
            wanted = {"name": self.name, "scopes": ["api"], "access_level": 40, "expires_at": str(end)}
            made = self.api.post(place, wanted)
        except ApiFailed as error:
            text = f"no login for the check can be made in project {self.project}: {error.text}"
            raise ApiFailed(
                text, hint=f"{error.hint}; or give registry.login".lstrip("; "), status=error.status
            ) from error
        return Secret(str(made["token"])), lambda: self.api.delete(f"{place}/{made['id']}")


@dataclass(frozen=True)
class ImageCheck(Resource):
    """Pushes an image to the registry, pulls it and deletes it, from this host.

    It does so when a verification is due, when the port does not open, or when no check with these settings is recorded.

    image        the repository to push to
    ca           the path of the CA file on the host, which may not exist
    password     None: `bot` makes a login
    context      further settings that the check depends on: when they change, it is repeated
    token_hosts  the hosts besides its own that the registry may send clients to for tokens
    """

    url: Url
    user: str
    password: Secret | None
    image: str
    ca: str
    context: str = ""
    token_hosts: tuple[str, ...] = ()
    bot: ProjectBot | None = None

    @property
    def record_key(self) -> str:
        return "verified"

    def probe(self) -> Probe:
        return Probe.of(sh(_CONNECT, self.url.host, self.url.port))

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        if seen.code == 0 and not seen.due and seen.record == self._fingerprint():
            return
        url, registry = self.url, self.url.authority
        access = (registry, self.user, self.image, self.ca, " ".join(self.token_hosts))
        command = script("check_registry", url.host, url.port, str(url), *access)
        yield Change(
            f"verify push and pull of {registry}/{self.image}",
            _as_bot(command, self.bot) if self.bot else command.reading(f"{reveal(self.password or '')}\n"),
            "run",
            record=self._fingerprint(),
            deadline=300,
            verification=True,
        )

    def _fingerprint(self) -> str:
        parts = [str(self.url), self.user, self.image, self.ca, self.context]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _as_bot(command: Command, bot: ProjectBot) -> ApiAction:
    """The command, with a login that exists while it runs."""

    def make() -> Outcome:
        token, revoke = bot.make()
        return Outcome(command.reading(f"{token.reveal()}\n"), after=revoke)

    return ApiAction(make, "POST /projects/:id/access_tokens")


@dataclass(frozen=True)
class UnusedImages(Resource):
    """Stopped containers, unused images and build cache that are older than `days` are removed; the images `keep` stay."""

    days: int
    keep: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return "UnusedImages"

    def probe(self) -> Probe:
        return Probe.of(self._script("list"))

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        if seen.code != 0:
            raise ProbeFailed(
                f"Docker cannot list its containers and images: {mask(seen.only.errors.strip())[-300:]}",
                hint="run provision docker",
            )
        found = [line.split("|") for line in seen.text.splitlines() if line.count("|") == 3]
        lines = [line for line in found if line[0] in _KINDS]
        if not lines:
            return
        parts = [_named(kind, [line for line in lines if line[0] == kind]) for kind in _KINDS]
        freed = sum(map(bytes_of, (line[2] for line in lines)))
        *most, last = filter(None, parts)
        what = f"{', '.join(most)} and {last}" if most else last
        yield Change(
            f"remove {what}: frees at least {human(freed)}",
            self._script("remove"),
            "delete",
            diff="".join(f"-{kind} {names.strip() or identity[:19]} {size}\n" for kind, identity, size, names in lines),
            deadline=1800,
        )

    def _script(self, mode: str) -> Command:
        return script("prune_docker", mode, self.days, self.keep)


def bytes_of(size: str) -> float:
    """The bytes that Docker prints as `41.06MB`; 0 for other text."""
    parts = re.match(r"([0-9]{1,12}(?:\.[0-9]{0,12})?)([kMGT]?B)", size)
    return float(parts[1]) * _UNITS[parts[2]] if parts else 0


def human(size: float) -> str:
    """A number of bytes as Docker prints it, such as `41.1 MB`."""
    unit = next(unit for unit, factor in reversed(_UNITS.items()) if size >= factor or factor == 1)
    return f"{size / _UNITS[unit]:.3g} {unit}"


def _named(kind: str, lines: list[list[str]]) -> str:
    if not lines:
        return ""
    if kind == "cache":
        return f"{len(lines)} {'entries' if len(lines) > 1 else 'entry'} of the build cache"
    names = [line[3].strip() or line[1].removeprefix("sha256:")[:12] for line in lines]
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    word = (
        f"unused image{'s' if len(names) > 1 else ''}"
        if kind == "image"
        else f"stopped container{'s' if len(names) > 1 else ''}"
    )
    return f"{len(names)} {word} ({', '.join(names[:_NAMES])}{more})"
