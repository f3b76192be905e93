"""A package repository, its key and its priority.  Sources: sources.list(5) on deb822, apt_preferences(5).

Key files have mode 0644. If apt's own user cannot read the key, apt skips the repository without an error, and installs
a package of the same name from another one.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from provision.errors import Refused
from provision.formats.openpgp import NotAKey, expires
from provision.host.facts import ASK_SYSTEM, System, read_system
from provision.host.scripts import script
from provision.resources.base import BatchQuery, Change, Note, Observation, Probe, Resource
from provision.resources.system.file import File, ask_file, read_file
from provision.shell import Command, Result, sh
from provision.templating import render

_SOON = datetime.timedelta(days=60)
_SOURCES = "/etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources"


@dataclass(frozen=True)
class AskOtherSources(BatchQuery):
    """Asks which other files name a repository; several repositories are looked for by one command.

    pattern  for grep -E
    own      the name of our own file
    """

    pattern: str = ""
    own: str = ""

    @classmethod
    def join(cls, questions: Sequence[AskOtherSources]) -> Command:
        """One command that prints all lines that name one of the repositories, each with its file."""
        patterns = [word for one in questions for word in ("-e", one.pattern)]
        return sh(f"grep --null -HsE %s -- {_SOURCES} || :", patterns)

    @classmethod
    def split(cls, questions: Sequence[AskOtherSources], result: Result) -> list[Result]:
        """The files for each question, by the lines that name its repository."""
        named = [line.partition("\0")[::2] for line in result.text.splitlines()]
        answers = []
        for one in questions:
            pattern = re.compile(one.pattern.replace("[[:space:]]", r"\s"))
            files = dict.fromkeys(
                file for file, line in named if pattern.search(line) and not file.endswith(f"/{one.own}")
            )
            answers.append(Result("".join(f"{file}\n" for file in files).encode("utf-8", "surrogateescape")))
        return answers


@dataclass(frozen=True)
class AptSource(Resource):
    """apt knows a repository: /etc/apt/sources.list.d/NAME.sources, with its key in /etc/apt/keyrings/NAME.asc.

    uri, suite, key_url  may contain {id} (ubuntu, debian) and {codename}
    key                  the key's text; "": the host fetches it from key_url, and again before it expires
    pin                  packages that must come from this repository, even if others offer newer versions

    Other files that name the same repository are moved away: with another key for it apt fails. Raises Refused for a
    given key that is expired or not a key.
    """

    name: str
    uri: str
    suite: str
    component: str
    key: str = ""
    key_url: str = ""
    pin: tuple[str, ...] = ()

    @property
    def key_path(self) -> str:
        """Where the key is on the host."""
        return f"/etc/apt/keyrings/{self.name}.asc"

    @property
    def path(self) -> str:
        """Where the source is on the host."""
        return f"/etc/apt/sources.list.d/{self.name}.sources"

    def claims(self) -> Mapping[str, Hashable]:
        return {self.path: (self.uri, self.suite, self.component, self.key, self.key_url, self.pin)}

    def probe(self) -> Probe:
        return Probe(
            {
                "system": ASK_SYSTEM,
                "key": ask_file(self.key_path),
                "source": ask_file(self.path),
                "pin": ask_file(self._pin_path),
                "others": self._ask_others(),
            }
        )

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        system = read_system(seen["system"])
        for other in seen["others"].text.splitlines():
            yield Change(
                f"move {other} away: it names the same repository",
                sh("mkdir -p -m 0700 /var/lib/provision/backup && mv -f -- %s /var/lib/provision/backup/", other),
                "delete",
            )
        yield from self._plan_key(seen, system)
        source = File(self.path, self._source_text(system))
        yield from source.plan(Observation({"": seen["source"]}))
        if self.pin:
            yield from File(self._pin_path, self._pin_text()).plan(Observation({"": seen["pin"]}))

    def uri_on(self, system: System) -> str:
        """The repository's address on such a host."""
        return self.uri.format(id=system.id, codename=system.codename)

    @property
    def _pin_path(self) -> str:
        return f"/etc/apt/preferences.d/{self.name}.pref"

    @property
    def _host(self) -> str:
        return urlsplit(self.uri).hostname or ""

    def _plan_key(self, seen: Observation, system: System) -> Iterator[Change | Note]:
        if self.key:
            yield from self._check_given(self.key.encode())
            yield from File(self.key_path, self.key).plan(Observation({"": seen["key"]}))
            return
        found = read_file(self.key_path, seen, "key")
        url, path = self.key_url.format(id=system.id, codename=system.codename), self.key_path
        fetch = script("fetch_key", url, path)
        problem, usable = _condition(found.content or b"")
        if not found.content or found.mode != "0644":
            yield Change(f"fetch {url} to {path}", fetch, "create", deadline=90)
        elif not usable:
            yield Change(f"fetch {url} to {path} again: {problem}", fetch, "update", deadline=90)
        elif problem:
            # The publisher may not have renewed it yet: it is fetched in every run, and that is not counted as a change.
            yield Change(f"fetch {url} to {path} again: {problem}", fetch, "update", deadline=90, verification=True)

    def _check_given(self, key: bytes) -> Iterator[Note]:
        problem, usable = _condition(key)
        if not usable:
            raise Refused(
                f"the key given for the repository {self.uri}: {problem}",
                hint="put the current key of its publisher into the file that [apt] names",
            )
        if problem:
            yield Note(f"the key given for the repository {self.uri}: {problem}")

    def _source_text(self, system: System) -> str:
        return render(
            "apt.sources.j2",
            uri=self.uri_on(system),
            suite=self.suite.format(id=system.id, codename=system.codename),
            component=self.component,
            architecture=system.architecture,
            key=self.key_path,
        )

    def _pin_text(self) -> str:
        return "".join(render("apt.pref.j2", package=package, host=self._host) for package in self.pin)

    def _ask_others(self) -> Command:
        # Two entries for one repository with different Signed-By make every call of apt fail.
        start, brace, _ = self.uri.partition("{")
        address = re.sub(r"([][.*+?(){}|^$\\])", r"\\\1", start.split("://")[-1].rstrip("/"))
        pattern = f"//{address}/" if brace else f"//{address}/*([[:space:]]|$)"
        alone = sh(f"grep -lsE -- %s {_SOURCES} | grep -vxF -- %s || :", pattern, self.path)
        return AskOtherSources(alone.script, pattern=pattern, own=f"{self.name}.sources")


def _condition(key: bytes) -> tuple[str, bool]:
    """The fault of a key ("" for none), and whether apt accepts it."""
    try:
        end = expires(key)
    except NotAKey as error:
        return str(error), False
    left = end - datetime.datetime.now(datetime.UTC) if end else _SOON
    if left <= datetime.timedelta():
        return f"it expired on {end:%F}", False
    return (f"it expires on {end:%F}" if left < _SOON else ""), True
