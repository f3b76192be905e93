"""The names that the command line accepts: shipped playbooks and tasks, and the user's own.

A user's `playbooks/` folder is beside the inventory or in the current folder. Each `.py` file in it may define a
playbook (`PLAYS`; its name is the file's name) and tasks (with `@task`). They replace shipped ones of the same name.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Final

from provision.errors import UsageError
from provision.places import shipped
from provision.tasks import SHIPPED
from provision.tasks.base import Play, Task, play


@dataclass(frozen=True)
class Playbook:
    """A named list of plays; `source` is its file."""

    name: str
    headline: str
    plays: tuple[Play, ...]
    source: Path


@dataclass
class Catalogue:
    """Playbooks and tasks by name."""

    playbooks: dict[str, Playbook] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)

    @classmethod
    def of(cls, folders: Iterable[Path]) -> Catalogue:
        """The shipped ones, then those of each folder. A later one replaces an earlier one with the same name."""
        catalogue = cls(tasks={one.name: one for one in SHIPPED})
        for folder in [shipped("playbooks"), *folders]:
            for path in sorted(folder.glob("*.py")):
                catalogue._add(path)
        return catalogue

    def plays(self, names: Sequence[str]) -> list[Play]:
        """The plays of these playbooks and tasks, in this order. Raises UsageError for an unknown name."""
        return [one for name in names for one in self._plays(name)]

    def _plays(self, name: str) -> tuple[Play, ...]:
        if name in self.playbooks:
            return self.playbooks[name].plays
        if name in self.tasks:
            one = self.tasks[name]
            return (play(one.on, one, serial=one.serial),)
        known = [*self.playbooks, *self.tasks]
        near = get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else "`provision list` shows all names"
        raise UsageError(f"no playbook or task is called {name!r}", hint=hint)

    def _add(self, path: Path) -> None:
        module = _load(path)
        for value in vars(module).values():
            if isinstance(value, Task) and value.function.__module__ == module.__name__:
                self.tasks[value.name] = value
                self.playbooks.pop(value.name, None)
        plays = getattr(module, "PLAYS", None)
        if plays is not None:
            if not isinstance(plays, list | tuple) or not all(isinstance(one, Play) for one in plays):
                raise UsageError(f"{path}: PLAYS is not a list of plays", hint='write PLAYS = [play("group", task, …)]')
            headline = inspect.cleandoc(module.__doc__ or "").partition("\n")[0]
            self.playbooks[path.stem] = Playbook(path.stem, headline, tuple(plays), path)


def folders_beside(inventories: Sequence[Path]) -> list[Path]:
    """The user's playbook folders: in the current folder, then beside each inventory."""
    candidates = [Path.cwd() / "playbooks", *(one.resolve().parent / "playbooks" for one in inventories)]
    shipped_folder = shipped("playbooks").resolve()
    return [one for one in dict.fromkeys(candidates) if one.is_dir() and one.resolve() != shipped_folder]


class _Finder(MetaPathFinder):
    """Finds playbook files under unique module names: two folders may contain files with the same name."""

    def __init__(self) -> None:
        self.files: dict[str, Path] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Called by the import system."""
        del path, target
        return spec_from_file_location(fullname, self.files[fullname]) if fullname in self.files else None


_FINDER: Final = _Finder()
sys.meta_path.append(_FINDER)


def _load(path: Path) -> ModuleType:
    name = f"provision_playbook_{path.stem}_{abs(hash(path.resolve()))}"
    _FINDER.files[name] = path
    try:
        return importlib.import_module(name)
    except UsageError:
        raise
    except Exception as error:
        line = _line_of(error, path)
        raise UsageError(f"{path}{line}: {type(error).__name__}: {error}", hint="fix the playbook file") from error


def _line_of(error: BaseException, path: Path) -> str:
    traceback, line = error.__traceback__, 0
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == str(path):
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    if isinstance(error, SyntaxError) and error.lineno and error.filename == str(path):
        line = error.lineno
    return f":{line}" if line else ""
