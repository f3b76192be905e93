"""Where a secret comes from. It is fetched when a chosen task needs it, once, and not before.

| in the inventory                          | the secret is                                          |
|-------------------------------------------|--------------------------------------------------------|
| `{ env = "NAME" }`                        | that environment variable                              |
| `{ file = "path" }`                       | that file's text, without the line break at its end    |
| `{ command = ["pass", "show", "x"] }`     | what it prints, without the line break at its end      |
| `{ prompt = "Password for …" }`           | what is typed, asked once for equal prompts            |
| `"text"`                                  | the text itself                                        |
"""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from provision.inventory import fetch
from provision.inventory.keys import KeyPath
from provision.secret import MASK, Secret
from provision.values import dataclass

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic_core import CoreSchema

Kind = Literal["env", "file", "command", "prompt", "plain"]
KINDS: Final[tuple[Kind, ...]] = ("env", "file", "command", "prompt")
EXPECTED: Final = 'a secret: { env = "NAME" }, { file = "path" }, { command = ["…"] }, { prompt = "…" } or a string'
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Origin:
    """The place that names a secret: for messages, and for what its relative paths mean."""

    file: str = ""  # the inventory file, or `--set`
    key: KeyPath = ()
    base: Path = Path()


class SecretSource:
    """One secret of the inventory, fetched by `resolve()`. Prints as where it comes from, never as what it is."""

    __slots__ = ("_lock", "_secret", "kind", "origin", "value")

    def __init__(self, kind: Kind, value: str | tuple[str, ...] | Secret, origin: Origin | None = None) -> None:
        self.kind = kind
        self.value = value
        self.origin = origin or Origin()
        self._secret = value if isinstance(value, Secret) else None
        self._lock = threading.Lock()

    @classmethod
    def plain(cls, text: str, origin: Origin | None = None) -> SecretSource:
        """A secret that stands in the inventory itself."""
        return cls("plain", Secret(text), origin)

    def resolve(self) -> Secret:
        """The secret, fetched at the first call and kept.

        Raises InventoryError, which names file, line and key, when it cannot be had.
        """
        with self._lock:
            if self._secret is None:
                self._secret = fetch.fetch(self)
            return self._secret

    def __repr__(self) -> str:
        if isinstance(self.value, tuple):
            return f"{MASK} (command {self.value[0]})"
        return MASK if isinstance(self.value, Secret) else f"{MASK} ({self.kind} {self.value})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretSource) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[object, ...]:
        return self.kind, self.value, self.origin.base if self.kind in ("file", "command") else None

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(cls._validate)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        from provision.inventory.json_schema import SECRET

        return SECRET

    @classmethod
    def _validate(cls, value: object) -> SecretSource:
        found = as_secret(value, Origin())
        if found is None:
            raise ValueError(f"expected {EXPECTED}")
        return found


def as_secret(value: object, origin: Origin) -> SecretSource | None:
    """The secret that a TOML value names, or None when it is none. A string is taken as the secret itself."""
    if isinstance(value, SecretSource):
        return value
    if isinstance(value, str):
        return SecretSource.plain(value, origin)
    return as_source(value, origin) if isinstance(value, dict) else None


def as_source(table: dict[str, Any], origin: Origin) -> SecretSource | None:
    """The secret that a table names: exactly one of the four keys, with a value of its type. Else None."""
    if len(table) != 1:
        return None
    ((kind, value),) = table.items()
    if kind == "command" and isinstance(value, list) and value and all(isinstance(word, str) for word in value):
        return SecretSource("command", tuple(value), origin)
    if kind == "env" and isinstance(value, str) and _ENV_NAME.fullmatch(value):
        return SecretSource("env", value, origin)
    if kind == "file" and isinstance(value, str) and value:
        return SecretSource("file", value, origin)
    if kind == "prompt" and isinstance(value, str) and value:
        return SecretSource("prompt", value, origin)
    return None


def resolve(tree: Any) -> Any:
    """The same nested tables and arrays with every SecretSource replaced by its Secret."""
    if isinstance(tree, SecretSource):
        return tree.resolve()
    if isinstance(tree, dict):
        return {key: resolve(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(resolve(value) for value in tree)
    return tree
