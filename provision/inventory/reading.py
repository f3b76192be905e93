"""Reading inventory files and `--set KEY=VALUE`. Secrets become sources, and local paths become absolute.

The models of the tables define which values these are:

- `SecretSource` is a secret, as a table or as text. `Path` is relative to the folder of the file that names it.
- Below a field of free keys (`dict`) a secret is any table with exactly one of the keys env, file, command, prompt
  whose value has that key's type (an environment variable's name, a path, an array of strings, a text); and any text
  under a key that is named like a secret: token, password, secretkey, api_key, …
- The field itself is always a table, and so is a value that the model declares as one: an app's `environment`
  and `check` may have a key `env` or `command`. So is a key that is marked as a `Subtable`.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, NoReturn, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from provision.errors import InventoryError, UsageError
from provision.inventory.problems import SET, Source
from provision.inventory.secrets import Origin, SecretSource, as_source
from provision.inventory.settings import HOST_KEYS, STRUCTURE, Tables
from provision.inventory.tables.base import Subtable, Table, fields_of, options_of
from provision.inventory.tree import KeyPath, Tree, dotted, merge
from provision.secret import is_secret_name

_READABLE_BY_OTHERS = 0o044

here: ContextVar[Path | None] = ContextVar("here", default=None)
"""The folder in which the command line was given, if this is not the current folder of this process (on Dask workers)."""


def current_folder() -> Path:
    """The folder that relative paths on the command line refer to, and that may have playbooks and templates."""
    return here.get() or Path.cwd()


def unreadable(path: Path, error: OSError) -> InventoryError:
    """The error for an inventory file that is missing or cannot be read."""
    hint = "`provision init` writes one to start from" if isinstance(error, FileNotFoundError) else ""
    return InventoryError(f"{path}: cannot be read: {error.strerror or error}", hint=hint)


def read_file(path: Path, tables: Tables) -> tuple[Source, list[str]]:
    """One inventory file and the warnings about it. Raises InventoryError when it is missing or not valid TOML."""
    name = str(path)
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read().decode("utf-8-sig")  # editors on Windows write a byte order mark
    except OSError as error:
        raise unreadable(path, error) from None
    except UnicodeDecodeError as error:
        raise InventoryError(f"{name}: not UTF-8 at byte {error.start}", hint="save the file as UTF-8") from None
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        _refuse_syntax(name, text, str(error))
    reader = _ValueReader(name, path.resolve().parent, tables)
    source = Source(name, reader.read(tree), text)
    return source, _warnings(name, reader.in_plain_text) if mode & _READABLE_BY_OTHERS else []


def read_overrides(overrides: Sequence[str], tables: Tables) -> tuple[Source, list[str]]:
    """All `--set` values as one tree, later ones over earlier ones, and the warnings about it. Raises UsageError."""
    tree: Tree = {}
    for override in overrides:
        tree = merge(tree, _override(override))
    # A relative path on the command line is relative to the current folder.
    reader = _ValueReader(SET, current_folder(), tables)
    source = Source(SET, reader.read(tree))
    keys = ", ".join(dotted(path) for path in reader.in_plain_text)
    text = f"{SET} {keys}: visible in the process list and the shell's history; use '{{ env = \"NAME\" }}' as the value"
    return source, [text] if keys else []


class _ValueReader:
    """Reads the values of one file. `in_plain_text` then has the keys of the secrets that are plain text."""

    def __init__(self, file: str, base: Path, tables: Tables) -> None:
        self.in_plain_text: list[KeyPath] = []
        self._file = file
        self._base = base
        self._tables = tables

    def read(self, tree: Tree) -> Tree:
        """The same tables, with SecretSource and Path objects as values."""
        found = self._level(tree, ())
        for part in tree:
            if part in STRUCTURE and isinstance(tree[part], dict):
                found[part] = {
                    name: self._level(table, (part, name)) if isinstance(table, dict) else table
                    for name, table in tree[part].items()
                }
        return found

    def _level(self, tree: Tree, path: KeyPath) -> Tree:
        """The tables at the top level, or below [hosts.NAME] or [groups.NAME]."""
        found = dict(tree)
        for key in tree:
            if key not in STRUCTURE | HOST_KEYS and (table := self._tables.get(key)):
                found[key] = self._registered(tree[key], table, (*path, key))
        return found

    def _registered(self, value: Any, table: type[Table], path: KeyPath) -> Any:
        occurs = options_of(table).occurs
        if occurs == "array" and isinstance(value, list):
            return [self._table(one, table, (*path, place)) for place, one in enumerate(value)]
        if occurs == "named" and isinstance(value, dict):
            return {name: self._table(one, table, (*path, name)) for name, one in value.items()}
        return self._table(value, table, path)

    def _table(self, value: Any, table: type[Table], path: KeyPath) -> Any:
        if not isinstance(value, dict):
            return value
        fields = fields_of(table)
        return {
            key: self._value(one, _annotation(fields[key]), (*path, key)) if key in fields else one
            for key, one in value.items()
        }

    def _value(self, value: Any, annotation: Any, path: KeyPath) -> Any:
        """Reads a value below a field, by the field's type."""
        kinds = _alternatives(annotation)
        if Any in kinds:
            return self._free(value, path)
        types = {one for one in kinds if isinstance(one, type)}
        if SecretSource in types and isinstance(value, dict) and (secret := self._source(value, path)):
            return secret
        if isinstance(value, dict):
            return self._dict(value, kinds, path)
        if isinstance(value, list):
            items = [get_args(one)[0] for one in kinds if get_origin(one) in (tuple, list)]
            of = items[0] if items else None
            return [self._value(one, of, (*path, place)) for place, one in enumerate(value)]
        if isinstance(value, str) and Path in types:
            return self._base / Path(value).expanduser()
        if isinstance(value, str) and SecretSource in types and str not in types:
            return self._plain(value, path)
        return value

    def _dict(self, value: dict[str, Any], kinds: list[Any], path: KeyPath) -> Any:
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, Table):
                return self._table(value, kind, path)
            if get_origin(kind) is dict:
                return self._free_keys(value, kind, {one.key for one in kinds if isinstance(one, Subtable)}, path)
        return value

    def _free_keys(self, table: dict[str, Any], kind: Any, subtables: set[str], path: KeyPath) -> dict[str, Any]:
        """A table with keys that the user chose; `kind` is `dict[str, …]`."""
        (_, annotation), found = get_args(kind), {}
        arrays = any(get_origin(one) is tuple for one in _alternatives(annotation))
        for key, value in table.items():
            at = (*path, key)
            if key in subtables and isinstance(value, dict):
                found[key] = self._free_keys(value, kind, set(), at)
            elif arrays and not isinstance(value, list):  # the short form of an array of tables
                found[key] = self._free(value, at)
            else:
                found[key] = self._value(value, annotation, at)
        return found

    def _free(self, value: Any, path: KeyPath) -> Any:
        """Reads a value that no type describes."""
        if isinstance(value, dict):
            return self._source(value, path) or {key: self._free(one, (*path, key)) for key, one in value.items()}
        if isinstance(value, list):
            return [self._free(one, (*path, place)) for place, one in enumerate(value)]
        key = next(part for part in reversed(path) if isinstance(part, str))
        if isinstance(value, str) and is_secret_name(key):
            return self._plain(value, path)
        return value

    def _source(self, value: dict[str, Any], path: KeyPath) -> SecretSource | None:
        return as_source(value, Origin(self._file, path, self._base))

    def _plain(self, text: str, path: KeyPath) -> SecretSource:
        self.in_plain_text.append(path)
        return SecretSource.plain(text, Origin(self._file, path, self._base))


def _annotation(field: FieldInfo) -> Any:
    """A field's type with its marks, which pydantic keeps apart."""
    found: Any = field.annotation
    for mark in field.metadata:
        found = Annotated[found, mark]
    return found


def _alternatives(annotation: Any) -> list[Any]:
    """The types that a field may have, without Annotated and Union; and the marks of Annotated."""
    origin = get_origin(annotation)
    if origin is Annotated:
        kind, *marks = get_args(annotation)
        return [*_alternatives(kind), *(one for one in marks if isinstance(one, Subtable))]
    if origin in (Union, UnionType):
        return [found for one in get_args(annotation) for found in _alternatives(one)]
    return [annotation]


def _override(text: str) -> Tree:
    key, equals, raw = (part.strip() for part in text.partition("="))
    hint = "write --set KEY=VALUE, as in --set registry.external_url=https://gitlab.example.com:5555"
    if not equals or not key or "\n" in key:
        raise UsageError(f"--set {key}: not KEY=VALUE", hint=hint)
    try:
        tree = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError:
        raise UsageError(f"--set {key}=…: {key!r} is not a key path", hint=hint) from None
    _put(tree, _override_value(raw))
    return tree


def _put(tree: Tree, value: Any) -> None:
    """Replaces the only leaf of `tree`."""
    (key,) = tree
    if isinstance(tree[key], dict):
        _put(tree[key], value)
    else:
        tree[key] = value


def _override_value(raw: str) -> Any:
    """VALUE as TOML; text that is not valid TOML is a string."""
    try:
        parsed = tomllib.loads(f"value = {raw}")
    except tomllib.TOMLDecodeError:
        return raw
    return parsed["value"] if len(parsed) == 1 else raw


def _refuse_syntax(name: str, text: str, reason: str) -> NoReturn:
    at = re.search(r" \(at line (\d+), column (\d+)\)$", reason)
    what = reason[: at.start()] if at else reason.removesuffix(" (at end of document)")
    line, column = (int(at[1]), int(at[2])) if at else (max(1, text.count("\n") + (not text.endswith("\n"))), 0)
    place = f"{name}:{line}:{column}" if column else f"{name}:{line} (end of file)"
    hint = "put strings in quotes and table names in [brackets]; a key and a table may occur only once"
    raise InventoryError(f"{place}: not valid TOML: {what}", hint=hint)


def _warnings(name: str, in_plain_text: Sequence[KeyPath]) -> list[str]:
    if not in_plain_text:
        return []
    keys = ", ".join(dotted(path) for path in in_plain_text[:5])
    more = f" and {len(in_plain_text) - 5} more" if len(in_plain_text) > 5 else ""
    return [
        f"{name}: readable by other users, and it holds secrets as text ({keys}{more}): "
        f'run chmod 600 {name}, or use {{ env = "NAME" }}'
    ]
