"""The settings of a host: one validated table for each table that a task registers.

    host.settings[Docker].users            a table that stands once
    host.settings.get(Registry)            the same, None when the inventory has none
    host.settings.all(Runner)              an array of tables, [[runners]]
    host.settings.named(Project)           tables with names, [projects."group/name"]

Which tables there are follows from the tasks: `Tables` is built from those of the catalogue.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from provision.errors import InventoryError, UsageError, did_you_mean
from provision.inventory.problems import Problem, problems_in
from provision.inventory.tables.base import InvalidValue, Table, describe, is_optional, options_of
from provision.inventory.tree import KeyPath, Tree

T = TypeVar("T", bound=Table)
Places = Callable[[KeyPath], tuple[KeyPath, ...]]
KnownTables = dict[tuple[type[Table], int], tuple[Any, Any]]
"""By table and id of its value in the tree: the value, and the validated table or tables. The value is kept because its id
is valid only while it exists."""

HOST_KEYS = frozenset({"address", "groups", "host_key"})  # of [hosts.NAME], beside the tables
STRUCTURE = frozenset({"hosts", "groups"})


class Settings:
    """The tables of one host, by their classes. Build it with `Tables.settings`."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[type[Table], Any]) -> None:
        self._values = values

    def __getitem__(self, table: type[T]) -> T:
        """A table that stands once. Raises InventoryError when it is optional and the inventory has none."""
        found = self.get(table)
        if found is None:
            raise InventoryError(
                f"{options_of(table).brackets} is missing in the inventory",
                hint=f"`provision explain {options_of(table).name}` documents it",
            )
        return found

    def get(self, table: type[T]) -> T | None:
        """A table that stands once, or None when it is optional and the inventory has none."""
        return cast("T | None", self._of(table, "once", None))

    def all(self, table: type[T]) -> tuple[T, ...]:
        """The tables of an array, in the file's order."""
        return cast("tuple[T, ...]", self._of(table, "array", ()))

    def named(self, table: type[T]) -> Mapping[str, T]:
        """Tables with names, in the file's order."""
        return cast("Mapping[str, T]", self._of(table, "named", {}))

    def __contains__(self, table: type[Table]) -> bool:
        """Whether a task registers the table."""
        return table in self._values

    def items(self) -> Iterator[tuple[str, Any]]:
        """The tables by name: a Table or None, a tuple of Tables, or a mapping of them."""
        return ((options_of(table).name, value) for table, value in self._values.items())

    def _of(self, table: type[T], occurs: str, absent: object) -> object:
        options = options_of(table)
        if options.occurs != occurs:
            raise TypeError(f"{table.__name__} is written {options.brackets}: read it accordingly")
        if table not in self._values:
            raise LookupError(f"no task registers {table.__name__}: name it in @task(settings=…) or @task(uses=(…))")
        found = self._values[table]
        return absent if found is None else found


class Tables:
    """The tables that an inventory may have, by their names."""

    def __init__(self, tables: Iterable[type[Table]] = (), unchecked: Iterable[str] = ()) -> None:
        """`unchecked` are names of tables that belong to broken playbooks: they are accepted and not read.

        Raises UsageError for two tables with one name, and for a name that means something else.
        """
        self._unchecked = frozenset(unchecked)
        self._by_name: dict[str, type[Table]] = {}
        for table in tables:
            name = options_of(table).name
            other = self._by_name.setdefault(name, table)
            if other is not table:
                raise UsageError(
                    f"two tables have the name [{name}]: {table.__name__} in {place_of(table)} and "
                    f"{other.__name__} in {place_of(other)}",
                    hint='give one of them another name: class …(Table, name="…")',
                )
            if name in HOST_KEYS | STRUCTURE:
                raise UsageError(
                    f"[{name}]: this name has another meaning in the inventory ({place_of(table)})",
                    hint='give the table another name: class …(Table, name="…")',
                )

    def __iter__(self) -> Iterator[type[Table]]:
        return iter(self._by_name.values())

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def get(self, name: str) -> type[Table] | None:
        """The table of a name, or None."""
        return self._by_name.get(name)

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in the order in which the tables were registered."""
        return tuple(self._by_name)

    def settings(
        self, tree: Tree, places: Places | None = None, known: KnownTables | None = None
    ) -> tuple[Settings, list[Problem]]:
        """The settings in a merged tree, and what is wrong with it. With a problem the settings are incomplete.

        `places(path)`: the key paths that may have brought a value into the tree, the strongest first.
        `known`: the valid tables of earlier trees. A value that several trees contain is validated once.
        """
        at = places or (lambda path: (path,))
        known = {} if known is None else known
        problems = [
            Problem(at((key,)), self._unknown(key)) for key in tree.keys() - self._by_name.keys() - self._unchecked
        ]
        values = {table: _read_once(table, tree, at, problems, known) for table in self}
        found = Settings(values)
        for table in self if not problems else ():
            try:
                table.check_among(found)
            except InvalidValue as error:
                problems.append(Problem(at((options_of(table).name, *error.at)), str(error)))
        return found, problems

    def _unknown(self, key: str) -> str:
        known = {*self.names, *HOST_KEYS, *STRUCTURE} - {key}
        near = did_you_mean(key, known)
        return f"unknown key{near}" if near else "unknown key: no task has such a table (provision explain lists them)"


def place_of(table: type[Table]) -> str:
    """FILE:LINE of a table's class."""
    try:
        return f"{inspect.getsourcefile(table)}:{inspect.getsourcelines(table)[1]}"
    except (OSError, TypeError):
        return table.__module__


def _read_once(table: type[Table], tree: Tree, at: Places, problems: list[Problem], known: KnownTables) -> Any:
    value = tree.get(options_of(table).name)
    key = table, id(value)
    if key in known:
        return known[key][1]
    before = len(problems)
    found = _read(table, tree, at, problems)
    if len(problems) == before:
        known[key] = value, found
    return found


def _read(table: type[Table], tree: Tree, at: Places, problems: list[Problem]) -> Any:
    options = options_of(table)
    value = tree.get(options.name)
    if options.occurs == "once":
        if value is None and is_optional(table):
            return None
        return _one(table, {} if value is None else value, (options.name,), at, problems)
    rows = _rows(table, value, at, problems)
    found = {key: _one(table, row, (options.name, key), at, problems) for key, row in rows.items()}
    if all(one is not None for one in found.values()):
        try:
            table.check_all(found)
        except InvalidValue as error:
            problems.append(Problem(at((options.name, *error.at)), str(error)))
    return tuple(found.values()) if options.occurs == "array" else found


def _rows(table: type[Table], value: Any, at: Places, problems: list[Problem]) -> dict[str | int, Any]:
    options = options_of(table)
    if value is None:
        return {}
    if options.occurs == "array" and isinstance(value, list | tuple):
        return dict(enumerate(value))
    if options.occurs == "named" and isinstance(value, dict):
        return dict(value)
    kind = "an array of tables" if options.occurs == "array" else "tables"
    problems.append(Problem(at((options.name,)), f"expected {kind} {options.brackets}, got {describe(value)}"))
    return {}


def _one(table: type[Table], value: Any, path: KeyPath, at: Places, problems: list[Problem]) -> Any:
    try:
        return table.model_validate(value)
    except ValidationError as error:
        problems += problems_in(error, table, lambda loc: at((*path, *loc)))
        return None
