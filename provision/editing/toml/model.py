"""The input and the result of an edit of config.toml, and the matching of runners with entries."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from provision.errors import Refused

Key = str | int
Path = tuple[Key, ...]
"""Keys from the root; an int is a position in an array."""
Data = dict[str, Any]

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def fingerprint(token: str) -> str:
    """Return 16 hex digits that identify a token in the host's state file without revealing it."""
    return hashlib.sha256(b"gitlab-runner token\0" + token.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class WantedRunner:
    """One `[[runners]]` entry as it should be.

    token       plain text; None when it is not known (then `previous` or `id` must identify the entry)
    settings    config.toml's own keys and nested tables, without name, url, id and token
    id          the runner's number in GitLab, where it is known; it stays when the token is rotated
    previous    fingerprints of tokens that we wrote for this runner earlier: an entry with one of them gets the new token
    former_url  the other URL of its server when we wrote it; "" if it is the same: that entry gets the new URL
    """

    name: str
    url: str
    token: str | None = field(repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)  # the cache's keys are secrets too
    id: int | None = None
    previous: tuple[str, ...] = ()
    former_url: str = ""


class RunnerId(NamedTuple):
    """An entry that we wrote earlier, identified by its server and its token's fingerprint or its number in GitLab."""

    url: str
    fingerprint: str = ""
    id: int | None = None


@dataclass(frozen=True)
class Entry:
    """An entry of the file. The token is in clear: the caller wraps it."""

    index: int
    name: str
    url: str
    token: str = field(repr=False)
    id: int | None = None


class Action(NamedTuple):
    """One change, described without values: `docker-builder: set docker.image`. `runner` is "" for top-level keys."""

    kind: Literal["create", "update", "delete"]
    runner: str
    summary: str


@dataclass(frozen=True)
class Reconciled:
    """The edited file. `text` is the input itself when nothing changed."""

    text: str = field(repr=False)
    changed: bool
    actions: tuple[Action, ...] = ()


def dotted_keys(settings: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Yield the dotted keys that `settings` sets, for the record on the host: `docker.image`, `docker.sysctls."a.b"`."""
    for key, value in settings.items():
        path = f"{above}.{_quoted(key)}" if above else _quoted(key)
        if isinstance(value, Mapping) and value:
            yield from dotted_keys(value, path)
        else:
            yield path


def dotted(path: Path) -> str:
    """Return a path in TOML's own notation, without positions in arrays."""
    return ".".join(_quoted(key) for key in path if isinstance(key, str))


def undotted(key: str) -> tuple[str, ...]:
    """Return the path of a dotted key. Raises tomllib.TOMLDecodeError for what is not one."""
    path: tuple[str, ...] = ()
    node: Any = tomllib.loads(f"{key} = 0")
    while isinstance(node, dict):
        if len(node) != 1:
            raise tomllib.TOMLDecodeError(f"{key!r} is not one key")
        ((one, node),) = node.items()
        path += (one,)
    return path


def _quoted(key: str) -> str:
    return key if _BARE.fullmatch(key) else json.dumps(key, ensure_ascii=False).replace("\x7f", "\\u007f")


def entries_in(data: Data) -> list[Entry]:
    """Return the `[[runners]]` of a parsed file. Raises Refused when `runners` is something else."""
    found = data.get("runners", [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise Refused("config.toml: `runners` is not an array of tables", hint="write each runner under [[runners]]")
    return [
        Entry(number, _text(one, "name"), _text(one, "url"), _text(one, "token"), _number(one, "id"))
        for number, one in enumerate(found)
    ]


@dataclass
class Matches:
    """The entries of the wanted runners, and the entries to remove.

    of       for each wanted runner the position of its entry; None when it has none
    surplus  positions of entries to remove, each with the reason
    """

    of: list[int | None]
    surplus: dict[int, str] = field(default_factory=dict)


def match(found: Sequence[Entry], wanted: Sequence[WantedRunner], dropped: Sequence[RunnerId]) -> Matches:
    """Pair wanted runners with entries. Raises Refused when two wanted runners are identical."""
    _refuse_duplicates(wanted)
    result = Matches(of=[None] * len(wanted))
    free = {entry.index: entry for entry in found}
    for same in (_same_token, _previous_token, _same_number):  # the most certain criterion first, for all runners
        for position, want in enumerate(wanted):
            same_runner = [entry for entry in free.values() if same(entry, want)]
            same_runner.sort(key=lambda entry, want=want: (entry.name != want.name, entry.index))  # type: ignore[misc]
            for entry in same_runner:
                del free[entry.index]
                if result.of[position] is None:
                    result.of[position] = entry.index
                else:
                    result.surplus[entry.index] = "registered twice"
    for position, want in enumerate(wanted):
        moved = next((entry for entry in free.values() if _moved(entry, want)), None)
        if moved is not None and result.of[position] is None:
            del free[moved.index]
            result.of[position] = moved.index
    for gone in dropped:
        for entry in [entry for entry in free.values() if _is_runner(entry, gone)]:
            del free[entry.index]
            result.surplus[entry.index] = "no longer wanted"
    return result


def same_url(one: str, other: str) -> bool:
    """Return whether two URLs name one server for gitlab-runner.

    Upper case in the host, the default port, a final slash and a final /ci make no difference. Source: gitlab-runner's
    network/client.go, fixCIURL.
    """
    return one == other or _plain_url(one) == _plain_url(other)


def has_tls_now(one: str, other: str) -> bool:
    """Return whether `other` is the https URL of the server that `one` names by http."""
    (scheme, *server), (other_scheme, *other_server) = _plain_url(one), _plain_url(other)
    return (scheme, other_scheme) == ("http", "https") and server == other_server


def server_url(url: str) -> str:
    """Return the URL to which gitlab-runner appends /api/v4: without a final slash and a final /ci."""
    scheme, mark, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host}{f'{slash}{path}'.rstrip('/').removesuffix('/ci')}"


def _plain_url(url: str) -> tuple[str, str, str]:
    scheme, mark, rest = url.lower().partition("://")
    host, _, _ = rest.partition("/")
    own_port = {"https": ":443", "http": ":80"}.get(scheme, "")
    path = server_url(url)[len(scheme) + len(mark) + len(host) :]  # the path's case does count
    return scheme, host.removesuffix(own_port) if own_port else host, path


def _same_token(entry: Entry, want: WantedRunner) -> bool:
    return want.token is not None and entry.token == want.token and same_url(entry.url, want.url)


def _previous_token(entry: Entry, want: WantedRunner) -> bool:
    return same_url(entry.url, want.url) and bool(want.previous) and fingerprint(entry.token) in want.previous


def _same_number(entry: Entry, want: WantedRunner) -> bool:
    return want.id is not None and entry.id == want.id and same_url(entry.url, want.url)


def _moved(entry: Entry, want: WantedRunner) -> bool:
    """Whether an entry is the runner's at an earlier URL: the one that we wrote, or the same token before TLS."""
    same_token = want.token is not None and entry.token == want.token
    if same_token and has_tls_now(entry.url, want.url):
        return True
    ours = bool(want.former_url) and same_url(entry.url, want.former_url)
    return ours and (same_token or fingerprint(entry.token) in want.previous)


def _is_runner(entry: Entry, gone: RunnerId) -> bool:
    if not same_url(entry.url, gone.url):
        return False
    by_number = gone.id is not None and entry.id == gone.id
    return by_number or (bool(gone.fingerprint) and fingerprint(entry.token) == gone.fingerprint)


def _refuse_duplicates(wanted: Sequence[WantedRunner]) -> None:
    seen: dict[tuple[object, ...], str] = {}
    for want in wanted:
        if want.token is None:
            continue
        identity = (want.token, *_plain_url(want.url))
        if identity in seen:
            raise Refused(
                f"runners {seen[identity]} and {want.name} share one token on {want.url}",
                hint="a token belongs to one runner: give each [[runners]] of the inventory its own",
            )
        seen[identity] = want.name


def _text(table: Data, key: str) -> str:
    value: Any = table.get(key, "")
    return value if isinstance(value, str) else ""


def _number(table: Data, key: str) -> int | None:
    value: Any = table.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
