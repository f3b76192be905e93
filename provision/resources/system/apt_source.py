"""A package repository, its key and its priority.  Sources: sources.list(5) on deb822, apt_preferences(5).

Key files have mode 0644. If apt's own user cannot read the key, apt skips the repository without an error, and installs
a package of the same name from another one.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from provision.editing.apt_sources import AptEntry, disable
from provision.editing.diff import masked_diff
from provision.errors import ProbeFailed, Refused, UsageError
from provision.formats.openpgp import NotAKey, expires, fingerprints
from provision.host.files import replace
from provision.host.releases import (
    ASK_DOWNLOAD_TOOLS,
    ASK_PACKAGES,
    ASK_SYSTEM,
    Publisher,
    System,
    read_packages,
    read_system,
)
from provision.host.scripts import script
from provision.inventory import Settings
from provision.inventory.tables.apt import LOCK_SECONDS, Mirror, PublishedKey, repository
from provision.resources.base import Change, Note, Observation, Probe, Resource
from provision.resources.system.file import File, ask_file, read_file
from provision.resources.system.packages import download_settings, install_tools
from provision.secret import Secret, reveal
from provision.shell import Result
from provision.templating import render

_SOON = datetime.timedelta(days=60)
_FINGERPRINT = re.compile(r"[0-9A-F]{40}|[0-9A-F]{64}")
_ASK_SOURCES = script("observe_apt_sources")


@dataclass(frozen=True)
class AptSource(Resource):
    """apt knows a repository: /etc/apt/sources.list.d/NAME.sources, with its key in /etc/apt/keyrings/NAME.asc.

    uri, suite, key_url  may contain {id} (ubuntu, debian) and {codename}
    key                  the key's text; "": the host fetches it from key_url (https), and again before it expires
    fingerprints         40 digits each: a fetched key must have one of them. Required with key_url
    pin                  packages that must come from this repository, even if others offer newer versions
    publisher            decides which release's packages a host gets, and refuses a release without any; None: its own
    lock_timeout         as for Packages
    proxy                a configuration for curl. What the inventory has in [apt] and [proxy] replaces both

    Entries of other files for the same address and suite are disabled: with another key for it apt fails. All else in those
    files stays. A host without curl or CAs gets them from its package sources. Raises Refused for a given key that is
    expired or not a key, and UsageError for a key that would be trusted unseen.
    """

    name: str
    uri: str
    suite: str
    component: str
    key: str = ""
    key_url: str = ""
    pin: tuple[str, ...] = ()
    fingerprints: tuple[str, ...] = ()
    publisher: Publisher | None = None
    lock_timeout: int = LOCK_SECONDS
    proxy: str | Secret = ""

    def __post_init__(self) -> None:
        found = tuple(one.replace(" ", "").upper() for one in self.fingerprints)
        object.__setattr__(self, "fingerprints", found)
        if self.key or not self.key_url:
            return
        if not self.key_url.startswith("https://"):
            raise UsageError(f"{self.label}: key_url {self.key_url!r} is not https", hint="give an https URL, or `key`")
        if not found or not all(map(_FINGERPRINT.fullmatch, found)):
            raise UsageError(
                f"{self.label}: a key is fetched, and its fingerprint is not known",
                hint="give `fingerprints`, 40 digits each as the publisher states them, or the key itself as `key`",
            )

    @classmethod
    def published(
        cls,
        name: str,
        mirror: Mirror | None,
        address: str,
        key: PublishedKey,
        publisher: Publisher,
        *,
        component: str = "main",
        pin: tuple[str, ...] = (),
    ) -> AptSource:
        """The repository of a publisher at its `address`, or the inventory's mirror of it.

        Raises UsageError for an unreadable key of the mirror.
        """
        found = repository(mirror, address)
        return cls(
            name,
            found.uri,
            found.suite,
            component,
            key=found.key,
            key_url=key.url,
            pin=pin,
            fingerprints=key.fingerprints,
            publisher=publisher.behind(mirror),
        )

    @property
    def origin(self) -> str:
        """The part of the address that is the same for every host."""
        return self.uri.partition("{")[0]

    def with_settings(self, settings: Settings) -> AptSource:
        return dataclasses.replace(self, **download_settings(settings, "https"))

    @property
    def key_path(self) -> str:
        """Where the key is on the host."""
        return f"/etc/apt/keyrings/{self.name}.asc"

    @property
    def path(self) -> str:
        """Where the source is on the host."""
        return f"/etc/apt/sources.list.d/{self.name}.sources"

    def claims(self) -> Mapping[str, Hashable]:
        return {self.path: (self.uri, self.suite, self.component, self.key, self.key_url, self.pin, self.fingerprints)}

    def probe(self) -> Probe:
        return Probe(
            {
                "system": ASK_SYSTEM,
                "key": ask_file(self.key_path),
                "source": ask_file(self.path),
                "pin": ask_file(self._pin_path),
                "sources": _ASK_SOURCES,
                "missing": ASK_DOWNLOAD_TOOLS,
                **({"packages": ASK_PACKAGES} if self.publisher else {}),
            }
        )

    def refuse_early(self, seen: Observation) -> None:
        self._release(seen)

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        system, note = self._release(seen)
        if note:
            yield Note(note)
        yield from self._disable_others(seen["sources"], system)
        missing = [one for one in seen["missing"].text.split() if one != "curl" or not self.key]
        # Before our own source: apt reaches it only with the CAs.
        if missing and (not self.key or self.uri.startswith("https:")):
            yield install_tools(missing, self.lock_timeout)
        yield from self._plan_key(seen, system)
        source = File(self.path, self._source_text(system))
        yield from source.plan(Observation({"": seen["source"]}))
        if self.pin:
            yield from File(self._pin_path, self._pin_text()).plan(Observation({"": seen["pin"]}))

    def uri_on(self, system: System) -> str:
        """The repository's address on such a host."""
        return self.uri.format(id=system.id, codename=system.codename)

    def _release(self, seen: Observation) -> tuple[System, str]:
        """The release whose packages the host gets, and a note about it. Raises Refused."""
        system = read_system(seen["system"])
        if self.publisher is None:
            return system, ""
        installed = self.publisher.package in read_packages(seen["packages"])
        chosen, note = self.publisher.choose(system, installed=installed)
        if installed and chosen.codename != system.codename:
            # Packages for its own release may have been published since: a host that was set up with them keeps them.
            found = read_file(self.path, seen, "source").content
            if found == self._source_text(system).encode():
                return system, ""
        return chosen, note

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
        fetch = script("fetch_key", url, path, list(self.fingerprints)).reading(reveal(self.proxy))
        problem, usable = _condition(found.content or b"", self.fingerprints)
        if not found.content or found.mode != "0644":
            yield Change(f"fetch {url} to {path}", fetch, "create", deadline=300)
        elif not usable:
            yield Change(f"fetch {url} to {path} again: {problem}", fetch, "update", deadline=300)
        elif problem:
            # The publisher may not have renewed it yet: it is fetched in every run, and that is not counted as a change.
            yield Change(f"fetch {url} to {path} again: {problem}", fetch, "update", deadline=300, verification=True)

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

    def _disable_others(self, result: Result, system: System) -> Iterator[Change]:
        suite = self.suite.format(id=system.id, codename=system.codename)
        ours = AptEntry(self.uri_on(system), suite, (self.component,), self.key_path)
        for path, content in _sources(result):
            wanted = disable(path, content, ours, f"disabled: {self.path} has this repository")
            if path != self.path and wanted != content:
                yield Change(
                    f"disable the entry for {ours.uri} {suite} in {path}",
                    replace(path, wanted, mode="0644", owner="root:root", keep=True, seen=content),
                    diff=masked_diff(path, content, wanted),
                )


def _sources(result: Result) -> Iterator[tuple[str, bytes]]:
    """The path and content of each file in the answer to _ASK_SOURCES. Raises ProbeFailed."""
    heads, _, contents = result.stdout.partition(b"\n\n") if result.stdout[:1] != b"\n" else (b"", b"", b"")
    files = [line.partition(" ")[::2] for line in heads.decode("utf-8", "replace").splitlines()]
    if result.code != 0 or not all(size.isdecimal() for size, _ in files):
        raise ProbeFailed(
            f"apt's sources cannot be read: {result.errors.strip()}",
            hint="check them on the host: ls -l /etc/apt/sources.list /etc/apt/sources.list.d/",
        )
    if sum(int(size) for size, _ in files) != len(contents):
        raise ProbeFailed("apt's sources were changed while they were read", hint="run the command again")
    for size, path in files:
        yield path, contents[: int(size)]
        contents = contents[int(size) :]


def _condition(key: bytes, known: Sequence[str] = ()) -> tuple[str, bool]:
    """The fault of a key ("" for none), and whether apt accepts it and we do; `known` are the fingerprints to expect."""
    try:
        end = expires(key)
        unknown = [one for one in fingerprints(key) if one not in known] if known else []
    except NotAKey as error:
        return str(error), False
    if unknown:
        return f"it has the key {unknown[0]}, which is not expected", False
    left = end - datetime.datetime.now(datetime.UTC) if end else _SOON
    if left <= datetime.timedelta():
        return f"it expired on {end:%F}", False
    return (f"it expires on {end:%F}" if left < _SOON else ""), True
