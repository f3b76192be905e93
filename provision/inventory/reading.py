"""What a parsed file's values mean before files are merged: secrets become sources, local paths absolute.

Both depend on the file that names them, so it is done per file.

A secret is
- any table with exactly one of the keys env, file, command, prompt whose value has that key's type
  (an environment variable's name, a path, an array of strings, a text), at any depth inside a settings table;
- any string under a key that is called like a secret: token, password, secretkey, api_key, …

Left alone are tables where those four are keys of another meaning: Docker's own `log-opts`, CI variables, an image's build
arguments, an app's variables and checks. Strings under secret-looking keys are secrets in them too.

Reading what is given: inventory files, and `--set KEY=VALUE`.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from provision.errors import InventoryError, UsageError
from provision.inventory.problems import SET, Source
from provision.inventory.secrets import Origin, SecretSource, as_source
from provision.inventory.tree import KeyPath, Tree, dotted, in_table, merge
from provision.secret import is_secret_name


def _patterns(*dotted: str) -> tuple[tuple[str, ...], ...]:
    """Paths of keys; `*` is any name, or the place in an array."""
    return tuple(tuple(one.split(".")) for one in dotted)


def _fits(path: KeyPath, patterns: tuple[tuple[str, ...], ...]) -> bool:
    return any(
        len(path) == len(one) and all(want in ("*", key) for key, want in zip(path, one, strict=True))
        for one in patterns
    )


_LOCAL_PATHS = _patterns(
    *("ssh.identity_file", "ssh.known_hosts"),
    *("registry.certificate.ca", "registry.certificate.local_fullchain", "registry.certificate.local_key"),
    *("apt.docker.key", "apt.gitlab.key", "apt.runner.key"),
    *("docker.registries.*.ca", "docker.registries.*.cert", "docker.registries.*.key"),
    *("images.*.context", "projects.*.pipeline.path"),
)
_TABLES = _patterns(
    *(
        "docker.daemon.log-opts",
        "images.*.options",
        "images.*.build_args",
        "apps.*.environment",
        "apps.*.health",
        "apps.*.check",
    ),
    *("projects.*.variables", "projects.*.pipeline.variables"),
)


class Recogniser:
    """Walks one file's tables. `plain` then holds the keys of secrets that stand in the file as text."""

    def __init__(self, file: str, base: Path) -> None:
        self.file = file
        self.base = base
        self.plain: list[KeyPath] = []

    def tree(self, tree: dict[str, Any]) -> dict[str, Any]:
        """The same tables with SecretSource and Path objects in place."""
        return {key: self._value(value, (key,)) for key, value in tree.items()}

    def _value(self, value: Any, path: KeyPath) -> Any:
        if isinstance(value, dict):
            return self._table(value, path)
        if isinstance(value, list):
            return [self._value(one, (*path, place)) for place, one in enumerate(value)]
        if isinstance(value, str) and len(path) > 1:
            return self._text(value, path)
        return value

    def _table(self, table: dict[str, Any], path: KeyPath) -> Any:
        inside = in_table(path)
        if len(inside) > 1:
            source = as_source(table, Origin(self.file, path, self.base))
            if source is not None and not _fits(inside, _TABLES):
                return source
        return {key: self._value(value, (*path, key)) for key, value in table.items()}

    def _text(self, text: str, path: KeyPath) -> Any:
        inside = in_table(path)
        if _fits(inside, _LOCAL_PATHS):
            return self.base / Path(text).expanduser()
        key = next(part for part in reversed(path) if isinstance(part, str))
        if is_secret_name(key):
            self.plain.append(path)
            return SecretSource.plain(text, Origin(self.file, path, self.base))
        return text


_READABLE_BY_OTHERS = 0o044


def read_file(path: Path) -> tuple[Source, list[str]]:
    """One inventory file and the warnings about it. Raises InventoryError when it is missing or no TOML."""
    name = str(path)
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read().decode("utf-8")
    except OSError as error:
        hint = "`provision init` writes one to start from" if isinstance(error, FileNotFoundError) else ""
        raise InventoryError(f"{name}: cannot be read: {error.strerror or error}", hint=hint) from None
    except UnicodeDecodeError as error:
        raise InventoryError(f"{name}: no UTF-8 at byte {error.start}", hint="save the file as UTF-8") from None
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        _no_toml(name, text, str(error))
    recogniser = Recogniser(name, path.resolve().parent)
    source = Source(name, recogniser.tree(tree), text)
    return source, _warnings(source, recogniser) if mode & _READABLE_BY_OTHERS else []


def read_overrides(overrides: Sequence[str]) -> tuple[Source, list[str]]:
    """All `--set` values as one tree, later ones over earlier ones, and the warnings about it. Raises UsageError."""
    tree: Tree = {}
    for override in overrides:
        tree = merge(tree, _override(override))
    # a relative path on the command line is relative to where it was typed
    recogniser = Recogniser(SET, Path.cwd())
    source = Source(SET, recogniser.tree(tree))
    keys = ", ".join(dotted(path) for path in recogniser.plain)
    text = f"{SET} {keys}: the process list and the shell's history show it: use '{{ env = \"NAME\" }}' for its value"
    return source, [text] if keys else []


def _override(text: str) -> Tree:
    key, equals, raw = (part.strip() for part in text.partition("="))
    hint = "write --set KEY=VALUE, as in --set registry.external_url=https://gitlab.example.com:5555"
    if not equals or not key or "\n" in key:
        raise UsageError(f"--set {key}: no KEY=VALUE", hint=hint)
    try:
        tree = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError:
        raise UsageError(f"--set {key}=…: {key!r} is no key path", hint=hint) from None
    _put(tree, _value(raw))
    return tree


def _put(tree: Tree, value: Any) -> None:
    """Replaces the only leaf of `tree`."""
    (key,) = tree
    if isinstance(tree[key], dict):
        _put(tree[key], value)
    else:
        tree[key] = value


def _value(raw: str) -> Any:
    """VALUE as TOML; what is no TOML is a bare word: a string."""
    try:
        parsed = tomllib.loads(f"value = {raw}")
    except tomllib.TOMLDecodeError:
        return raw
    return parsed["value"] if len(parsed) == 1 else raw


def _no_toml(name: str, text: str, said: str) -> NoReturn:
    at = re.search(r" \(at line (\d+), column (\d+)\)$", said)
    what = said[: at.start()] if at else said.removesuffix(" (at end of document)")
    line, column = (int(at[1]), int(at[2])) if at else (max(1, text.count("\n") + (not text.endswith("\n"))), 0)
    place = f"{name}:{line}:{column}" if column else f"{name}:{line} (its end)"
    hint = "strings stand in quotes, tables in [brackets]; a key and a table may stand only once"
    raise InventoryError(f"{place}: no valid TOML: {what}", hint=hint)


def _warnings(source: Source, recogniser: Recogniser) -> list[str]:
    if not recogniser.plain:
        return []
    keys = ", ".join(dotted(path) for path in recogniser.plain[:5])
    more = f" and {len(recogniser.plain) - 5} more" if len(recogniser.plain) > 5 else ""
    return [
        f"{source.name}: readable by others, and it holds secrets as text ({keys}{more}): "
        f'chmod 600 {source.name}, or use {{ env = "NAME" }}'
    ]
