"""config.toml as the program reads and rewrites it: whole, in place, without what it does not know."""

from __future__ import annotations

import datetime
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import toml_text
from .schema import ALWAYS, ALWAYS_CACHE, ALWAYS_DOCKER, ALWAYS_RUNNER, KNOWN, OPTIONAL, ORDER, SESSION, TABLES, TOP

Table = dict[str, Any]
NEVER = datetime.datetime(1, 1, 1, tzinfo=datetime.UTC)
_TYPES: dict[str, type | tuple[type, ...]] = {
    "number": int,
    "text": str,
    "flag": bool,
    "table": dict,
    "tables": list,
    "time": datetime.datetime,
    "texts": (list, str),
}


class ConfigError(Exception):
    """The file cannot be used; the text is the program's own complaint."""


def default_path() -> str:
    """Where the file is when no flag says so."""
    return "/etc/gitlab-runner/config.toml" if os.geteuid() == 0 else str(Path.home() / ".gitlab-runner/config.toml")


def read(path: str) -> Table:
    """The file's data with the defaults filled in; a missing file is an empty one. Raises ConfigError."""
    try:
        text = Path(path).read_text()
    except FileNotFoundError:
        text = ""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        raise ConfigError(f"decoding configuration file: toml: line {found[1] if found else 1}: {error}") from None
    for name, value in _typed(data):
        raise ConfigError(f"decoding configuration file: toml: (last key {name!r}): incompatible types: {value}")
    return ALWAYS | {"session_server": {"session_timeout": 1800}} | data


def unknown(data: Table) -> list[str]:
    """The keys that would be lost, dotted."""
    return [name for name, kind in _kinds(data) if kind == ""]


def write(path: str, data: Table) -> None:
    """Rewrites the file, in place and not atomically: comments and unknown keys are gone."""
    where = Path(path)
    if not where.parent.exists():
        where.parent.mkdir(mode=0o700, parents=True)
    top = {key: data[key] for key in TOP if key in data and key not in ("session_server", "runners")}
    session = {key: value for key, value in data.get("session_server", {}).items() if key in SESSION}
    runners = [_runner(entry) for entry in data.get("runners", [])]
    text = toml_text.dumps(top | {"session_server": session} | ({"runners": runners} if runners else {}))
    descriptor = os.open(where, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    where.chmod(0o600)


def _runner(given: Table) -> Table:
    entry: Table = ALWAYS_RUNNER | {"token_obtained_at": NEVER, "token_expires_at": NEVER} | given
    entry["cache"] = _filled(ALWAYS_CACHE, entry.get("cache", {}))
    if "docker" in entry:
        entry["docker"] = _filled(ALWAYS_DOCKER, entry["docker"])
    return _only_known(entry, "")


def _filled(always: Table, have: Table) -> Table:
    """What is always written, and what is there."""
    return have | {
        key: _filled(zero, have.get(key, {})) if isinstance(zero, dict) else have.get(key, zero)
        for key, zero in always.items()
    }


def _only_known(table: Table, above: str) -> Table:
    kept = {}
    for key, value in table.items():
        name = f"{above}{key}"
        if name in KNOWN:
            if value not in (0, "", [], {}) or _always(name):
                kept[key] = value
        elif isinstance(value, dict) and any(known.startswith(f"{name}.") for known in KNOWN):
            kept[key] = _only_known(value, f"{name}.")
    return {key: kept[key] for key in sorted(kept, key=lambda key: _place(f"{above}{key}"))}


def _place(name: str) -> tuple[int, int]:
    """Where the real program writes a key: by hand where its order is known, else by its flags' order."""
    if name in ORDER:
        return ORDER.index(name) - len(ORDER) * (name not in TABLES), 0
    return 0, next((n for n, known in enumerate(KNOWN) if known == name or known.startswith(f"{name}.")), len(KNOWN))


def _always(name: str) -> bool:
    table, _, key = name.rpartition(".")
    always: dict[str, Table] = {"": ALWAYS_RUNNER, "cache": ALWAYS_CACHE, "docker": ALWAYS_DOCKER}
    return name in OPTIONAL or key in always.get(table, {}) or name == "cache.s3.AssumeRoleMaxConcurrency"


def _kinds(data: Table) -> Iterator[tuple[str, str]]:
    """Every key with the kind it should have; "" when it is unknown."""
    for key in data:
        yield key, TOP.get(key, "")
    for key in _table(data.get("session_server")):
        yield f"session_server.{key}", SESSION.get(key, "")
    for entry in data.get("runners", []) if isinstance(data.get("runners"), list) else []:
        yield from _runner_kinds(_table(entry), "")


def _runner_kinds(table: Table, above: str) -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        name = f"{above}{key}"
        if name in KNOWN:
            yield f"runners.{name}", KNOWN[name]
        elif isinstance(value, dict) and any(known.startswith(f"{name}.") for known in KNOWN):
            yield from _runner_kinds(value, f"{name}.")
        else:
            yield f"runners.{name}", ""


def _typed(data: Table) -> Iterator[tuple[str, str]]:
    """Keys whose value has another type than the program's."""
    for key, kind in TOP.items():
        if key in data and not _fits(data[key], kind):
            yield key, f"destination is a {kind}"
    for entry in data.get("runners", []):
        yield from _typed_below(_table(entry), "")


def _typed_below(table: Table, above: str) -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        name = f"{above}{key}"
        if name in KNOWN:
            if not _fits(value, KNOWN[name]):
                yield f"runners.{name}", f"destination is a {KNOWN[name]}"
        elif isinstance(value, dict):
            yield from _typed_below(value, f"{name}.")


def _fits(value: Any, kind: str) -> bool:
    return isinstance(value, _TYPES[kind]) and (kind != "number" or not isinstance(value, bool))


def _table(value: Any) -> Table:
    return value if isinstance(value, dict) else {}
