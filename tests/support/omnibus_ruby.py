"""Real Ruby for tests: one process that reads gitlab.rb texts as omnibus does (omnibus_eval.rb)."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from provision.editing.ruby.assignments import effective
from provision.editing.ruby.edit import edit
from provision.editing.ruby.values import Path as Setting

RUBY = shutil.which("ruby")


class RubyError(Exception):
    """Ruby does not accept the text."""


class Symbol(str):
    """A Ruby symbol."""

    __slots__ = ()


class Omnibus:
    """Evaluates one text after the other in the same process."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("omnibus_eval.rb")
        self._process = subprocess.Popen([str(RUBY), str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def close(self) -> None:
        self._process.communicate()

    def evaluate(self, text: bytes) -> dict[str, Any]:
        """Return the settings after Ruby has run the text. Raises RubyError with Ruby's message."""
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        assert pipe_in is not None
        assert pipe_out is not None
        pipe_in.write(json.dumps({"text": base64.b64encode(text).decode()}).encode() + b"\n")
        pipe_in.flush()
        answer = json.loads(pipe_out.readline())
        if "error" in answer:
            raise RubyError(answer["error"])
        return {name: _value(value) for name, value in answer["ok"].items()}


def _value(coded: Any) -> Any:
    if not isinstance(coded, dict):
        return coded
    ((kind, value),) = coded.items()
    match kind:
        case "hash":
            return {key: _value(item) for key, item in value}
        case "array":
            return [_value(item) for item in value]
        case "integer":
            return int(value)
        case "float":
            return float(value)
        case "symbol":
            return Symbol(value)
        case "string":
            return value
    return (kind, value)  # bytes that are no text, objects


def at(tree: Any, path: tuple[str, ...]) -> Any:
    """What stands at `path`; KeyError when nothing does."""
    for key in path:
        tree = tree[key]
    return tree


def leaves(tree: dict[str, Any], *, without: list[tuple[str, ...]], under: tuple[str, ...] = ()) -> dict[Any, str]:
    """Every value that is not a hash, by its path, without those at or under the `without` paths; see `typed`."""
    found: dict[Any, str] = {}
    for key, value in tree.items():
        path = (*under, key)
        if path in without:
            continue
        if isinstance(value, dict):
            found |= leaves(value, without=without, under=path)
        else:
            found[path] = typed(value)
    return found


def typed(value: Any) -> str:
    """A text in which 1, 1.0 and true differ and the order of keys does not count."""
    if isinstance(value, dict):
        return "{" + ",".join(sorted(f"{key!r}:{typed(item)}" for key, item in value.items())) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(typed, value)) + "]"
    return f"{type(value).__name__}:{value!r}"


def check_edit(
    omnibus: Omnibus, before: bytes, after: bytes, wanted: dict[Setting, Any], remove: Sequence[Setting] = ()
) -> None:
    """Ruby reads the wanted values in `after` and no other change, and the same edit again changes nothing."""
    old = omnibus.evaluate(before)
    try:
        new = omnibus.evaluate(after)
    except RubyError as error:
        raise AssertionError(f"{after!r} is no Ruby any more: {error}") from error
    for path, value in wanted.items():
        assert typed(at(new, path)) == typed(value), after
        assert typed(effective(after, path)) == typed(value), after
    ours = [*wanted, *remove]
    assert leaves(new, without=ours) == leaves(old, without=ours), after
    again = edit(after, wanted, remove)
    assert again.content == after
    assert again.changes == []
