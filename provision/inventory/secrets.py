"""The sources of secrets. A secret is fetched once, when a selected task needs it.

| in the inventory                          | the secret is                                          |
|-------------------------------------------|--------------------------------------------------------|
| `{ env = "NAME" }`                        | that environment variable                              |
| `{ file = "path" }`                       | that file's text, without the line break at its end    |
| `{ command = ["pass", "show", "x"] }`     | its output, without the line break at its end          |
| `{ prompt = "Password for …" }`           | typed by the user, once for equal prompts              |
| `"text"`                                  | the text itself                                        |

"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, NoReturn

from provision.errors import InventoryError, UsageError
from provision.inventory.tree import KeyPath, dotted, line_in
from provision.masking import SHORTEST
from provision.secret import MASK, Secret, mask

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic_core import CoreSchema

SCHEMA: Final[dict[str, Any]] = {
    "title": "Secret",
    "description": "A secret: an environment variable, a file, a command's output, a prompt, or the text itself.",
    "oneOf": [
        {"type": "string"},
        *(
            {"type": "object", "properties": {kind: value}, "required": [kind], "additionalProperties": False}
            for kind, value in {
                "env": {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
                "file": {"type": "string", "minLength": 1},
                "command": {"type": "array", "items": {"type": "string"}, "minItems": 1},
                "prompt": {"type": "string", "minLength": 1},
            }.items()
        ),
    ],
}


Kind = Literal["env", "file", "command", "prompt", "plain"]
KINDS: Final[tuple[Kind, ...]] = ("env", "file", "command", "prompt")
EXPECTED: Final = 'a secret: { env = "NAME" }, { file = "path" }, { command = ["…"] }, { prompt = "…" } or a string'
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Origin(NamedTuple):
    """The place that names a secret: for messages, and as the base of relative paths."""

    file: str = ""  # the inventory file, or `--set`
    key: KeyPath = ()
    base: Path = Path()


class SecretSource:
    """One secret of the inventory, fetched by `resolve()`. It prints as its source, never as its text."""

    __slots__ = ("_lock", "_secret", "kind", "origin", "value")

    def __init__(self, kind: Kind, value: str | tuple[str, ...] | Secret, origin: Origin | None = None) -> None:
        self.kind = kind
        self.value = value
        self.origin = origin or Origin()
        self._secret = value if isinstance(value, Secret) else None
        self._lock = threading.Lock()

    @classmethod
    def plain(cls, text: str, origin: Origin | None = None) -> SecretSource:
        """A secret whose text is in the inventory itself."""
        return cls("plain", Secret(text), origin)

    def resolve(self) -> Secret:
        """The secret, fetched at the first call and kept.

        Raises InventoryError, which names file, line and key, if it cannot be fetched.
        """
        with self._lock:
            if self._secret is None:
                missing = _missing.get()
                self._secret = missing.fetch(self) if missing else fetch(self)
            if self._secret is None:
                return Secret("")
            if 0 < len(self._secret.reveal()) < SHORTEST:
                _too_short.add(self.origin)
            return self._secret

    @property
    def is_fetched(self) -> bool:
        """Whether the secret was fetched because a task of this run needed it, or was supplied."""
        return self._secret is not None

    @property
    def path(self) -> Path:
        """The file of a secret of the kind "file"."""
        return self.origin.base / Path(str(self.value)).expanduser()

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
        return SCHEMA

    @classmethod
    def _validate(cls, value: object) -> SecretSource:
        found = as_secret(value, Origin())
        if found is None:
            raise ValueError(f"expected {EXPECTED}")
        return found


def as_secret(value: object, origin: Origin) -> SecretSource | None:
    """The secret that a TOML value names, or None. A string is the secret itself."""
    if isinstance(value, SecretSource):
        return value
    if isinstance(value, str):
        return SecretSource.plain(value, origin)
    return as_source(value, origin) if isinstance(value, dict) else None


def as_source(table: dict[str, Any], origin: Origin) -> SecretSource | None:
    """The secret that a table names: exactly one of the four keys, with a value of that key's type. Else None."""
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


@dataclass
class _Missing:
    """Secrets that cannot be fetched. `count`: how often one of them was needed."""

    errors: dict[SecretSource, InventoryError] = field(default_factory=dict)
    count: int = 0

    def fetch(self, source: SecretSource) -> Secret | None:
        """The secret, or None if it cannot be fetched. After a first error there is no prompt: the run cannot start."""
        if source not in self.errors and not (self.errors and source.kind == "prompt"):
            try:
                return fetch(source)
            except InventoryError as error:
                self.errors[source] = error
        self.count += 1
        return None


_missing: ContextVar[_Missing | None] = ContextVar("missing", default=None)


@contextmanager
def missing_secrets() -> Iterator[list[UsageError]]:
    """Collects secrets that cannot be fetched, so that all of them are reported at once.

    Inside, `resolve` returns an empty secret for them. The list is filled at the end.
    """
    errors: list[UsageError] = []
    found = _Missing()
    token = _missing.set(found)
    try:
        yield errors
    finally:
        _missing.reset(token)
        errors += found.errors.values()


def missing_count() -> int:
    """How often a secret was needed, so far in this `missing_secrets`, that cannot be fetched."""
    found = _missing.get()
    return found.count if found else 0


Supplied = Callable[[SecretSource], Secret | None]
_supplied: ContextVar[Supplied | None] = ContextVar("supplied", default=None)


@contextmanager
def supplied(supply: Supplied) -> Iterator[None]:
    """Inside this context, `supply` gives the secrets. If it returns None, the secret's own source is used."""
    token = _supplied.set(supply)
    try:
        yield
    finally:
        _supplied.reset(token)


_too_short: set[Origin] = set()


def too_short() -> list[str]:
    """Messages about the secrets that were needed and are too short to be masked in output."""
    return [
        f"{_place(one)}: a secret of fewer than {SHORTEST} characters is not masked in output; use a longer one"
        for one in sorted(_too_short, key=lambda one: (one.file, dotted(one.key)))
    ]


def _place(origin: Origin) -> str:
    line = line_in(origin.file, origin.key)
    return ": ".join(part for part in (f"{origin.file}:{line}" if line else origin.file, dotted(origin.key)) if part)


COMMAND_SECONDS = 300  # a password manager may wait for the user
_answers: dict[str, Secret] = {}  # by prompt
_prompting = threading.Lock()


def fetch(source: SecretSource) -> Secret:
    """The secret that `source` names. Raises InventoryError, naming its place, if it cannot be fetched."""
    value = source.value
    if isinstance(value, Secret):
        return value
    supply = _supplied.get()
    if supply is not None and (given := supply(source)) is not None:
        return given
    if isinstance(value, tuple):
        return Secret(_command(value, source.origin))
    if source.kind == "env":
        return Secret(_env(value, source.origin))
    if source.kind == "file":
        return Secret(_file(source.path, source.origin))
    return _prompt(value, source.origin)


def _env(name: str, origin: Origin) -> str:
    text = os.environ.get(name, "")
    if not text:
        state = "is empty" if name in os.environ else "is not set"
        _fail(origin, f"the environment variable {name} {state}", f"set it: export {name}=…")
    return text


def _file(path: Path, origin: Origin) -> str:
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        _fail(origin, f"{path} cannot be read: {error.strerror or error}", "write the secret into that file, mode 0600")
    except UnicodeDecodeError:
        _fail(origin, f"{path} is not UTF-8 text", "store the secret as text")
    return _not_empty(text, origin, str(path))


def _command(words: tuple[str, ...], origin: Origin) -> str:
    import subprocess  # slow to import; only inventories with commands need it

    try:
        done = subprocess.run(
            words, cwd=origin.base, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        _fail(
            origin, f"{words[0]} gave no answer in {COMMAND_SECONDS} s", "run it in a terminal to see what it waits for"
        )
    except OSError as error:
        _fail(origin, f"{words[0]} cannot be run: {error.strerror or error}", "install it, or name its full path")
    if done.returncode:
        output = mask(done.stderr.decode("utf-8", "replace").strip())[-400:]
        _fail(origin, f"{words[0]} failed with exit code {done.returncode}" + (f": {output}" if output else ""), "")
    return _not_empty(done.stdout.decode("utf-8", "replace"), origin, f"the output of {words[0]}")


def _prompt(text: str, origin: Origin) -> Secret:
    with _prompting:  # several hosts may need the same answer at the same time: it is asked once
        if text not in _answers:
            typed = typed_on_terminal(text)
            if typed is None:
                _fail(
                    origin,
                    f"no terminal to prompt for {text!r}",
                    "use { env = … }, { file = … } or { command = … } instead",
                )
            if not typed:
                _fail(origin, f"{text!r}: nothing was typed", "rerun the command and type the secret")
            _answers[text] = Secret(typed)
        return _answers[text]


def typed_on_terminal(text: str) -> str | None:
    """The line that the user types after a prompt, without echo; None when there is no terminal."""
    import getpass  # few inventories have prompts

    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return None
    try:
        return getpass.getpass(text.rstrip(": ") + ": ")
    except EOFError:
        return ""


def _not_empty(text: str, origin: Origin, what: str) -> str:
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        _fail(origin, f"{what} is empty", "write the secret there")
    return text


def _fail(origin: Origin, text: str, hint: str) -> NoReturn:
    place = _place(origin)
    # `from None`: the cause may contain a program's output
    raise InventoryError(f"{place}: {text}" if place else text, hint=hint or "run it by hand to see why") from None
