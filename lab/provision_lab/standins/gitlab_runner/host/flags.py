"""Flags as Go's programs take them: `--flag value`, `--flag=value`, switches bare or `=false`; the environment below."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import logs
from .schema import Flag

_TRUE = {"1", "t", "T", "true", "TRUE", "True"}
_FALSE = {"0", "f", "F", "false", "FALSE", "False"}


@dataclass
class Given:
    """What flags and environment say, by each flag's first name without its dashes."""

    values: dict[str, Any] = field(default_factory=dict)
    rest: list[str] = field(default_factory=list)

    def text(self, name: str, default: str = "") -> str:
        """A text, trimmed."""
        return str(self.values.get(name, default)).strip()

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A switch."""
        return bool(self.values.get(name, default))

    def number(self, name: str) -> int:
        """A number, or 0."""
        return int(self.values.get(name, 0))


def parse(words: Sequence[str], known: Iterable[Flag]) -> Given:
    """Reads a command's words. Ends the program, as the real one does, at a flag that it has not."""
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
            given.values.pop(_name(flag), None)  # the command line takes the place of the environment
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
