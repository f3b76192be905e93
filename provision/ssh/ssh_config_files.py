"""The ssh_config files as text: their lines with includes, and a small evaluation for machines without OpenSSH.

`ssh -G` decides what holds for a host wherever OpenSSH is installed (ssh_config.py). This module supplies what that
needs to know about the files: whether they contain a line that matters, copies for another home folder, and how a list
of paths was quoted. Format: ssh_config(5); words, comments and conditional includes as in OpenSSH's readconf.c.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from provision.errors import UsageError

_MAX_DEPTH = 16  # of nested includes, as in OpenSSH
_MAX_FILES = 1000
_KEYWORD = re.compile(r'^[ \t\r\f]*(?:"([^"]*)"|([^ \t\r\f="]+))[ \t\r\f]*(?:=[ \t\r\f]*)?(.*?)[ \t\r\f]*$', re.DOTALL)
_PATHS = frozenset(
    (
        "identityfile",
        "certificatefile",
        "identityagent",
        "userknownhostsfile",
        "globalknownhostsfile",
        "revokedhostkeys",
    )
)
_CUMULATIVE = frozenset(("identityfile", "certificatefile"))
# What ssh_config.py reads of the evaluation. The first value of each counts, except for cumulative ones.
_RELEVANT = _PATHS | frozenset(
    (
        "hostname",
        "user",
        "port",
        "proxyjump",
        "proxycommand",
        "identitiesonly",
        "hostkeyalias",
        "addressfamily",
        "proxyusefdpass",
    )
)
# Lines with these keywords do not change where and how we connect.
_HARMLESS = frozenset(
    [
        "host",
        "include",
        "sendenv",
        "setenv",
        "hashknownhosts",
        "gssapiauthentication",
        "gssapidelegatecredentials",
        "forwardagent",
        "forwardx11",
        "forwardx11trusted",
        "serveraliveinterval",
        "serveralivecountmax",
        "tcpkeepalive",
        "compression",
        "loglevel",
        "controlmaster",
        "controlpath",
        "controlpersist",
        "addkeystoagent",
        "visualhostkey",
        "escapechar",
        "stricthostkeychecking",
        "updatehostkeys",
        "passwordauthentication",
        "kbdinteractiveauthentication",
    ]
)


class Line(NamedTuple):
    """One line. `included` are the files of an Include, in order."""

    text: str
    location: str
    keyword: str = ""
    rest: str = ""
    included: tuple[tuple[Line, ...], ...] = ()

    @property
    def words(self) -> list[str]:
        """The arguments, without quotes and comment. Raises UsageError for a quote that is not closed."""
        return words(self.rest, self.location)


def read(file: Path, folder: Path, *, own: bool = False, above: tuple[Path, ...] = ()) -> tuple[Line, ...]:
    """The lines of a file and of what it includes; relative includes are in `folder`. No lines for a missing file.

    own   refuse a file that belongs to another user or that others can write to: it names programs to run
    """
    if file in above or len(above) > _MAX_DEPTH:
        raise UsageError(f"{above[0]} cannot be parsed: {file} includes itself", hint="remove that Include")
    try:
        status = file.stat()
        if own and (status.st_uid not in (0, os.getuid()) or status.st_mode & 0o022):
            raise UsageError(
                f"{file} cannot be used: bad owner or permissions",
                hint="as for OpenSSH, it must be yours or root's, and others must not be able to write to it: chmod go-w",
            )
        texts = file.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError):
        return ()
    lines = []
    for number, text in enumerate(texts, 1):
        location = f"{file} line {number}"
        found = _KEYWORD.match(text)
        if text.lstrip().startswith("#") or found is None:
            lines.append(Line(text, location))
            continue
        keyword, rest = (found[1] or found[2] or "").lower(), found[3]
        included: list[tuple[Line, ...]] = []
        if keyword == "include":
            for pattern in words(rest, location):
                for name in sorted(glob.glob(_absolute(pattern, folder))):  # noqa: PTH207  absolute
                    included.append(read(Path(name), folder, own=own, above=(*above, file)))
                    if len(included) > _MAX_FILES:
                        raise UsageError(f"{location}: more than {_MAX_FILES} files are included", hint="narrow it")
        lines.append(Line(text, location, keyword, rest, tuple(included)))
    return tuple(lines)


def _absolute(pattern: str, folder: Path) -> str:
    path = Path(pattern).expanduser()
    return str(path if path.is_absolute() else folder / path)


def words(text: str, location: str) -> list[str]:
    r"""Split arguments as OpenSSH does: blanks separate, both quotes group, `\` escapes quotes, blanks and itself.

    A `#` at the beginning of a word starts a comment. Raises UsageError for a quote that is not closed.
    """
    found: list[str] = []
    position = 0
    while position < len(text):
        if text[position] in " \t\r\f":
            position += 1
            continue
        if text[position] == "#":
            break
        word, quote = "", ""
        while position < len(text) and (quote or text[position] not in " \t\r\f"):
            letter, following = text[position], text[position + 1 : position + 2]
            if letter == "\\" and (following in ('"', "'", "\\") or (following == " " and not quote)) and following:
                word, position = word + following, position + 1
            elif letter == quote:
                quote = ""
            elif not quote and letter in "\"'":
                quote = letter
            else:
                word += letter
            position += 1
        if quote:
            raise UsageError(f"{location} cannot be parsed: a quote is not closed", hint="close the quote")
        found.append(word)
    return found


def every_line(lines: Sequence[Line]) -> Iterator[Line]:
    """All lines with a keyword, those of included files too, whatever Host or Match block they are in."""
    for line in lines:
        if line.keyword:
            yield line
        for file in line.included:
            yield from every_line(file)


def matters(lines: Sequence[Line]) -> bool:
    """Whether any line can change where and how a host is connected to."""
    return any(line.keyword not in _HARMLESS or not line.words for line in every_line(lines))


def copy_for_home(lines: Sequence[Line], folder: Path, home: str, originals: dict[str, str]) -> Path:
    """Copy files into `folder`, with `~` and includes resolved. Returns the copy, and adds its path to `originals`.

    OpenSSH takes the home folder from the user database, whatever $HOME is; the copies make it use `home`. Line numbers
    stay.
    """
    texts = []
    for line in lines:
        if line.keyword == "include":
            copies = [copy_for_home(file, folder, home, originals) for file in line.included]
            texts.append("Include " + " ".join(f'"{copy}"' for copy in copies) if copies else "")
        elif line.keyword in _PATHS:
            texts.append(re.sub(r'(?<![^\s"=])~(?=/)|%d', home.replace("\\", r"\\").replace("%", "%%"), line.text))
        else:
            texts.append(line.text)
    copy = folder / f"config{len(originals)}"
    originals[str(copy)] = lines[0].location.rpartition(" line ")[0] if lines else ""
    copy.write_text("\n".join(texts) + "\n", encoding="utf-8", errors="surrogateescape")
    return copy


@dataclass
class Evaluation:
    """What the files hold for one host, evaluated here because OpenSSH is not installed.

    Supported are Host blocks, conditional includes, and Match with all, host, originalhost, user and localuser. A block
    that depends on anything else is refused if it contains a line that matters. Raises UsageError.
    """

    host: str
    user: str | None
    port: int | None
    local_user: str
    values: dict[str, list[list[str]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for keyword, value in (("user", self.user), ("port", self.port)):
            if value is not None:
                self.values[keyword] = [[str(value)]]

    def add(self, lines: Sequence[Line], active: bool | None = True) -> None:
        """Read a file. `active`: whether the block it is included in applies; None when that cannot be decided."""
        included = active
        for line in lines:
            if line.keyword in ("host", "match"):
                own = self._host(line) if line.keyword == "host" else self._match(line)
                active = False if included is False or own is False else None if None in (included, own) else True
            elif line.keyword == "include":
                for file in line.included:
                    self.add(file, active)
            elif active is not False and line.keyword:
                self._set(line, active)

    def _set(self, line: Line, active: bool | None) -> None:
        canonical = line.keyword == "canonicalizehostname" and line.words[:1] not in (["no"], ["false"])
        counts = line.keyword in _RELEVANT and (line.keyword in _CUMULATIVE or line.keyword not in self.values)
        # The first of both counts; but after `ProxyJump none` a ProxyCommand counts, too (seen with OpenSSH 9.2).
        jump = self.values.get("proxyjump", [["none"]])[0]
        if (line.keyword == "proxycommand" and [one.lower() for one in jump] != ["none"]) or (
            line.keyword == "proxyjump" and "proxycommand" in self.values
        ):
            counts = False
        if canonical or (counts and active is None):
            raise UsageError(
                f"{line.location}: whether this line applies to {self.host} cannot be decided without OpenSSH's client",
                hint="install openssh-client on this machine, or remove the Match or CanonicalizeHostname line",
            )
        if not counts:
            return
        value = [line.rest] if line.keyword == "proxycommand" else line.words
        if not value or not value[0]:
            raise UsageError(f"{line.location} cannot be parsed: no value for {line.keyword}", hint="add the value")
        self.values.setdefault(line.keyword, []).append(value)

    def _host(self, line: Line) -> bool:
        patterns = line.words
        if not patterns:
            raise UsageError(f"{line.location} cannot be parsed: no host after Host", hint="add a pattern")
        return matches_patterns(self.host, patterns)

    def _match(self, line: Line) -> bool | None:
        rest = line.words
        if not rest:
            raise UsageError(f"{line.location} cannot be parsed: no condition after Match", hint="add one")
        result: bool | None = True
        while rest:
            name, equals, value = rest.pop(0).partition("=")
            negated, name = name.startswith("!"), name.removeprefix("!").lower()
            if name in ("all", "canonical", "final"):
                one = True if name == "all" else None
            elif not (equals or rest):
                raise UsageError(f"{line.location} cannot be parsed: no value for {name}", hint="add the value")
            else:
                one = self._criterion(name, value if equals else rest.pop(0))
            if one is not None and one is negated:
                return False
            result = None if one is None else result
        return result

    def _criterion(self, name: str, patterns: str) -> bool | None:
        subjects = {
            "host": self.hostname.lower(),  # OpenSSH ignores case here, but not in Host lines (match.c, match_hostname)
            "originalhost": self.host.lower(),
            "user": self.values.get("user", [[self.local_user]])[0][0],
            "localuser": self.local_user,
        }
        if name not in subjects:
            return None
        return matches_patterns(subjects[name], (patterns.lower() if name.endswith("host") else patterns).split(","))

    @property
    def hostname(self) -> str:
        """The name or address to connect to, as far as the files were read."""
        found = self.values.get("hostname")
        return re.sub(r"%(.)", lambda one: self.host if one[1] == "h" else one[1], found[0][0]) if found else self.host


def matches_patterns(name: str, patterns: Iterable[str]) -> bool:
    """Whether a list of patterns matches; a `!` pattern that matches excludes the name. Source: ssh_config(5), PATTERNS."""
    matched = False
    for pattern in patterns:
        if _matches(name, pattern.removeprefix("!")):
            if pattern.startswith("!"):
                return False
            matched = True
    return matched


def _matches(name: str, pattern: str) -> bool:
    if "*" not in pattern and "?" not in pattern:
        return name == pattern
    # Only * and ? are wildcards; in known_hosts files [ encloses a name that has a port.
    return fnmatch.fnmatchcase(name, pattern.replace("[", "[[]"))
