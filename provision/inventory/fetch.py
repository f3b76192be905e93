"""Fetching a secret: from the environment, a file, a command, or whoever sits at the terminal."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from provision.errors import InventoryError
from provision.inventory.keys import dotted
from provision.secret import Secret, mask

if TYPE_CHECKING:
    from provision.inventory.secrets import Origin, SecretSource

COMMAND_SECONDS = 300  # a password manager may itself wait for a person
_answers: dict[str, Secret] = {}
_asking = threading.Lock()
_ask: Callable[[str], str] | None = None


def use_prompter(ask: Callable[[str], str] | None) -> None:
    """Has prompts answered by `ask(text)` (a live display must step aside first); None: the terminal again."""
    global _ask
    with _asking:
        _ask = ask
        _answers.clear()


def fetch(source: SecretSource) -> Secret:
    """The secret that `source` names. Raises InventoryError, naming its place, when it cannot be had."""
    value = source.value
    if isinstance(value, Secret):
        return value
    if isinstance(value, tuple):
        return Secret(_command(value, source.origin))
    if source.kind == "env":
        return Secret(_env(value, source.origin))
    if source.kind == "file":
        return Secret(_file(value, source.origin))
    return _prompt(value, source.origin)


def _env(name: str, origin: Origin) -> str:
    text = os.environ.get(name, "")
    if not text:
        state = "is empty" if name in os.environ else "is not set"
        _fail(origin, f"the environment variable {name} {state}", f"set it: export {name}=…")
    return text


def _file(name: str, origin: Origin) -> str:
    path = origin.base / Path(name).expanduser()
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        _fail(origin, f"{path} cannot be read: {error.strerror or error}", "write the secret into that file, mode 0600")
    except UnicodeDecodeError:
        _fail(origin, f"{path} is no text in UTF-8", "store the secret as text")
    return _not_empty(text, origin, str(path))


def _command(words: tuple[str, ...], origin: Origin) -> str:
    import subprocess  # only inventories with commands pay for it

    try:
        done = subprocess.run(
            words, cwd=origin.base, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        _fail(origin, f"{words[0]} gave no answer in {COMMAND_SECONDS} s", "run it by hand to see what it waits for")
    except OSError as error:
        _fail(origin, f"{words[0]} cannot be run: {error.strerror or error}", "install it, or name its full path")
    if done.returncode:
        said = mask(done.stderr.decode("utf-8", "replace").strip()[-400:])
        _fail(origin, f"{words[0]} failed with exit code {done.returncode}" + (f": {said}" if said else ""), "")
    return _not_empty(done.stdout.decode("utf-8", "replace"), origin, f"what {words[0]} printed")


def _prompt(text: str, origin: Origin) -> Secret:
    with _asking:  # several hosts may need the same answer at once: one question
        if text not in _answers:
            typed = (_ask or _terminal)(text) if _ask or _has_terminal() else None
            if typed is None:
                _fail(
                    origin, f"no terminal to ask {text!r} on", "use { env = … }, { file = … } or { command = … } here"
                )
            if not typed:
                _fail(origin, f"{text!r}: nothing was typed", "run again and type the secret")
            _answers[text] = Secret(typed)
        return _answers[text]


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _terminal(text: str) -> str | None:
    import getpass  # only inventories with prompts pay for it

    try:
        return getpass.getpass(text.rstrip(": ") + ": ")
    except EOFError:
        return ""


def _not_empty(text: str, origin: Origin, what: str) -> str:
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        _fail(origin, f"{what} is empty", "put the secret there")
    return text


def _fail(origin: Origin, text: str, hint: str) -> NoReturn:
    from provision.inventory.problems import line_in

    line = line_in(origin.file, origin.key)
    place = ": ".join(part for part in (f"{origin.file}:{line}" if line else origin.file, dotted(origin.key)) if part)
    # `from None`: the cause may hold a program's output
    raise InventoryError(f"{place}: {text}" if place else text, hint=hint or "run it by hand to see why") from None
