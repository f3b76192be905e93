"""What can be named on the command line: playbooks and tasks, and the tables that the tasks read.

They come from three places; a later one wins over an earlier one with the same name:

1. the tasks and playbooks that ship with the program
2. tasks of other distributions, by the entry point group `provision.tasks`
3. the user's own: each `.py` file in the folder `playbooks/`, under the current folder or beside the inventory, may
   define tasks (with `@task`) and a playbook (`PLAYS`; its name is the file's)
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import entry_points
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Final

from provision.errors import UsageError, nearest
from provision.inventory import Inventory, Table, Tables, load
from provision.inventory.tables.host import Ssh
from provision.tasks import SHIPPED
from provision.tasks.base import Play, Task, line_of, play
from provision.templating import shipped

ENTRY_POINTS: Final = "provision.tasks"  # each entry point is a Task


@dataclass(frozen=True)
class Playbook:
    """A list of plays with a name."""

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
    def of(cls, folders: Iterable[Path] = ()) -> Catalogue:
        """The shipped ones, those of other distributions, then those of each folder; later ones win.

        Raises UsageError for a file or a distribution that cannot be loaded, naming it.
        """
        catalogue = cls(tasks={one.name: one for one in SHIPPED} | _tasks_of_distributions())
        for folder in [shipped("playbooks"), *folders]:
            for path in sorted(folder.glob("*.py")):
                catalogue._add(path)
        return catalogue

    @classmethod
    def beside(cls, inventories: Sequence[Path]) -> Catalogue:
        """With the playbook folders of these inventories and of the current folder."""
        return cls.of(folders_beside(inventories))

    @property
    def tables(self) -> Tables:
        """The tables that an inventory may have. Raises UsageError for two different tables with one name."""
        tasks = [
            *self.tasks.values(),
            *(one for book in self.playbooks.values() for p in book.plays for one in p.tasks),
        ]
        found: list[type[Table]] = [Ssh]
        found += [table for one in tasks for table in one.tables]
        return Tables(dict.fromkeys(found))

    def load(self, inventories: Sequence[Path], overrides: Sequence[str] = ()) -> Inventory:
        """The inventory in these files, see `provision.inventory.load`."""
        return load(inventories, overrides, self.tables)

    def plays(self, names: Sequence[str]) -> list[Play]:
        """The plays of these names, in the order given. Raises UsageError for an unknown name."""
        return [one for name in names for one in self._plays(name)]

    def _plays(self, name: str) -> tuple[Play, ...]:
        if name in self.playbooks:
            return self.playbooks[name].plays
        if name in self.tasks:
            one = self.tasks[name]
            return (play(one.on, one, serial=one.serial),)
        near = nearest(name, [*self.playbooks, *self.tasks])
        hint = f"did you mean {near!r}?" if near else "`provision list` prints all names"
        raise UsageError(f"no playbook or task has the name {name!r}", hint=hint)

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
            if wrong := [task for one in plays for task in one.tasks if not isinstance(task, Task)]:
                raise UsageError(
                    f"{path}: PLAYS: {wrong[0]!r} is not a task", hint='name tasks, as in play("all", docker)'
                )
            headline = inspect.cleandoc(module.__doc__ or "").partition("\n")[0]
            self.playbooks[path.stem] = Playbook(path.stem, headline, tuple(plays), path)


def load_inventory(inventories: Sequence[Path], overrides: Sequence[str] = ()) -> Inventory:
    """The inventory in these files, with the tables of the shipped tasks and of the playbooks beside it."""
    return Catalogue.beside(inventories).load(inventories, overrides)


def folders_beside(inventories: Sequence[Path]) -> list[Path]:
    """The user's playbook folders: in the current folder, then beside each inventory."""
    candidates = [Path.cwd() / "playbooks", *(one.resolve().parent / "playbooks" for one in inventories)]
    shipped_folder = shipped("playbooks").resolve()
    return [one for one in dict.fromkeys(candidates) if one.is_dir() and one.resolve() != shipped_folder]


def _tasks_of_distributions() -> dict[str, Task]:
    found: dict[str, Task] = {}
    for point in entry_points(group=ENTRY_POINTS):
        what = f"the task {point.name} of the distribution {point.dist.name if point.dist else point.value}"
        try:
            loaded = point.load()
        except Exception as error:
            raise UsageError(
                f"{what} cannot be loaded: {type(error).__name__}: {error}", hint="update or uninstall it"
            ) from error
        if not isinstance(loaded, Task):
            raise UsageError(f"{what}: {point.value} is not a task", hint="make it one with @task, or uninstall it")
        found[loaded.name] = loaded
    return found


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
    """`:LINE` of the file's own code that raised the error."""
    line = line_of(error, str(path))
    if isinstance(error, SyntaxError) and error.lineno and error.filename == str(path):
        line = error.lineno
    return f":{line}" if line else ""
