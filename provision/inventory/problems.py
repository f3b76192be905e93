"""The problems of an inventory: one message for each, with its place; all are reported at once, in file order.

pydantic's errors are translated: the expected value, the value in the file, the nearest known key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, get_args, get_origin

from provision.errors import InventoryError, did_you_mean
from provision.inventory.tables.base import InvalidValue, InvalidValues, Table, describe, fields_of
from provision.inventory.tree import KeyPath, dotted, lines_of

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails


MOST_SHOWN = 50
SET = "--set"


class Problem(NamedTuple):
    """One problem. `text` describes the expected value and the value in the file.

    `paths` are the key paths that may have set it, the strongest first (host, groups, top level).
    """

    paths: tuple[KeyPath, ...]
    text: str


class Source(NamedTuple):
    """One layer of input: a file (`name` is its path as given) or the command line's `--set`."""

    name: str
    tree: dict[str, Any]
    text: str = ""  # a file's text, to find lines in


def refuse(problems: Iterable[Problem], sources: Sequence[Source], unreadable: Sequence[str] = ()) -> None:
    """Raises one InventoryError with all problems (the first fifty), if there is any. `sources`: the weakest first."""
    found = list(problems)
    if not found and not unreadable:
        return
    finder = _Finder(sources)
    placed = sorted({(*finder.place(problem), problem.text) for problem in found})
    # Problems of a file that could not be read come first: others may follow from them.
    lines = [*unreadable, *(_line(sources[rank].name, line, path, text) for rank, line, path, text in placed)]
    if len(lines) > MOST_SHOWN:
        lines[MOST_SHOWN:] = [f"… and {len(lines) - MOST_SHOWN} more"]
    hint = "correct it and rerun the command" if len(lines) == 1 else "correct these and rerun the command"
    raise InventoryError("\n".join(lines), hint=f"{hint}; `provision init` writes an example with every key")


def _line(name: str, line: int, path: str, text: str) -> str:
    place = f"{name}:{line}" if line else name
    if name == SET and text.startswith("expected a string, got the number"):
        text += f""" (put it in quotes: --set '{path}="…"')"""
    return f"{place}: {path}: {text}" if path else f"{place}: {text}"


class _Finder:
    """Finds the place of a problem in the files."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources
        self.lines = [lines_of(source.text) if source.text else _paths(source.tree) for source in sources]

    def place(self, problem: Problem) -> tuple[int, int, str]:
        """Source number, line and dotted key of the key, or of the table that lacks it."""
        ranks = [rank for rank, source in enumerate(self.sources) if source.name == SET]
        ranks_of_files = [rank for rank in reversed(range(len(self.sources))) if rank not in ranks]
        own = problem.paths[0] if problem.paths else ()
        for depth in range(max(map(len, problem.paths), default=0)):
            for group in (ranks, ranks_of_files):
                for path in problem.paths:
                    there = path[: len(path) - depth]
                    for rank in group if there else ():
                        if there in self.lines[rank]:
                            return rank, self.lines[rank][there], dotted(path)
        last = ranks_of_files[0] if ranks_of_files else 0
        return last, 0, dotted(problem.paths[-1] if problem.paths else own)


def _paths(tree: Any, path: KeyPath = ()) -> dict[KeyPath, int]:
    """The key paths of a tree without lines."""
    found: dict[KeyPath, int] = {path: 0} if path else {}
    if isinstance(tree, dict):
        for key, value in tree.items():
            found |= _paths(value, (*path, key))
    elif isinstance(tree, list):
        for place, value in enumerate(tree):
            found |= _paths(value, (*path, place))
    return found


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
_LIMITS |= {
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
}


def problems_in(
    error: ValidationError, table: type[Table], paths: Callable[[KeyPath], tuple[KeyPath, ...]]
) -> Iterator[Problem]:
    """One problem for each finding. `paths(path)`: the places that may have set the value at a path below the table."""
    for found in error.errors(include_url=False):
        path: KeyPath = tuple(found["loc"])
        cause = found.get("ctx", {}).get("error")
        if isinstance(cause, InvalidValues):
            yield from (Problem(paths((*path, *one.at)), str(one)) for one in cause.problems)
            continue
        if isinstance(cause, InvalidValue):
            path += cause.at
        if _names_a_branch(path, table):
            yield Problem(
                paths(path[:-1]), f"expected a string or a whole number, got {describe(found['input'], path)}"
            )
        else:
            yield Problem(paths(path), _text(found, path, table))


def _text(found: ErrorDetails, path: KeyPath, table: type[Table]) -> str:
    kind, context = found["type"], found.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key{did_you_mean(str(path[-1]), _known(table, path[:-1]) - {str(path[-1])})}"
    if kind == "missing":
        return "is missing, and has no default"
    if kind == "value_error":
        return str(context["error"])
    got = f"got {describe(found['input'], path)}"
    if kind == "literal_error":
        return f"expected {context['expected']}, {got}"
    if kind in _LIMITS:
        return f"expected {_LIMITS[kind].format(**context)}, {got}"
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, {got}"
    return f"{found['msg']}, {got}"


def _known(table: type[Table], path: KeyPath) -> set[str]:
    """The keys of the table at a path below `table`."""
    found = _table_at(table, path)
    return set(fields_of(found)) if found else set()


def _table_at(table: type[Table], path: KeyPath) -> type[Table] | None:
    found: type[Table] | None = table
    names = iter(part for part in path if isinstance(part, str))
    for part in names:
        field = fields_of(found).get(part) if found else None
        found = next(tables_in(field.annotation), None) if field else None
        if field is not None and get_origin(field.annotation) is dict:
            next(names, None)  # a table of tables: the next key is a name
    return found


def tables_in(annotation: Any) -> Iterator[type[Table]]:
    """The tables that a field may hold: `Registry | None` and `tuple[Runner, …]` hold one each."""
    if isinstance(annotation, type) and issubclass(annotation, Table):
        yield annotation
    for one in get_args(annotation):
        yield from tables_in(one)


def _names_a_branch(path: KeyPath, table: type[Table]) -> bool:
    """pydantic appends the branch of a union (`int`, `str`) to the path: which is not a key in the file."""
    return len(path) > 1 and path[-1] in ("int", "str") and _table_at(table, path[:-1]) is None
