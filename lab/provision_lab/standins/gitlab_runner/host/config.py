"""config.toml as gitlab-runner reads and rewrites it: whole and in place, without comments and unknown keys.

The layout is that of its encoder: two spaces a level, a blank line above [[…]]. `.runner_system_id` beside the file is
`s_` and a hash of the machine id, so that cloned machines have the same one, or `r_` and a random text.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import json
import os
import re
import secrets
import string
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .flags import ALWAYS, ALWAYS_CACHE, ALWAYS_DOCKER, ALWAYS_RUNNER, KNOWN, OPTIONAL, ORDER, SESSION, TABLES, TOP

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
    """The file is invalid; the text is the program's own message."""


def default_path() -> str:
    """The path of the file when no flag gives another."""
    return "/etc/gitlab-runner/config.toml" if os.geteuid() == 0 else str(Path.home() / ".gitlab-runner/config.toml")


def read(path: str) -> Table:
    """The file's data with the defaults filled in; a missing file reads as empty. Raises ConfigError."""
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
    """The unknown keys, dotted. Rewriting the file loses them."""
    return [name for name, kind in _kinds(data) if kind == ""]


def write(path: str, data: Table) -> None:
    """Rewrites the file in place, not atomically. Comments and unknown keys are lost."""
    where = Path(path)
    if not where.parent.exists():
        where.parent.mkdir(mode=0o700, parents=True)
    top = {key: data[key] for key in TOP if key in data and key not in ("session_server", "runners")}
    session = {key: value for key, value in data.get("session_server", {}).items() if key in SESSION}
    runners = [_runner(entry) for entry in data.get("runners", [])]
    text = dumps(top | {"session_server": session} | ({"runners": runners} if runners else {}))
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
    """The table with the keys that are always written."""
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
    """The place of a key in a written file: from ORDER where it is known, else in the order of the flags."""
    if name in ORDER:
        return ORDER.index(name) - len(ORDER) * (name not in TABLES), 0
    return 0, next((n for n, known in enumerate(KNOWN) if known == name or known.startswith(f"{name}.")), len(KNOWN))


def _always(name: str) -> bool:
    table, _, key = name.rpartition(".")
    always: dict[str, Table] = {"": ALWAYS_RUNNER, "cache": ALWAYS_CACHE, "docker": ALWAYS_DOCKER}
    return name in OPTIONAL or key in always.get(table, {}) or name == "cache.s3.AssumeRoleMaxConcurrency"


def _kinds(data: Table) -> Iterator[tuple[str, str]]:
    """Every key with its kind; "" when it is unknown."""
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


_BARE = re.compile(r"[A-Za-z0-9_-]+")


def dumps(table: dict[str, Any]) -> str:
    """A table as TOML."""
    return _body(table, (), "")


def _body(table: dict[str, Any], path: tuple[str, ...], indent: str) -> str:
    text = "".join(f"{indent}{_key(key)} = {_value(value)}\n" for key, value in table.items() if not _nested(value))
    for key, value in table.items():
        inner = (*path, key)
        name = ".".join(_key(part) for part in inner)
        if isinstance(value, dict):
            text += ("\n" if not path else "") + f"{indent}[{name}]\n" + _body(value, inner, indent + "  ")
        elif _nested(value):
            for one in value:
                text += f"\n{indent}[[{name}]]\n" + _body(one, inner, indent + "  ")
    return text


def _nested(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else json.dumps(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0")
    if isinstance(value, list):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {_value(one)}" for key, one in value.items()) + "}"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


_FORM = re.compile(r"[sr]_[0-9a-zA-Z]{12}")


def system_id(config: str) -> str:
    """The system id beside this config.toml; created now when there is none or an invalid one."""
    path = Path(config).parent / ".runner_system_id"
    if path.exists() and _FORM.fullmatch(text := path.read_text().strip()):
        return text
    made = _from_machine() or "r_" + "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(12))
    if not path.parent.exists():
        path.parent.mkdir(mode=0o700, parents=True)
    path.write_text(made)
    path.chmod(0o600)
    return made


def _from_machine() -> str:
    for name in ("/var/lib/dbus/machine-id", "/etc/machine-id"):
        if Path(name).exists() and (machine := Path(name).read_text().strip()):
            return "s_" + hmac.new(machine.encode(), b"gitlab-runner", hashlib.sha256).hexdigest()[:12]
    return ""
