"""What is asked of config.toml, and what comes back: values only.

Which entry is which runner: by token and server, never by name.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from provision.errors import Refused

Key = str | int
Path = tuple[Key, ...]  # keys from the root; an int picks an element of an array
Table = dict[str, Any]

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def fingerprint(token: str) -> str:
    """A name for a token that does not tell it: 16 hex digits, for the host's state file."""
    return hashlib.sha256(b"gitlab-runner token\0" + token.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class WantedRunner:
    """One `[[runners]]` entry as it should be.

    token     plain text; None when only GitLab was told it (then `previous` or `id` must find the entry)
    settings  config.toml's own keys and nested tables, without name, url, id and token
    id        the runner's number in GitLab, where it is known; it outlives a rotation of the token
    previous  fingerprints of tokens we wrote for this runner before: such an entry is ours to rotate
    """

    name: str
    url: str
    token: str | None = field(repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)  # the cache's keys are secrets too
    id: int | None = None
    previous: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunnerId:
    """An entry we once wrote, known by its server and by its token's fingerprint or its number in GitLab."""

    url: str
    fingerprint: str = ""
    id: int | None = None


@dataclass(frozen=True)
class Entry:
    """An entry that stands in a file. The token is in the clear: the caller wraps it."""

    index: int
    name: str
    url: str
    token: str = field(repr=False)
    id: int | None = None


@dataclass(frozen=True)
class Action:
    """One thing done, in words without values: `docker-builder: set docker.image`. runner is "" for the top."""

    kind: Literal["create", "update", "delete"]
    runner: str
    summary: str


@dataclass(frozen=True)
class Reconciled:
    """The file as it should be. `text` is the very text given when nothing changed."""

    text: str = field(repr=False)
    changed: bool
    actions: tuple[Action, ...] = ()


def leaves(settings: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """The dotted keys that `settings` sets, to be remembered as owned: `docker.image`, `docker.sysctls."a.b"`."""
    for key, value in settings.items():
        path = f"{above}.{_quoted(key)}" if above else _quoted(key)
        if isinstance(value, Mapping) and value:
            yield from leaves(value, path)
        else:
            yield path


def dotted(path: Path) -> str:
    """A path in TOML's own notation, array positions left out."""
    return ".".join(_quoted(key) for key in path if isinstance(key, str))


def undotted(key: str) -> tuple[str, ...]:
    """The path of a dotted key. Raises tomllib.TOMLDecodeError for what is none."""
    return single_path(tomllib.loads(f"{key} = 0"))[0]


def single_path(data: Table) -> tuple[tuple[str, ...], Any]:
    """The one path through tables of one key each, and what is at its end."""
    path: tuple[str, ...] = ()
    node: Any = data
    while isinstance(node, dict) and node:
        ((key, node),) = node.items()
        path += (key,)
    return path, node


def _quoted(key: str) -> str:
    return key if _BARE.fullmatch(key) else json.dumps(key, ensure_ascii=False).replace("\x7f", "\\u007f")


def entries_in(data: Table) -> list[Entry]:
    """The `[[runners]]` of a parsed file. Raises Refused when `runners` is something else."""
    found = data.get("runners", [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise Refused("config.toml: `runners` is not an array of tables", hint="write each runner under [[runners]]")
    return [
        Entry(number, _text(one, "name"), _text(one, "url"), _text(one, "token"), _number(one, "id"))
        for number, one in enumerate(found)
    ]


@dataclass
class Matches:
    """For each wanted runner the entry that is it (None: not there), and the entries that must go."""

    of: list[int | None]
    surplus: dict[int, str] = field(default_factory=dict)  # index -> why it goes


def match(found: Sequence[Entry], wanted: Sequence[WantedRunner], dropped: Sequence[RunnerId]) -> Matches:
    """Pairs wanted runners with entries. Raises Refused when two wanted runners are the same one."""
    _no_twins(wanted)
    result = Matches(of=[None] * len(wanted))
    free = {entry.index: entry for entry in found}
    for same in (_same_token, _once_ours, _same_number):  # the surest sign first, for all runners
        for position, want in enumerate(wanted):
            ours = [entry for entry in free.values() if same(entry, want)]
            ours.sort(key=lambda entry, want=want: (entry.name != want.name, entry.index))  # type: ignore[misc]
            for entry in ours:
                del free[entry.index]
                if result.of[position] is None:
                    result.of[position] = entry.index
                else:
                    result.surplus[entry.index] = "registered twice"
    for gone in dropped:
        for entry in [entry for entry in free.values() if _is(entry, gone)]:
            del free[entry.index]
            result.surplus[entry.index] = "no longer wanted"
    return result


def same_url(one: str, other: str) -> bool:
    """Two spellings of one server: case of the host, the scheme's own port and a slash at the end say nothing."""
    return one == other or _plain_url(one) == _plain_url(other)


def _plain_url(url: str) -> tuple[str, str, str]:
    scheme, mark, rest = url.lower().partition("://")
    host, _, _ = rest.partition("/")
    own_port = {"https": ":443", "http": ":80"}.get(scheme, "")
    path = url[len(scheme) + len(mark) + len(host) :]  # the path's case does count
    return scheme, host.removesuffix(own_port) if own_port else host, path.rstrip("/")


def _same_token(entry: Entry, want: WantedRunner) -> bool:
    return want.token is not None and entry.token == want.token and same_url(entry.url, want.url)


def _once_ours(entry: Entry, want: WantedRunner) -> bool:
    return same_url(entry.url, want.url) and bool(want.previous) and fingerprint(entry.token) in want.previous


def _same_number(entry: Entry, want: WantedRunner) -> bool:
    return want.id is not None and entry.id == want.id and same_url(entry.url, want.url)


_Sign = Callable[[Entry, WantedRunner], bool]


def _is(entry: Entry, gone: RunnerId) -> bool:
    if not same_url(entry.url, gone.url):
        return False
    by_number = gone.id is not None and entry.id == gone.id
    return by_number or (bool(gone.fingerprint) and fingerprint(entry.token) == gone.fingerprint)


def _no_twins(wanted: Sequence[WantedRunner]) -> None:
    seen: dict[tuple[object, ...], str] = {}
    for want in wanted:
        if want.token is None:
            continue
        identity = (want.token, *_plain_url(want.url))
        if identity in seen:
            raise Refused(
                f"runners {seen[identity]} and {want.name} share one token on {want.url}",
                hint="a token is one runner: give each [[runners]] of the inventory its own",
            )
        seen[identity] = want.name


def _text(table: Table, key: str) -> str:
    value: Any = table.get(key, "")
    return value if isinstance(value, str) else ""


def _number(table: Table, key: str) -> int | None:
    value: Any = table.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
