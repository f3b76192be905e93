"""An image is built from a local context, and stands under its tags in the registry.  Sources: docker-build(1), docker-push(1).

It bears a label with the fingerprint of all that it is made of. Built and pushed is what the registry's own answer says:
each tag stands for the image with that label. That is then on record in state.json, and a run that finds it there asks
neither Docker nor the registry; named `image`, the registry is asked again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from provision.errors import Refused
from provision.formats.build_context import Context
from provision.host.docker import Registry
from provision.host.scripts import script
from provision.host.state import unless_recorded
from provision.image_name import Reference
from provision.resources.base import KEEP, NOTHING, ApiAction, Change, Note, Observation, Outcome, Probe, Resource
from provision.shell import Command, sh

_LABEL = "provision.build"


@dataclass(frozen=True)
class BuiltImage(Resource):
    """`digest` is the context's."""

    image: Reference
    tags: tuple[str, ...]
    context: Context
    digest: str
    registry: Registry
    push: bool = True
    arguments: tuple[tuple[str, str], ...] = ()
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
        known: Mapping[str, Any] = next((one for one in (seen.record, *seen.others.values()) if one), {})
        lines = seen["image"].text.splitlines()
        if self.push and not lines and not seen.due and known.get("made") == self.fingerprint:
            return
        trouble = next((line for line in lines if line.startswith("docker ")), "")
        ours = [line.split()[2:] for line in lines if line.startswith(f"local {self.fingerprint} ")]
        tags = {tag: what for tag, _, what in (line[4:].partition(" ") for line in lines if line.startswith("tag "))}
        if not self.push:
            if len(ours) == len(self.tags):
                return
        elif (digest := _one(tags, self.tags)) and not trouble:
            found = {"made": self.fingerprint, "digest": digest}
            if known == found:
                return
            if ours and any(one.endswith(f"@{digest}") for one in ours[0][1:]):
                yield self._noted(found)
                return
        if known.get("made") == self.fingerprint and (
            reason := next((one for one in tags.values() if one[:1] == "?"), "")
        ):
            yield self._unknown(reason[2:])
            return
        yield Change(
            f"build {'and push ' if self.push else ''}{self.image.name}:{', '.join(self.tags)}",
            ApiAction(self._make, "docker build"),
            "run",
            diff=self._diff(known, tags),
            deadline=3600,
            requires="docker" if trouble else "",
        )
        if self.push and not trouble:
            yield self._noted({})

    @property
    def _references(self) -> list[str]:
        return [str(self.image.tagged(tag)) for tag in self.tags]

    @property
    def fingerprint(self) -> str:
        """A name for all that decides what is built and where it stands."""
        parts = [self.digest, self.context.dockerfile, self.target, self.image.name, self.tags, self.arguments]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

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
            self._references,
        )
        return ask.reading(self.registry.password.reveal() + "\n")

    def _make(self) -> Outcome:
        packed, digest = self.context.packed()
        if digest != self.digest:
            raise Refused(f"{self.context.folder} was changed while this ran", hint="nothing was built: run again")
        # Without it the classic builder leaves the container of a step that failed.
        build = ["--force-rm", "-f", self.context.dockerfile, "--label", f"{_LABEL}={self.fingerprint}"]
        for reference in self._references:
            build += ["-t", reference]
        for name, value in self.arguments:
            build += ["--build-arg", f"{name}={value}"]
        build += ["--target", self.target] if self.target else []
        references = self._references
        push = _yes(self.push)
        command = script("build_image", self.image.domain, self.registry.user, push, len(references), references, build)
        return Outcome(command.reading(self.registry.password.reveal().encode() + b"\n" + packed))

    def _noted(self, found: Mapping[str, str]) -> Change:
        """What the registry showed gets on record; before the build it stands for the look that follows."""
        what = f"prove {self.image.name}:{', '.join(self.tags)}: the registry has what was built"
        record = dict(found) or KEEP
        return Change(what, NOTHING, "run", record=record, verification=True, final=True, id="record")

    def _unknown(self, reason: str) -> Change:
        say = sh("printf '%%s\\n' %s >&2; exit 1", f"{self.image.domain}: {reason}")
        return Change(f"ask the registry for {self.image.name}", say, "run", verification=True)

    def _diff(self, known: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        before = [f"made of: {known.get('made', 'nothing yet')}", *(f"{tag}: {what}" for tag, what in tags.items())]
        after = [f"made of: {self.fingerprint}"]
        lines = [f"--- {self.image.name} (now)", f"+++ {self.image.name} (wanted)"]
        return "\n".join([*lines, *(f"-{line}" for line in before), *(f"+{line}" for line in after)]) + "\n"


def _one(tags: Mapping[str, str], wanted: tuple[str, ...]) -> str:
    """The digest that all tags stand for, or ""."""
    found = {tags.get(tag, "") for tag in wanted}
    digest = found.pop()
    return digest if not found and digest.startswith("sha256:") else ""


def _yes(value: bool) -> str:
    return "yes" if value else "no"
