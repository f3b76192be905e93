"""What a .dockerignore excludes. Pure.

Lines are patterns as Go's filepath.Match has them, and `**` for any number of folders; `!` takes back in; the last line
that fits decides; what fits a folder fits all below it. `#` begins a comment in the first column only.
Sources: docs.docker.com "Build context", github.com/moby/patternmatcher (its regular expressions and its order).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from provision.values import dataclass

# Which patterns fit a path or a folder above it, one for each line.
Fits = tuple[bool, ...]


@dataclass(frozen=True)
class Ignore:
    """The patterns in order; `exceptions` are those that began with `!`."""

    patterns: tuple[re.Pattern[str], ...]
    exceptions: Fits

    @classmethod
    def parse(cls, text: str) -> Ignore:
        """A file's text. Raises ValueError that names the line of a pattern that is none."""
        patterns, exceptions = [], []
        for number, line in _lines(text):
            exception = line.startswith("!")
            pattern = _clean(line[1:] if exception else line)
            if not pattern:
                raise ValueError(f"line {number}: {line!r} excludes nothing: a pattern is missing")
            try:
                patterns.append(re.compile(_expression(pattern)))
            except re.error:
                raise ValueError(f"line {number}: {line!r} is no pattern: look at its brackets") from None
            exceptions.append(exception)
        return cls(tuple(patterns), tuple(exceptions))

    @property
    def none(self) -> Fits:
        """What fits the top folder itself."""
        return (False,) * len(self.patterns)

    @property
    def takes_back(self) -> bool:
        """Whether something below an excluded folder may be wanted."""
        return any(self.exceptions)

    def fits(self, path: str, above: Fits) -> Fits:
        """Which patterns fit a path, given those that fit the folder it is in."""
        return tuple(
            inherited or bool(pattern.fullmatch(path)) for pattern, inherited in zip(self.patterns, above, strict=True)
        )

    def excluded(self, fits: Fits) -> bool:
        """Whether the path that these patterns fit is excluded: the last of them decides."""
        for fit, exception in zip(reversed(fits), reversed(self.exceptions), strict=True):
            if fit:
                return not exception
        return False


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if not line.startswith("#") and (stripped := line.strip()):
            yield number, stripped


def _clean(pattern: str) -> str:
    """As Go's filepath.Clean, and without the slash that stands for the context's own folder."""
    stripped = pattern.strip()
    if not stripped:
        return ""
    cleaned = posixpath.normpath(stripped)
    return cleaned.lstrip("/") if len(cleaned.lstrip("/")) else cleaned


def _expression(pattern: str) -> str:
    """The pattern as a regular expression for a whole path."""
    if pattern.startswith("**") and not pattern.startswith("**/") and not re.search(r"[*?\[\]\\]", pattern[2:]):
        return ".*" + re.escape(pattern[2:])  # `**.pyc`: whatever ends so, in any folder
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
            found += re.escape(pattern[place : place + 1] or "\\")
            place += 1
        elif letter == "[":
            members, place = _members(pattern, place)
            found += members
        else:
            found += re.escape(letter)
    return f"(?s:{found})"


def _members(pattern: str, place: int) -> tuple[str, int]:
    """A class of letters from behind its bracket on, and where it ends."""
    end = pattern.find("]", place + pattern.startswith("^", place) + 1)
    if end < 0:
        raise re.error("no closing bracket")
    negated = pattern.startswith("^", place)
    inside = re.sub(r"([\[\]&~|^])", r"\\\1", pattern[place + negated : end])
    return f"[{'^/' if negated else ''}{inside}]", end + 1
