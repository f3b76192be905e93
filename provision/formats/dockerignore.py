"""Which files a .dockerignore leaves out of a build context. Pure.

Each line is a pattern as Go's filepath.Match has them, with `**` for any number of folders. `!` includes again what an
earlier line left out. The last line that matches decides. A pattern that matches a folder matches everything below it.
`#` begins a comment in the first column only.

A `!` line counts for a folder only when an earlier line left that folder out. So `**/.env` followed by `!app` leaves
app/.env out, as Docker does from 23.0 on; 20.10 included it.

Sources: docs.docker.com "Build context"; github.com/moby/patternmatcher, `MatchesUsingParentResults`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

Matches: TypeAlias = tuple[bool, ...]
"""Which patterns match a path or a folder above it, one for each line."""


@dataclass(frozen=True)
class Ignore:
    """The patterns in order; `exceptions` are those that began with `!`."""

    patterns: tuple[re.Pattern[str], ...] = ()
    exceptions: tuple[bool, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Ignore:
        """Read the text of a file. Raises ValueError that names the line of a pattern that is not valid."""
        patterns, exceptions = [], []
        for number, line in _lines(text):
            exception = line.startswith("!")
            pattern = _clean(line[1:] if exception else line)
            if not pattern:
                raise ValueError(f"line {number}: {line!r} has no pattern")
            try:
                patterns.append(re.compile(_expression(pattern)))
            except re.error:
                raise ValueError(
                    f"line {number}: {line!r} is not a valid pattern: check its brackets and backslashes"
                ) from None
            exceptions.append(exception)
        return cls(tuple(patterns), tuple(exceptions))

    @property
    def top(self) -> Matches:
        """The matches of the context's own folder: none."""
        return (False,) * len(self.patterns)

    @property
    def has_exceptions(self) -> bool:
        """Whether something below an excluded folder may be included."""
        return any(self.exceptions)

    def match(self, path: str, parent: Matches) -> tuple[Matches, bool]:
        """Return the matches of a path, given those of its folder, and whether the path is excluded."""
        excluded = False
        found = []
        for pattern, exception, inherited in zip(self.patterns, self.exceptions, parent, strict=True):
            # A line that would not change the result is not tried, so it does not match below this path either.
            matches = inherited or (exception == excluded and pattern.fullmatch(path) is not None)
            found.append(matches)
            if matches:
                excluded = not exception
        return tuple(found), excluded


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if not line.startswith("#") and (stripped := line.strip()):
            yield number, stripped


def _clean(pattern: str) -> str:
    """The pattern after Go's filepath.Clean, without a slash at the beginning."""
    stripped = pattern.strip()
    if not stripped:
        return ""
    cleaned = posixpath.normpath(stripped)
    return cleaned.lstrip("/") or cleaned


def _expression(pattern: str) -> str:
    """The pattern as a regular expression for a whole path."""
    if pattern.startswith("**") and not pattern.startswith("**/") and not re.search(r"[*?\[\]\\]", pattern[2:]):
        return ".*" + re.escape(pattern[2:])  # `**.pyc`: any name with this ending, in any folder
    found, place = "", 0
    while place < len(pattern):
        letter = pattern[place]
        place += 1
        if pattern.startswith("**", place - 1):
            place += 1
            place += pattern.startswith("/", place)
            found += ".*" if place >= len(pattern) else "(?:.*/)?"
        elif letter == "*":
            found += "[^/]*"
        elif letter == "?":
            found += "[^/]"
        elif letter == "\\":
            if pattern[place : place + 1].isalnum():
                raise re.error("a backslash before a letter")  # Docker treats it as a part of a regular expression
            found += re.escape(pattern[place : place + 1] or "\\")
            place += 1
        elif letter == "[":
            members, place = _members(pattern, place)
            found += members
        else:
            found += re.escape(letter)
    return f"(?s:{found})"


def _members(pattern: str, place: int) -> tuple[str, int]:
    """The class of letters that begins at `place`, after its bracket, and the offset of its end."""
    end = pattern.find("]", place + pattern.startswith("^", place) + 1)
    if end < 0:
        raise re.error("no closing bracket")
    negated = pattern.startswith("^", place)
    inside = re.sub(r"([\[\]&~|^])", r"\\\1", pattern[place + negated : end])
    return f"[{'^/' if negated else ''}{inside}]", end + 1
