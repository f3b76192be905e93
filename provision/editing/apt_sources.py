"""Entries of apt's sources files that name a repository which another file sets up.

Only the entry itself is disabled: a line of `NAME.list` becomes a comment, and a stanza of `NAME.sources` gets
`Enabled: no`. A stanza with several repositories loses one of them. Every other byte stays.

Sources: sources.list(5); apt's `sourcelist.cc` on comments, and on "Conflicting values set for option Signed-By", which
it reports for two entries with the same address and suite, whatever their types and components are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

_ENTRY = re.compile(r"\s*(deb|deb-src)\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)(.*)")
_FIELD = re.compile(r"([A-Za-z0-9-]+):(.*)", re.DOTALL)
# Two entries for one repository must also agree on these.
_SHARED = {
    "trusted",
    "check-valid-until",
    "valid-until-min",
    "valid-until-max",
    "check-date",
    "date-max-future",
    "inrelease-path",
}
_NO = ("no", "false", "without", "off", "disable", "0")


class AptEntry(NamedTuple):
    """One repository as an entry names it.

    signed_by  "" where the entry names no key
    options    names of its other options, in small letters
    """

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str
    types: tuple[str, ...] = ("deb",)
    options: frozenset[str] = frozenset()

    def conflicts_with(self, ours: AptEntry) -> bool:
        """Whether apt fails because of both, or reports this one as configured twice."""
        if _address(self.uri) != _address(ours.uri) or self.suite != ours.suite:
            return False
        same = self.types == ours.types and set(self.components) <= set(ours.components)
        return same or self.signed_by != ours.signed_by or not _SHARED.isdisjoint(self.options)


@lru_cache(maxsize=64)  # the hosts of an estate have equal files
def disable(name: str, content: bytes, ours: AptEntry, why: str) -> bytes:
    """The file's content without active entries in conflict with ours; the same content if there are none.

    name  the file's name; its end decides the format
    why   one line, for the comment at a disabled entry
    """
    # Latin-1 maps each byte to one character and back: a comment may be in any encoding.
    text = content.decode("latin-1")
    changed = _stanzas(text, ours, why) if name.endswith(".sources") else _lines(text, ours, why)
    return changed.encode("latin-1")


def _address(uri: str) -> str:
    # http and https are two ways to one repository.
    parts = urlsplit(uri)
    return f"{parts.netloc.rpartition('@')[2].lower()}/{parts.path.strip('/')}"


def _lines(text: str, ours: AptEntry, why: str) -> str:
    lines = text.split("\n")
    for at, line in enumerate(lines):
        found = _ENTRY.fullmatch(_without_comment(line.rstrip("\r")))
        if found is None:
            continue
        # `enabled=no` is no option of this format: apt 2.6 reads such a line as any other.
        options = {name.lower(): value for name, _, value in (word.partition("=") for word in (found[2] or "").split())}
        entry = AptEntry(
            found[3].strip('"'),
            found[4].strip('"'),
            tuple(found[5].split()),
            options.get("signed-by", ""),
            (found[1],),
            frozenset(options),
        )
        if entry.conflicts_with(ours):
            end = "\r" if line.endswith("\r") else ""
            lines[at] = f"# {line.removesuffix(end)} # {why}{end}"
    return "\n".join(lines)


def _without_comment(line: str) -> str:
    """The line up to the first # that is not in brackets."""
    depth = 0
    for at, letter in enumerate(line):
        depth += {"[": 1, "]": -1}.get(letter, 0)
        if letter == "#" and depth <= 0:
            return line[:at]
    return line


@dataclass
class _Stanza:
    """The lines of a stanza. Names of fields are given in small letters."""

    lines: list[str]

    def words(self, name: str) -> tuple[str, ...]:
        return tuple(" ".join(self._value(name)).split())

    def _value(self, name: str) -> list[str]:
        first, last = self.span(name)
        lines = [line for line in self.lines[first:last] if not line.startswith("#")]
        return [lines[0].partition(":")[2], *lines[1:]] if lines else []

    def span(self, name: str) -> tuple[int, int]:
        """The lines of a field; (0, 0) without it."""
        for first, line in enumerate(self.lines):
            found = _FIELD.match(line)
            if found and found[1].lower() == name:
                last = first + 1
                while last < len(self.lines) and self.lines[last][:1] in (" ", "\t", "#"):
                    last += 1
                while self.lines[last - 1].startswith("#"):
                    last -= 1  # a comment after the field belongs to the next one
                return first, last
        return 0, 0

    def with_words(self, name: str, words: Sequence[str]) -> _Stanza:
        """A copy with another value of an existing field."""
        first, last = self.span(name)
        label = self.lines[first].partition(":")[0]
        end = "\r" if self.lines[first].endswith("\r") else ""
        return _Stanza([*self.lines[:first], f"{label}: {' '.join(words)}{end}", *self.lines[last:]])

    def names(self) -> frozenset[str]:
        """The names of its fields, in small letters."""
        return frozenset(found[1].lower() for found in map(_FIELD.match, self.lines) if found)

    def fields(self) -> list[str]:
        """Its lines without comments."""
        return [line for line in self.lines if not line.startswith("#")]


def _stanzas(text: str, ours: AptEntry, why: str) -> str:
    result: list[str] = []
    stanza: list[str] = []
    for line in [*text.split("\n"), None]:
        if line is None or not line.strip():
            result += _disabled(_Stanza(stanza), ours, why)
            result += [] if line is None else [line]
            stanza = []
        else:
            stanza.append(line)
    return "\n".join(result)


def _disabled(stanza: _Stanza, ours: AptEntry, why: str) -> list[str]:
    """The lines of a stanza, and of a second one where it names several repositories and only one is in conflict."""
    enabled = stanza.words("enabled")
    if enabled and enabled[0].lower() in _NO:
        return stanza.lines
    uris, suites = stanza.words("uris"), stanza.words("suites")
    components, types, signed_by = (stanza.words(name) for name in ("components", "types", "signed-by"))
    key = " ".join(signed_by)

    def conflict(uri: str, suite: str) -> bool:
        return AptEntry(uri, suite, components, key, types, stanza.names()).conflicts_with(ours)

    rival_uris = [uri for uri in uris if any(conflict(uri, suite) for suite in suites)]
    if not rival_uris:
        return stanza.lines
    other_uris = [uri for uri in uris if uri not in rival_uris]
    other_suites = [suite for suite in suites if not any(conflict(uri, suite) for uri in rival_uris)]
    if other_uris and other_suites:
        second = _Stanza(stanza.fields()).with_words("uris", rival_uris).with_words("suites", other_suites)
        return [*stanza.with_words("uris", other_uris).lines, "", *second.lines]
    if other_uris:
        return stanza.with_words("uris", other_uris).lines
    if other_suites:
        return stanza.with_words("suites", other_suites).lines
    if enabled:
        stanza = stanza.with_words("enabled", ["no"])
        first = stanza.span("enabled")[0]
    else:
        first = next(at for at, line in enumerate(stanza.lines) if not line.startswith("#"))
    end = "\r" if stanza.lines[first].endswith("\r") else ""
    added = [f"# {why}{end}"] if enabled else [f"# {why}{end}", f"Enabled: no{end}"]
    return [*stanza.lines[:first], *added, *stanza.lines[first:]]
