"""verify, unregister, list, lint: what they say, how they end, and when they rewrite the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import api, config, logs, system_id
from .flags import Given, parse
from .register import server_of
from .schema import Flag

Table = dict[str, Any]
_CONFIG = Flag(("--config", "-c"), "CONFIG_FILE", "text", "")
_NAME = Flag(("--name", "-n"), "", "text", "")
_CREDENTIALS = [
    Flag(("--url", "-u"), "CI_SERVER_URL", "text", ""),
    Flag(("--token", "-t"), "CI_SERVER_TOKEN", "text", ""),
    Flag(("--tls-ca-file",), "CI_SERVER_TLS_CA_FILE", "text", ""),
]


def _loaded(given: Given) -> tuple[str, Table]:
    path = given.text("config") or config.default_path()
    try:
        return path, config.read(path)
    except config.ConfigError as error:
        logs.fatal(str(error))


def verify(words: list[str]) -> None:
    """Only a refusal counts as a failure: with the server down it ends with 0."""
    logs.mode()
    delete = Flag(("--delete",), "", "flag", "")
    given = parse(words, [_CONFIG, _NAME, *_CREDENTIALS, delete])
    path, data = _loaded(given)
    system = system_id.of(path)
    name, url, token = given.text("name"), given.text("url"), given.text("token")
    selecting = bool(name or url or token)
    kept, refused, asked = [], 0, 0
    for entry in data.get("runners", []):
        ours = entry.get("name") == name or (entry.get("url") == url and entry.get("token") == token)
        if not selecting or ours:
            asked += 1
            if api.verify(server_of(entry, path), str(entry.get("token", "")), system) is None:
                refused += 1
                continue
        kept.append(entry)
    if selecting and not asked:
        logs.fatal("mutate config: no runner matches the filtering parameters")
    if not refused:
        return
    if not given.flag("delete"):
        logs.fatal("Failed to verify runners")
    config.write(path, data | {"runners": kept})
    logs.info(f"Updated {path}")


def unregister(words: list[str]) -> None:
    """By name, by token, or all; an entry stays when the server refuses."""
    logs.mode()
    everything = Flag(("--all-runners",), "", "flag", "")
    given = parse(words, [_CONFIG, _NAME, *_CREDENTIALS, everything])
    path, data = _loaded(given)
    system, runners = system_id.of(path), data.get("runners", [])
    if given.flag("all-runners"):
        logs.warning("Unregistering all runners")
        kept = [entry for entry in runners if not _unregister(entry, path, system)]
        for entry in kept:
            logs.error(f"Failed to unregister runner {entry.get('name', '')}")
    else:
        chosen = _chosen(given, runners)
        if not _unregister(chosen, path, system):
            logs.fatal(f"Failed to unregister runner {given.text('name')}")
        identity = (chosen.get("token"), chosen.get("url"))
        kept = [entry for entry in runners if (entry.get("token"), entry.get("url")) != identity]
    if len(kept) != len(runners):
        config.write(path, data | {"runners": kept})
        logs.info(f"Updated {path}")


def _chosen(given: Given, runners: list[Table]) -> Table:
    name, token = given.text("name"), given.text("token")
    if not name and not token:
        logs.fatal("at least one of --name or --token must be specified")
    found = [
        entry
        for entry in runners
        if (not name or entry.get("name") == name) and (not token or entry.get("token") == token)
    ]
    if not found:
        what = f"name '{name}'" if name else f"token '{api.short(token)}'"
        logs.fatal(f"mutate config: could not find a runner with the {what}")
    return found[0]


def _unregister(entry: Table, path: str, system: str) -> bool:
    return api.unregister(server_of(entry, path), str(entry.get("token", "")), system)


def list_runners(words: list[str]) -> None:
    """Every entry on stderr, the full token with it."""
    given = parse(words, [_CONFIG])
    path = given.text("config") or config.default_path()
    try:
        data = config.read(path)
    except config.ConfigError as error:
        logs.warning(str(error))
        return
    logs.info("Listing configured runners", ConfigFile=path)
    for entry in data.get("runners", []):
        fields = {"Executor": entry.get("executor", ""), "Token": entry.get("token", ""), "URL": entry.get("url", "")}
        logs.info(str(entry.get("name", "")), **fields)


def lint(words: list[str]) -> None:
    """Refuses what does not parse, what has a wrong type, and keys that are unknown. Touches nothing."""
    given = parse(words, [_CONFIG])
    path = given.text("config") or config.default_path()
    if not Path(path).exists():
        logs.fatal(f"config file not found: {path}")
    try:
        data = config.read(path)
    except config.ConfigError as error:
        logs.fatal(f"decoding config: {error}")
    if data["concurrent"] < 1:
        logs.fatal("config schema validation failed: /concurrent: minimum: got 0, want 1")
    lost = config.unknown(data)
    if lost:
        listed = "\n".join(f"  unknown key: {name}" for name in lost)
        logs.fatal(f"{len(lost)} unknown key(s) found in {path}:\n{listed}")
    logs.info("Configuration file is valid.")
