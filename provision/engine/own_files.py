"""The user's own files: which playbooks and templates are used, and loading a playbook.

A playbook is executed, and a template can call any function. So they are used only if no user except this one and
root can change them. The rule is that of sshd for authorized_keys; a group that has only the owner as a member is allowed,
since some distributions create files with mode 0664. Source: Debian's OpenSSH patch user-group-modes,
`secure_permissions`.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import re
import stat
import sys
import traceback
from collections.abc import Iterable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

from provision.errors import PlaybookError, ProvisionError, UsageError
from provision.tasks.base import line_of

_DEFINITION: Final = r"(?m)^[ \t]*def\s+(\w+)"
_TABLE: Final = r"(?m)^class\s+(\w+)\s*\(([^)]*)\)"
_TABLE_NAME: Final = r"""\bname\s*=\s*["'](\w+)["']"""


class Unused(NamedTuple):
    """A playbook file that cannot be loaded, or a file or folder that others can change.

    names   the tasks and the playbook that the file defines by its text
    tables  the tables that it defines by its text
    """

    error: UsageError
    names: frozenset[str] = frozenset()
    tables: frozenset[str] = frozenset()

    @property
    def warning(self) -> str:
        """One line: what is not used, and why."""
        return f"not used: {self.error.text} ({self.error.hint})"


def others_can_change(path: Path, status: os.stat_result | None = None) -> str:
    """Why somebody else can change a file or folder: `it belongs to bob`; "" if only this user and root can.

    `status` is that of the opened file, if it is open. A symbolic link must belong to this user or root, too.
    """
    found = [path.lstat(), status or path.stat()]
    for one in found:
        if one.st_uid not in (0, os.geteuid()):
            return f"it belongs to {_user_name(one.st_uid)}"
    mode, group = found[-1].st_mode, found[-1].st_gid
    if mode & stat.S_IWOTH:
        return "every user can write to it"
    if mode & stat.S_IWGRP and (_has_acl(path) or not _is_private(group, found[-1].st_uid)):
        return f"the group {_group_name(group)} can write to it"
    return ""


def not_trusted(path: Path, why: str) -> Unused:
    """The file or folder, as one that is not used."""
    hint = f"run `chmod go-w {path}`, and `chown` it to you or root"
    if why.startswith("it belongs"):
        hint = f"if you trust it: `chown -R {_user_name(os.geteuid())} {path}`"
    return Unused(UsageError(f"{path}: {why}", hint=hint))


def trusted_folders(folders: Iterable[Path]) -> tuple[list[Path], list[Unused]]:
    """The folders that only this user and root can change, everything in them included, and the others."""
    trusted, unused = [], []
    for folder in folders:
        for one in [folder, *sorted(folder.rglob("*"))]:
            if one.exists() and (why := others_can_change(one)):
                unused.append(not_trusted(one, why))
                break
        else:
            trusted.append(folder)
    return trusted, unused


def _is_private(group: int, owner: int) -> bool:
    """Whether the owner is the only member of the group."""
    import grp
    import pwd

    try:
        members = set(grp.getgrgid(group).gr_mem)
    except KeyError:
        return False
    users = [one for one in pwd.getpwall() if one.pw_gid == group]
    members |= {one.pw_name for one in users}
    return members == {_user_name(owner)}


def _has_acl(path: Path) -> bool:
    # With an access control list, the bits of the group are those of every user whom the list names. Source: acl(5)
    try:
        return "system.posix_acl_access" in os.listxattr(path)
    except OSError as error:
        return error.errno != errno.ENOTSUP  # what cannot be read is not trusted; other file systems have no such lists


def _user_name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _group_name(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


class _Loader(SourceFileLoader):
    """Runs a text that was read before. Python's own loader would run a `.pyc` file that others may have written."""

    def __init__(self, fullname: str, path: str, text: bytes) -> None:
        super().__init__(fullname, path)
        self._text = text

    def get_code(self, fullname: str) -> object:  # type: ignore[override]  # typeshed: CodeType | None
        """The compiled text."""
        del fullname
        return compile(self._text, self.path, "exec", dont_inherit=True)


class _Finder(MetaPathFinder):
    """Finds playbook files under unique module names: two folders may contain files with the same name."""

    def __init__(self) -> None:
        self.texts: dict[str, tuple[Path, bytes]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Called by the import system."""
        del path, target
        if fullname not in self.texts:
            return None
        file, text = self.texts[fullname]
        return spec_from_file_location(fullname, file, loader=_Loader(fullname, str(file), text))


_FINDER: Final = _Finder()
sys.meta_path.append(_FINDER)


def load_playbook(path: Path, *, shipped: bool = False) -> ModuleType | Unused:
    """The module of a playbook file; `Unused` if it cannot be loaded or others can change it."""
    text = b""
    try:
        with path.open("rb") as file:
            why = "" if shipped else others_can_change(path, os.fstat(file.fileno()))
            if why:
                return not_trusted(path, why)
            text = file.read()
    except OSError as error:
        return Unused(
            UsageError(f"{path}: cannot be read: {error.strerror}", hint="make it readable"), *defined(path, b"")
        )
    name = f"provision_playbook_{path.stem}_{abs(hash(path.resolve()))}"
    _FINDER.texts[name] = path, text
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout may carry events as JSON
            return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a playbook must not end the program
        return Unused(_playbook_error(error, path), *defined(path, text))


def forget_playbooks(folder: Path) -> None:
    """Removes the modules of the playbook files below a folder. A Dask worker runs for long, and loads many of them."""
    for name in [name for name, (path, _) in _FINDER.texts.items() if path.is_relative_to(folder)]:
        del _FINDER.texts[name]
        sys.modules.pop(name, None)


def defined(path: Path, text: bytes) -> tuple[frozenset[str], frozenset[str]]:
    """What a playbook file defines by its text, which may be invalid: names of tasks and the playbook; tables."""
    source = text.decode("utf-8", "replace")
    tables = set()
    for name, bases in re.findall(_TABLE, source):
        given = re.search(_TABLE_NAME, bases)
        tables.add(given[1] if given else re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())
    return frozenset({path.stem, *re.findall(_DEFINITION, source)}), frozenset(tables)


def _playbook_error(error: BaseException, path: Path) -> UsageError:
    if isinstance(error, ProvisionError):
        return PlaybookError(f"{path}: {error.text}", hint=error.hint or "fix the playbook file")
    line = line_of(error, str(path))
    if isinstance(error, SyntaxError) and error.lineno and error.filename == str(path):
        line = error.lineno
    what = error.msg if isinstance(error, SyntaxError) else error
    text = f"{path}{f':{line}' if line else ''}: {type(error).__name__}: {what}".removesuffix(": ")
    return PlaybookError(text, hint="fix the playbook file", details="".join(traceback.format_exception(error)))
