"""The commands of gitlab-runner: verify, unregister, list, lint, and those that control its systemd unit.

`register` and `run` have modules of their own. Each command imports only what it needs: all modules together take three
times as long as the rest of a short command.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from . import config, logs
from .flags import Flag, Given, parse

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
    """`verify`: fails only when the server refuses a token; with the server down it ends with 0."""
    from . import api
    from .register import server_of

    logs.mode()
    delete = Flag(("--delete",), "", "flag", "")
    given = parse(words, [_CONFIG, _NAME, *_CREDENTIALS, delete])
    path, data = _loaded(given)
    system = config.system_id(path)
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
    """`unregister`: by name, by token, or all. An entry stays when the server refuses."""
    logs.mode()
    everything = Flag(("--all-runners",), "", "flag", "")
    given = parse(words, [_CONFIG, _NAME, *_CREDENTIALS, everything])
    path, data = _loaded(given)
    system, runners = config.system_id(path), data.get("runners", [])
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
        from . import api

        what = f"name '{name}'" if name else f"token '{api.short(token)}'"
        logs.fatal(f"mutate config: could not find a runner with the {what}")
    return found[0]


def _unregister(entry: Table, path: str, system: str) -> bool:
    from . import api
    from .register import server_of

    return api.unregister(server_of(entry, path), str(entry.get("token", "")), system)


def list_runners(words: list[str]) -> None:
    """`list`: prints every entry with its full token on stderr."""
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
    """`lint`: refuses a file that does not parse, wrong types and unknown keys. Changes nothing."""
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


_UNITS = Path("/etc/systemd/system")
_SERVICE_FLAGS = [
    Flag(("--service", "-n"), "", "text", ""),
    Flag(("--config", "-c"), "CONFIG_FILE", "text", ""),
    Flag(("--working-directory", "-d"), "", "text", ""),
    Flag(("--user", "-u"), "", "text", ""),
    Flag(("--syslog",), "LOG_SYSLOG", "flag", ""),
]
_UNIT = """\
[Unit]
Description=GitLab Runner
ConditionFileIsExecutable=/usr/bin/gitlab-runner
After=network.target

[Service]
StartLimitInterval=5
StartLimitBurst=10
ExecStart=/usr/bin/gitlab-runner "run" "--config" "{config}" "--working-directory" "{directory}" \
"--service" "{name}" "--user" "{user}"
Restart=always
RestartSec=120
EnvironmentFile=-/etc/sysconfig/{name}

[Install]
WantedBy=multi-user.target
"""


def control_service(verb: str, words: list[str]) -> None:
    """Runs one of the service commands; `status` ends with 0 only while the service runs."""
    given = parse(words, _SERVICE_FLAGS)
    name = given.text("service") or "gitlab-runner"
    unit = _UNITS / f"{name}.service"
    if verb == "install":
        if unit.exists():
            logs.fatal(f"Failed to install {name}: Init already exists: {unit}")
        text = _UNIT.format(
            name=name,
            config=given.text("config") or config.default_path(),
            directory=given.text("working-directory") or "/home/gitlab-runner",
            user=given.text("user") or "gitlab-runner",
        )
        unit.write_text(text)
        _systemctl("daemon-reload")
        _systemctl("enable", unit.name)
        return
    if not unit.exists():
        sys.stdout.write(f"{name}: the service is not installed\n")
        raise SystemExit(1)
    if verb == "status":
        running = _systemctl("is-active", "--quiet", unit.name)
        sys.stdout.write(f"{name}: Service {'is running' if running else 'has stopped'}\n")
        raise SystemExit(0 if running else 1)
    if verb == "uninstall":
        _systemctl("disable", unit.name)
        unit.unlink()
        _systemctl("daemon-reload")
    elif not _systemctl(verb, unit.name):
        logs.fatal(f"Failed to {verb} {name}: exit status 1")


def _systemctl(*words: str) -> bool:
    import subprocess

    done = subprocess.run(["systemctl", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return done.returncode == 0


def _register(words: list[str]) -> None:
    from .register import run

    run(words)


def _run(words: list[str]) -> None:
    from .daemon import run

    run(words)


_QUIET = ("--version", "-v", "help", "--help", "-h")
_SERVICE = ("install", "uninstall", "start", "stop", "restart", "status")
_COMMANDS = {
    "register": _register,
    "verify": verify,
    "unregister": unregister,
    "list": list_runners,
    "lint": lint,
    "run": _run,
}
_HELP = """\
NAME:
   gitlab-runner - a GitLab Runner

USAGE:
   gitlab-runner [global options] command [command options] [arguments...]

COMMANDS:
"""


def main() -> None:
    """Runs the command in sys.argv; ends with exit code 0 or 1."""
    words = sys.argv[1:]
    known = [name for name in (*_COMMANDS, *_SERVICE) if name != "lint" or logs.at_least(19, 3)]
    if not words or words[0] in _QUIET:
        if words and words[0] in ("--version", "-v"):
            sys.stdout.write(logs.version_text())
        else:
            sys.stdout.write(_HELP + "".join(f"   {name}\n" for name in sorted(known)))
        return
    verb = words[0]
    try:
        logs.banner()
        if verb not in known:
            logs.fatal(f"Command {verb} not found.")
        if {"--help", "-h"} & set(words[1:2]):
            sys.stdout.write(f"NAME:\n   gitlab-runner {verb}\n\nUSAGE:\n   gitlab-runner {verb} [command options]\n")
            return
        if verb in _SERVICE:
            control_service(verb, words[1:])
        else:
            _COMMANDS[verb](words[1:])
    except logs.Exit as end:
        logs.last(end)
