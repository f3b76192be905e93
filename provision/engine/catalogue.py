"""What can be named on the command line: playbooks and tasks, and the tables that the tasks read.

They come from three places; a later one wins over an earlier one with the same name:

1. the tasks and playbooks that ship with the program
2. tasks of other distributions, by the entry point group `provision.tasks`
3. the user's own: each `.py` file in the folder `playbooks/`, under the current folder or beside the inventory, may
   define tasks (with `@task`) and a playbook (`PLAYS`; its name is the file's)

A file that cannot be loaded, and one that other users can change, is left out with a warning: see `own_files`.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

from provision.distributions import added
from provision.engine.own_files import Unused, defined, load_playbook, not_trusted, others_can_change
from provision.errors import InventoryError, PlaybookError, UsageError, misspelt
from provision.inventory import Inventory, Tables, load
from provision.inventory.reading import current_folder, unreadable
from provision.inventory.tables.host import Ssh
from provision.tasks import SHIPPED
from provision.tasks.base import Play, Task, play
from provision.templating import shipped

ENTRY_POINTS: Final = "provision.tasks"  # each entry point is a Task
# Names with these words are never suggested. Tasks can also be marked with @task(removes=True).
_HARMFUL: Final = (
    "prune",
    "purge",
    "wipe",
    "delete",
    "remove",
    "destroy",
    "reset",
    "clean",
    "erase",
    "uninstall",
    "drop",
)
_WORDS_FOR_RUN: Final = frozenset({"run", "apply", "play", "execute", "start", "playbook", "task"})


class Playbook(NamedTuple):
    """A list of plays with a name."""

    name: str
    headline: str
    plays: tuple[Play, ...]
    source: Path


@dataclass
class Catalogue:
    """Playbooks and tasks by name, and what could not be used."""

    playbooks: dict[str, Playbook] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    unused: list[Unused] = field(default_factory=list)
    verbs: frozenset[str] = frozenset()

    @classmethod
    def of(cls, folders: Iterable[Path] = ()) -> Catalogue:
        """The shipped ones, those of other distributions, then those of each folder; later ones win."""
        catalogue = cls(tasks={one.name: one for one in SHIPPED})
        for point in added(ENTRY_POINTS):
            catalogue._add_distribution(point)
        for path in sorted(shipped("playbooks").glob("*.py")):
            catalogue._add(path, shipped=True)
        for folder in folders:
            if why := others_can_change(folder):
                catalogue.unused.append(not_trusted(folder, why))
                continue
            for path in sorted(folder.glob("*.py")):
                catalogue._add(path)
        return catalogue

    @classmethod
    def beside(cls, inventories: Sequence[Path]) -> Catalogue:
        """With the playbook folders of these inventories and of the current folder. Raises InventoryError."""
        for path in inventories:
            try:
                path.stat()
            except OSError as error:
                raise unreadable(path, error) from None
        return cls.of(folders_beside(inventories))

    def leave_out(self, verbs: Iterable[str]) -> None:
        """Leaves out tasks and playbooks with the names of verbs, which cannot be run, and reports them."""
        self.verbs = frozenset(verbs)
        for name in self.verbs & {*self.tasks, *self.playbooks}:
            task, book = self.tasks.pop(name, None), self.playbooks.pop(name, None)
            place = str(book.source) if book else place_of_task(task) if task else ""
            self.unused.append(
                Unused(
                    UsageError(
                        f"{place}: {'the playbook' if book else 'the task'} {name} has the name of a verb: "
                        f"`provision {name}` runs the verb",
                        hint="rename it",
                    )
                )
            )

    @property
    def warnings(self) -> list[str]:
        """One line for each file or folder that is not used."""
        return [one.warning for one in self.unused]

    @property
    def tables(self) -> Tables:
        """The tables that an inventory may have."""
        return _tables(self.tasks, self.playbooks, {name for one in self.unused for name in one.tables})

    def load(self, inventories: Sequence[Path], overrides: Sequence[str] = ()) -> Inventory:
        """The inventory in these files, see `provision.inventory.load`. Its warnings include those of the catalogue."""
        try:
            inventory = load(inventories, overrides, self.tables)
        except InventoryError as error:
            if self.unused:
                error.text = "\n".join([error.text, *(f"also: {one}" for one in self.warnings)])
            raise
        return inventory._replace(warnings=(*self.warnings, *inventory.warnings))

    def plays(self, names: Sequence[str]) -> list[Play]:
        """The plays of these names, in the order given. Raises UsageError for an unknown name, and for a broken one."""
        return [one for plays in self.plays_by_name(names) for one in plays]

    def plays_by_name(self, names: Sequence[str]) -> list[tuple[Play, ...]]:
        """The plays of each name. Raises UsageError for an unknown name, and for a broken one."""
        return [self._plays(name, names) for name in names]

    def _plays(self, name: str, names: Sequence[str]) -> tuple[Play, ...]:
        for one in self.unused:
            if name in one.names:  # not the shipped one of the same name: the user has replaced it
                raise one.error
        if name in self.playbooks:
            return self.playbooks[name].plays
        if name in self.tasks:
            task = self.tasks[name]
            return (play(task.on, task, serial=task.serial),)
        raise UsageError(
            "\n".join([f"no playbook or task has the name {name!r}", *self.warnings]), hint=self._hint(name, names)
        )

    def _hint(self, name: str, names: Sequence[str]) -> str:
        if name in self.verbs:
            return f"{name} is a verb and stands first: provision {name}"
        if name in _WORDS_FOR_RUN and len(names) > 1:
            return f"leave the word out: provision {' '.join(one for one in names if one != name)} -i …"
        near = misspelt(name, self.suggestions)
        return f"did you mean {near!r}?" if near else "`provision list` prints all names"

    @property
    def suggestions(self) -> set[str]:
        """The names that may be suggested for a misspelt one: none of those that remove something."""
        harmful = {one.name for one in self.tasks.values() if one.removes}
        books = {
            name
            for name, book in self.playbooks.items()
            if not any(task.name in harmful for one in book.plays for task in one.tasks)
        }
        return {one for one in {*books, *self.tasks} - harmful if not any(word in one.lower() for word in _HARMFUL)}

    def _add(self, path: Path, *, shipped: bool = False) -> None:
        module = load_playbook(path, shipped=shipped)
        if isinstance(module, Unused):
            self.unused.append(module)
            return
        try:
            self._add_module(module, path)
        except UsageError as error:
            broken = PlaybookError(error.text, hint=error.hint)
            self.unused.append(Unused(broken, *defined(path, path.read_bytes())))

    def _add_module(self, module: ModuleType, path: Path) -> None:
        own = [
            one for one in vars(module).values() if isinstance(one, Task) and one.function.__module__ == module.__name__
        ]
        tasks = self.tasks | {one.name: one for one in own}
        playbooks = {name: book for name, book in self.playbooks.items() if name not in {one.name for one in own}}
        plays = getattr(module, "PLAYS", None)
        if plays is not None:
            if not isinstance(plays, list | tuple) or not all(isinstance(one, Play) for one in plays):
                raise UsageError(f"{path}: PLAYS is not a list of plays", hint='write PLAYS = [play("group", task, …)]')
            if wrong := [task for one in plays for task in one.tasks if not isinstance(task, Task)]:
                raise UsageError(
                    f"{path}: PLAYS: {wrong[0]!r} is not a task", hint='name tasks, as in play("all", docker)'
                )
            _check_order(path, plays)
            headline = inspect.cleandoc(module.__doc__ or "").partition("\n")[0]
            playbooks[path.stem] = Playbook(path.stem, headline, tuple(plays), path)
        _tables(tasks, playbooks)
        self.tasks, self.playbooks = tasks, playbooks

    def _add_distribution(self, point: EntryPoint) -> None:
        what = f"the task {point.name} of the distribution {point.dist.name if point.dist else point.value}"
        try:
            loaded = point.load()
        except Exception as error:
            broken = PlaybookError(
                f"{what} cannot be loaded: {type(error).__name__}: {error}",
                hint="update or uninstall it",
                details="".join(traceback.format_exception(error)),
            )
            self.unused.append(Unused(broken, frozenset({point.name})))
            return
        if isinstance(loaded, Task):
            self.tasks[loaded.name] = loaded
            return
        wrong = UsageError(f"{what}: {point.value} is not a task", hint="make it one with @task, or uninstall it")
        self.unused.append(Unused(wrong, frozenset({point.name})))


def _tables(tasks: dict[str, Task], playbooks: dict[str, Playbook], unknown: Iterable[str] = ()) -> Tables:
    """The tables that the tasks read. Raises UsageError for two different tables with one name."""
    found = [*tasks.values(), *(one for book in playbooks.values() for p in book.plays for one in p.tasks)]
    return Tables(dict.fromkeys([Ssh, *(table for one in found for table in one.tables)]), unknown)


def _check_order(path: Path, plays: Sequence[Play]) -> None:
    """Raises UsageError for a play that waits for another one that is not before it in the list."""
    for index, one in enumerate(plays):
        for awaited in one.after or ():
            if not any(awaited is earlier for earlier in plays[:index]):
                this, other = (
                    f"play({each.on!r}, {', '.join(task.name for task in each.tasks)})" for each in (one, awaited)
                )
                raise UsageError(
                    f"{path}: PLAYS: {this} waits for {other}, which is not before it in the list",
                    hint=f"write NAME = {other} above PLAYS, list NAME before this play, and give it after=(NAME,)",
                )


def place_of_task(task: Task) -> str:
    """FILE:LINE of a task's function."""
    code = task.function.__code__
    return f"{code.co_filename}:{code.co_firstlineno}"


def load_inventory(inventories: Sequence[Path], overrides: Sequence[str] = ()) -> Inventory:
    """The inventory in these files, with the tables of the shipped tasks and of the playbooks beside it."""
    return Catalogue.beside(inventories).load(inventories, overrides)


def folders_beside(inventories: Sequence[Path]) -> list[Path]:
    """The user's playbook folders: in the current folder, then beside each inventory."""
    candidates = [current_folder() / "playbooks", *(one.resolve().parent / "playbooks" for one in inventories)]
    shipped_folder = shipped("playbooks").resolve()
    return [one for one in dict.fromkeys(candidates) if one.is_dir() and one.resolve() != shipped_folder]
