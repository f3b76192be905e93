"""What is wrong with an inventory, with its places; all of it is told at once, in file order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from provision.errors import InventoryError
from provision.inventory.keys import KeyPath, dotted
from provision.inventory.lines import lines_of
from provision.values import dataclass

MOST = 10
SET = "--set"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: `text` says what is expected and what stands there.

    `paths` are the key paths that could have brought it, the strongest first (host, groups, top level).
    """

    paths: tuple[KeyPath, ...]
    text: str


@dataclass(frozen=True)
class Source:
    """One layer of input: a file (`name` is its path as given) or the command line's `--set`."""

    name: str
    tree: dict[str, Any]
    text: str = ""  # a file's text, to find lines in


def refuse(problems: Iterable[Problem], sources: Sequence[Source]) -> None:
    """Raises one InventoryError with all problems (the first ten), if there is any. `sources`: the weakest first."""
    finder = _Finder(sources)
    placed = sorted({(*finder.place(problem), problem.text) for problem in problems})
    if not placed:
        return
    lines = [_line(sources[rank].name, line, path, text) for rank, line, path, text in placed]
    if len(lines) > MOST:
        lines[MOST:] = [f"… and {len(lines) - MOST} more"]
    hint = "correct it and run again" if len(placed) == 1 else "correct these and run again"
    raise InventoryError("\n".join(lines), hint=f"{hint}; `provision init` writes an example with every key")


def line_in(file: str, path: KeyPath) -> int:
    """The line of a key in a file, or 0 when it cannot be told."""
    try:
        return lines_of(Path(file).read_text("utf-8")).get(path, 0)
    except (OSError, ValueError):  # no file (`--set`), or no longer the one that was read: the key alone must do
        return 0


def _line(name: str, line: int, path: str, text: str) -> str:
    place = f"{name}:{line}" if line else name
    if name == SET and text.startswith("expected a string, got the number"):
        text += f""" (in quotes it is one: --set '{path}="…"')"""
    return f"{place}: {path}: {text}" if path else f"{place}: {text}"


class _Finder:
    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources
        self.lines = [lines_of(source.text) if source.text else _paths(source.tree) for source in sources]

    def place(self, problem: Problem) -> tuple[int, int, str]:
        """Source number, line and dotted key: of the key itself, else of the table that it is missing from."""
        ranks = [rank for rank, source in enumerate(self.sources) if source.name == SET]
        ranks_of_files = [rank for rank in reversed(range(len(self.sources))) if rank not in ranks]
        own = problem.paths[0] if problem.paths else ()
        for depth in range(max(map(len, problem.paths), default=0)):
            for group in (ranks, ranks_of_files):
                for path in problem.paths:
                    shown = path[: len(path) - depth]
                    for rank in group if shown else ():
                        if shown in self.lines[rank]:
                            return rank, self.lines[rank][shown], dotted(path)
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
