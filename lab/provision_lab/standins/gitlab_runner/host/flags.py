"""The flags of gitlab-runner, read as Go programs read them, and the keys of config.toml that they set.

Flags are `--flag value` or `--flag=value`, booleans also without a value; the environment has lower precedence. A key
that the program does not know is lost when it rewrites config.toml.

KNOWN   key below [[runners]]: its kind, in the order of the flags that set them
ORDER   keys whose place in a written file follows another order
ALWAYS  keys that are written even when they are zero
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from . import logs

_TRUE = {"1", "t", "T", "true", "TRUE", "True"}
_FALSE = {"0", "f", "F", "false", "FALSE", "False"}


@dataclass
class Given:
    """The values from flags and environment, by each flag's first name without its dashes."""

    values: dict[str, Any] = field(default_factory=dict)
    rest: list[str] = field(default_factory=list)

    def text(self, name: str, default: str = "") -> str:
        """A trimmed text."""
        return str(self.values.get(name, default)).strip()

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A boolean."""
        return bool(self.values.get(name, default))

    def number(self, name: str) -> int:
        """A number, or 0."""
        return int(self.values.get(name, 0))


def parse(words: Sequence[str], known: Iterable[Flag]) -> Given:
    """Parses a command's words. Ends the program at an unknown flag, as the real one does."""
    by_name = {name.lstrip("-"): flag for flag in known for name in flag.names}
    given = Given()
    for flag in dict.fromkeys(by_name.values()):
        if flag.env and (text := os.environ.get(flag.env, "")):
            parts = text.split(",") if flag.kind == "texts" else [text]
            for part in parts:
                _set(given, flag, part, f"${flag.env}")
    fresh: set[Flag] = set()
    line = list(words)
    while line:
        word = line.pop(0)
        if word == "--" or not word.startswith("-"):
            given.rest = ([] if word == "--" else [word]) + line
            break
        name, equals, value = word.lstrip("-").partition("=")
        flag = by_name.get(name) or logs.fatal(f"flag provided but not defined: -{name}")
        if not equals:
            if flag.kind == "flag":
                value = "true"
            elif line:
                value = line.pop(0)
            else:
                logs.fatal(f"flag needs an argument: -{name}")
        if flag.kind in ("texts", "table") and flag not in fresh:
            given.values.pop(_name(flag), None)  # the command line replaces the environment
        fresh.add(flag)
        _set(given, flag, value, f"-{name}")
    return given


def _set(given: Given, flag: Flag, value: str, source: str) -> None:
    name = _name(flag)
    if flag.kind == "flag":
        if value not in _TRUE | _FALSE:
            logs.fatal(f'invalid boolean value "{value}" for {source}: parse error')
        given.values[name] = value in _TRUE
    elif flag.kind == "number":
        try:
            given.values[name] = int(value, 0)
        except ValueError:
            logs.fatal(f'invalid value "{value}" for flag {source}: parse error')
    elif flag.kind == "texts":
        given.values.setdefault(name, []).append(value)
    elif flag.kind == "table":
        given.values.setdefault(name, {}).update(_pairs(value, source))
    else:
        given.values[name] = value


def _pairs(text: str, source: str) -> dict[str, Any]:
    if text.lstrip().startswith("{"):
        table = json.loads(text)
        return table if isinstance(table, dict) else {}
    key, equals, value = text.partition(":" if ":" in text and "=" not in text else "=")
    if not equals:
        logs.fatal(f'invalid value "{text}" for flag {source}')
    plain: Any = value == "true" if value in ("true", "false") else value
    return {key: plain}


def _name(flag: Flag) -> str:
    return flag.names[0].lstrip("-")


FLAGS_FILE = Path(__file__).with_name("flags.tsv")


class Flag(NamedTuple):
    """A flag of `register`: its spellings, its environment variable, its kind, its key below [[runners]]."""

    names: tuple[str, ...]
    env: str
    kind: str  # text, flag, number, texts, table
    key: str
    optional: bool = False  # written whenever it is set, zero or not


def flags() -> list[Flag]:
    """All flags of `register`, as listed in flags.tsv."""
    rows = [line.split("\t") for line in FLAGS_FILE.read_text().splitlines()[1:]]
    return [
        Flag(tuple(names.split()), env, kind.rstrip("?"), key, kind.endswith("?")) for names, env, kind, key in rows
    ]


KINDS = {flag.key: flag.kind for flag in flags() if flag.key}
OPTIONAL = {flag.key for flag in flags() if flag.optional}

TOP = {
    "concurrent": "number",
    "check_interval": "number",
    "log_level": "text",
    "log_format": "text",
    "user": "text",
    "connection_max_age": "text",
    "listen_address": "text",
    "sentry_dsn": "text",
    "shutdown_timeout": "number",
    "session_server": "table",
    "runners": "tables",
    "experimental": "table",
    "machine": "table",
    "labels": "table",
}
SESSION = {"session_timeout": "number", "listen_address": "text", "advertise_address": "text"}
ORDER = (
    *("name", "limit", "output_limit", "request_concurrency", "url", "id", "token", "token_obtained_at"),
    *("token_expires_at", "tls-ca-file", "tls-cert-file", "tls-key-file", "executor"),
    *("custom_build_dir", "cache", "feature_flags", "docker"),
)
TABLES = ("custom_build_dir", "cache", "feature_flags", "docker")  # these come after all other keys
RUNNER_MORE = {  # known, and not settable by one of the flags above
    "id": "number",
    "token_obtained_at": "time",
    "token_expires_at": "time",
    "labels": "table",
    "docker.services": "tables",
    "cache.s3.RoleARN": "text",
    "cache.gcs": "table",
    "cache.azure": "table",
    **dict.fromkeys(("kubernetes", "machine", "ssh", "custom", "parallels", "virtualbox", "autoscaler"), "table"),
    **dict.fromkeys(("instance", "referees", "pre_clone_script", "debug_trace_disabled", "system_id"), "table"),
}
RUNNER_MORE |= {"pre_clone_script": "text", "debug_trace_disabled": "flag", "system_id": "text"}
KNOWN = KINDS | RUNNER_MORE
ALWAYS = {
    "concurrent": 1,
    "check_interval": 0,
    "connection_max_age": "15m0s",
    "shutdown_timeout": 0,
}
ALWAYS_RUNNER = {"name": "", "url": "", "id": 0, "token": "", "executor": ""}
ALWAYS_CACHE = {"MaxUploadedArchiveSize": 0, "s3": {"AssumeRoleMaxConcurrency": 0}, "gcs": {}, "azure": {}}
ALWAYS_DOCKER = {
    "tls_verify": False,
    "image": "",
    "privileged": False,
    "disable_entrypoint_overwrite": False,
    "oom_kill_disable": False,
    "disable_cache": False,
    "volume_keep": False,
    "shm_size": 0,
    "network_mtu": 0,
}
EXECUTORS = (
    *("custom", "docker", "docker+machine", "docker-autoscaler", "docker-windows", "instance", "kubernetes"),
    *("parallels", "shell", "ssh", "virtualbox"),
)
