"""The base class of the inventory's tables, and checks that several tables use."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator
from pydantic.fields import FieldInfo

from provision.errors import Refused, UsageError
from provision.inventory.secrets import SecretSource
from provision.inventory.tree import KeyPath
from provision.secret import is_secret_name, mask

Occurs = Literal["once", "array", "named"]


class Table(BaseModel):
    """A table of the inventory. Its fields are the table's keys; their docstrings document them.

        class NodeExporter(Table):
            \"\"\"[node_exporter]: Prometheus's exporter of host metrics.\"\"\"

            port: int = 9100
            \"\"\"The port that it listens on.\"\"\"

    Unknown keys are refused, and values are never converted: `"5"` is not a number. Field types with a special meaning:

    Path          a file on this machine, relative to the inventory file that names it
    SecretSource  a secret: `{ env = "NAME" }` and the like
    Url           a URL, parsed
    dict          free keys; a value in it may be a secret

    Class options, as in `class Runner(Table, name="runners", occurs="array")`:

    name      the name in the brackets. Default: the name of the class in snake_case
    occurs    "once": [name]; "array": [[name]], any number of times; "named": [name.KEY], any number of times
    optional  whether a host without the table has None instead of the defaults. Default: true exactly when a key
              has no default
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    _table_options: ClassVar[TableOptions]

    def __init_subclass__(cls, *, name: str = "", occurs: Occurs = "once", optional: bool | None = None) -> None:
        super().__init_subclass__()
        name = name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
        cls._table_options = TableOptions(name, occurs, optional)

    @classmethod
    def check_all(cls, tables: Mapping[str | int, Self]) -> None:
        """Checks the tables of an array (by place), or the named ones (by name), against each other.

        Raises InvalidValue, whose `at` begins with the place or the name.
        """

    @classmethod
    def check_among(cls, settings: Any) -> None:
        """Checks the tables against those of other classes: `settings` are the host's `Settings`, complete and valid.

        Raises InvalidValue, whose `at` begins below the table's own name.
        """

    @model_validator(mode="before")
    @classmethod
    def _arrays_as_tuples(cls, table: Any) -> Any:
        # TOML's arrays are lists; a frozen table has tuples instead.
        if not isinstance(table, dict):
            return table
        arrays = _arrays(cls)
        return {
            key: tuple(value) if key in arrays and isinstance(value, list) else value for key, value in table.items()
        }


class TableOptions(NamedTuple):
    """The class options of a table, see `Table`."""

    name: str
    occurs: Occurs
    optional: bool | None

    @property
    def brackets(self) -> str:
        """The table's notation in a file: `[docker]`, `[[runners]]` or `[projects.NAME]`."""
        return {"once": "[{}]", "array": "[[{}]]", "named": "[{}.NAME]"}[self.occurs].format(self.name)


@cache
def options_of(table: type[Table]) -> TableOptions:
    """The class options of a table."""
    return table._table_options


@cache
def is_optional(table: type[Table]) -> bool:
    """Whether a host's settings hold None when the inventory has no such table."""
    given = table._table_options.optional
    return any(field.is_required() for field in table.model_fields.values()) if given is None else given


@cache
def fields_of(table: type[Table]) -> Mapping[str, FieldInfo]:
    """The fields of a table by their keys in the file."""
    return {field.alias or name: field for name, field in table.model_fields.items()}


@cache
def _arrays(table: type[Table]) -> frozenset[str]:
    return frozenset(key for key, field in fields_of(table).items() if _is_tuple(field.annotation))


def _is_tuple(annotation: Any) -> bool:
    return get_origin(annotation) is tuple or any(get_origin(one) is tuple for one in get_args(annotation))


class InvalidValue(ValueError):
    """A refused value. `at` is its key path below the checked table."""

    def __init__(self, text: str, *at: str | int) -> None:
        super().__init__(text)
        self.at: KeyPath = at


def describe(value: Any, path: KeyPath = ()) -> str:
    """A value for a message: its type and, unless it may be secret, its text."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        return "an array"
    if isinstance(value, SecretSource):
        return "a secret"
    kind = {str: "the string", bool: "the boolean", int: "the number", float: "the number"}.get(type(value), "")
    if any(isinstance(part, str) and is_secret_name(part) for part in path):
        return f"{kind or 'a value'} ***"
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
    text = mask(text)  # before it is cut: a password in a URL ends at an `@`
    text = text if len(text) <= 60 else text[:57] + "…"
    return f'{kind} "{text}"' if isinstance(value, str) else f"{kind} {text}".strip()


class InvalidValues(ValueError):
    """Several refused values of one table."""

    def __init__(self, problems: Sequence[InvalidValue]) -> None:
        super().__init__("; ".join(str(one) for one in problems))
        self.problems = problems


@dataclass(frozen=True)
class Subtable:
    """Marks a field of free keys: `key` in it is a table whose own keys may be env, file, command or prompt."""

    key: str


def check_different_names(table: str, names: Mapping[str | int, str]) -> None:
    """Refuses two tables of an array with the same name. Raises InvalidValue."""
    first: dict[str, str | int] = {}
    for place, name in names.items():
        if first.setdefault(name, place) != place:
            raise InvalidValue(f"{table}[{first[name]}] has the name {name!r}, too: names must differ", place, "name")


def check_each(values: Sequence[str], pattern: str, expected: str) -> None:
    """Refuses the first string of an array that the pattern does not match. Raises InvalidValue."""
    for place, text in enumerate(values):
        if not re.fullmatch(pattern, text):
            raise InvalidValue(f"expected {expected}, got {text!r}", place)


def _package_version(text: str | None) -> str | None:
    if text is not None and (text.startswith("-") or not re.fullmatch(r"[A-Za-z0-9.+:~*-]+", text)):
        raise ValueError(f'expected a package version such as "19.3.0" or "5:29.*", got {text!r}')
    return text


PackageVersion = Annotated[str | None, AfterValidator(_package_version)]
"""A package version, `*` allowed."""


def package_glob(version: str | None) -> str:
    """The package versions that match a program's version: `19.3.0` matches every revision, such as `19.3.0-1`."""
    if not version:
        return ""
    return version if any(one in version for one in "*?[") or "-" in version else f"{version}-*"


def local_file(path: Path, key: str) -> bytes:
    """The content of a file on this machine that the inventory names at `key`. Raises UsageError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{key}: {error}", hint="name a file on this machine that you may read") from error


def local_certificates(path: Path, key: str) -> bytes:
    """The certificates, in PEM, in a local file that the inventory names at `key`. Raises UsageError.

    A file that holds none would be installed without an error, and nothing would be trusted.
    """
    from provision.formats.x509 import check_certificates  # few inventories have a CA

    content = local_file(path, key)
    try:
        check_certificates(content)
    except Refused as error:
        raise UsageError(f"{key}: {path}: {error.text}", hint=error.hint) from error
    return content


def host_path(text: str) -> str:
    """An absolute path on the host. Raises ValueError."""
    if not text.startswith("/"):
        raise ValueError(f"expected an absolute path on the host, got {text!r}")
    return text


def plain_data(value: Any, *at: str | int) -> Any:
    """Checks free data: strings, numbers, booleans, arrays, tables and secrets, the types that JSON and Ruby have too.

    Raises InvalidValue for a date, a time, nan and inf.
    """
    if isinstance(value, dict):
        for key, one in value.items():
            plain_data(one, *at, key)
    elif isinstance(value, list):
        for place, one in enumerate(value):
            plain_data(one, *at, place)
    elif not isinstance(value, str | int | float | SecretSource) or not finite(value):
        raise InvalidValue(f"expected a string, number, boolean, array or table, got {value}", *at)
    return value


def finite(value: object) -> bool:
    """False for nan and inf."""
    return not isinstance(value, float) or math.isfinite(value)
