"""What is asked of config.toml, and what comes back: values only."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Any, Literal

from provision.values import dataclass

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
