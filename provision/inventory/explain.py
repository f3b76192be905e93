"""pydantic's findings in this project's words: what is expected, what stands there, the nearest known key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, get_args, get_origin

from provision.inventory.keys import KeyPath
from provision.inventory.models.base import Table, Wrong
from provision.inventory.nearest import did_you_mean
from provision.inventory.problems import Problem
from provision.inventory.values import shown

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_EXPECTED = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "an array",
    "list_type": "an array",
    "dict_type": "a table",
    "model_type": "a table",
    "path_type": "a path as a string",
    "is_instance_of": "a path as a string",
}
_LIMITS = {"greater_than_equal": "at least {ge}", "greater_than": "more than {gt}", "less_than_equal": "at most {le}"}


def problems_in(
    error: ValidationError,
    model: type[Table],
    paths: Callable[[KeyPath], tuple[KeyPath, ...]],
    also: tuple[str, ...] = (),
) -> Iterator[Problem]:
    """One problem for each finding. `paths(loc)` are the places that may have brought it; `also`: more known keys."""
    for found in error.errors(include_url=False):
        loc: KeyPath = tuple(found["loc"])
        cause = found.get("ctx", {}).get("error")
        if isinstance(cause, Wrong):
            loc += cause.at
        if _names_a_branch(loc, model):
            yield Problem(paths(loc[:-1]), f"expected a string or a whole number, got {shown(found['input'], loc)}")
        else:
            yield Problem(paths(loc), _text(found, loc, model, also))


def _text(found: ErrorDetails, loc: KeyPath, model: type[Table], also: tuple[str, ...]) -> str:
    kind, context = found["type"], found.get("ctx", {})
    if kind == "extra_forbidden":
        # a key may be known elsewhere: `groups` of a host, say, is none of a group
        known = {*_known(model, loc[:-1]), *(also if len(loc) == 1 else ())} - {loc[-1]}
        return "unknown key" + did_you_mean(str(loc[-1]), known)
    if kind == "missing":
        return "is missing, and must be given"
    if kind == "value_error":
        return str(context["error"])
    got = f"got {shown(found['input'], loc)}"
    if kind == "literal_error":
        return f"expected {context['expected']}, {got}"
    if kind in _LIMITS:
        return f"expected {_LIMITS[kind].format(**context)}, {got}"
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, {got}"
    return f"{found['msg']}, {got}"


def _known(model: type[Table], loc: KeyPath) -> set[str]:
    """The keys of the table at `loc`."""
    table = _table_at(model, loc)
    return {field.alias or name for name, field in table.model_fields.items()} if table else set()


def _table_at(model: type[Table], loc: KeyPath) -> type[Table] | None:
    table: type[Table] | None = model
    names = iter(part for part in loc if isinstance(part, str))
    for part in names:
        field = table.model_fields.get(part) if table else None
        table = next(tables_in(field.annotation), None) if field else None
        if field is not None and get_origin(field.annotation) is dict:
            next(names, None)  # a table of tables: the next key is a name
    return table


def tables_in(annotation: Any) -> Iterator[type[Table]]:
    """The tables that a field may hold: `Registry | None` and `tuple[Runner, …]` hold one each."""
    if isinstance(annotation, type) and issubclass(annotation, Table):
        yield annotation
    for one in get_args(annotation):
        yield from tables_in(one)


def _names_a_branch(loc: KeyPath, model: type[Table]) -> bool:
    """pydantic puts the branch of a union (`int`, `str`) behind its key: that is no key of the file."""
    return len(loc) > 1 and loc[-1] in ("int", "str") and _table_at(model, loc[:-1]) is None
