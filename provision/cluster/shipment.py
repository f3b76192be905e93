"""What a run sends to the workers, and what it never sends.

| what                                                    | over tls://            | over tcp://                  |
|---------------------------------------------------------|------------------------|------------------------------|
| inventories, playbooks/, templates/, local files that   | sent                   | sent; refused if an          |
| tables name, in the folder of their inventory           |                        | inventory contains a secret  |
| secrets from env, command, prompt, -K                   | sent, as text          | refused                      |
| secrets from files, private keys that tables name       | sent, like other files | never: the worker reads the  |
|                                                         |                        | same path, or the run is     |
|                                                         |                        | refused                      |
| SSH keys, the agent, ~/.ssh                             | never: the worker uses | never                        |
|                                                         | its own                |                              |
| .git folders, files outside of these folders            | never                  | never                        |

On the worker, the files are below a private folder, with the same paths as on the client. So relative paths in the
inventory are right there too. A link stands for each file that was not sent. It leads to the same path on the worker.
"""

from __future__ import annotations

import os
import pickle
import shutil
import stat
import tempfile
import tomllib
import zlib
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from provision import __version__
from provision.engine.assemble import Options
from provision.engine.catalogue import folders_beside
from provision.engine.own_files import others_can_change, trusted_folders
from provision.engine.run import Run
from provision.errors import UsageError
from provision.inventory import Settings
from provision.inventory.secrets import SecretSource
from provision.inventory.tables.apt import Mirror
from provision.inventory.tables.base import Table, fields_of, options_of
from provision.inventory.tables.gitlab import Gitlab
from provision.inventory.tables.host import Ssh
from provision.inventory.tables.projects import Pipeline
from provision.inventory.tables.registry import Registry
from provision.inventory.tree import KeyPath, dotted
from provision.secret import MASK, is_secret_name, mask, mask_secret_values

LIMIT: Final = 64 << 20  # bytes of all files: the scheduler passes them to every worker
_PUBLIC_KEYS: Final = {(Mirror, "key")}
_LEVEL: Final = 1  # of zlib: the files are sent once to each worker


class Sealed:
    """Bytes that no log, repr or dashboard shows."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __repr__(self) -> str:
        return MASK


class LocalFile(NamedTuple):
    """A local file or folder that a table names.

    private  it is a private key or a secret: sent over TLS only
    own      every worker has one of its own: never sent
    written  the run writes it
    """

    key: str
    path: Path
    private: bool = False
    own: bool = False
    written: bool = False


class SentFile(NamedTuple):
    """One file. `path` is absolute, on the client."""

    path: str
    executable: bool
    data: bytes


class Shipment(NamedTuple):
    """What each worker receives once.

    folder   the client's current folder, which relative paths on the command line refer to
    links    paths that are not sent: the worker must have them
    needed   keys of local files that exist on the client
    secrets  their texts, by their source
    tasks    the fingerprint of the plays
    details  whether a listener of the client uses steps and output
    """

    options: Options
    folder: str
    files: tuple[SentFile, ...]
    links: tuple[str, ...]
    needed: frozenset[str]
    secrets: Mapping[tuple[object, ...], str]
    tasks: int
    details: bool
    version: str = __version__

    def sealed(self) -> Sealed:
        """The bytes to send."""
        return Sealed(zlib.compress(pickle.dumps(self), _LEVEL))

    @classmethod
    def opened(cls, sealed: Sealed) -> Shipment:
        """The shipment in these bytes."""
        found: Shipment = pickle.loads(zlib.decompress(sealed.data))
        return found


def pack(run: Run, options: Options, *, encrypted: bool, details: bool) -> Shipment:
    """What the workers need for this run. Its secrets must have been fetched. Raises UsageError for what cannot be sent."""
    unused = {key for key, one in secrets_of(run) if one.kind == "file" and not one.is_fetched}
    local = [one for one in local_files(run) if one.key not in unused]
    secrets = _fetched(run)
    if written := [one.key for one in local if one.written]:
        raise UsageError(
            f"{', '.join(written)}: this file is written on the machine that runs the task, which is a worker",
            hint="run `provision project` without --dask",
        )
    if not encrypted and (exposed := _exposed(run, options)):
        raise UsageError(
            f"secrets are not sent over tcp://, where anyone on the network can read them: {', '.join(exposed)}",
            hint="use a scheduler at tls://… (docs/cluster.md), or let the workers read the secrets themselves: "
            '{ file = "…" } at a path that every worker has',
        )
    bases = _bases(options)
    files: dict[Path, SentFile] = {}
    links: list[Path] = []
    for path in options.inventories:
        _add(path.resolve(), [path.resolve().parent], files)
    for folder in _own_folders(options):
        for path in _files_in(folder):
            if not others_can_change(path):  # such a file is not used here, so it must not be used on the worker
                _add(path, [folder], files)
    for one in local:
        path = Path(os.path.normpath(one.path))
        if not path.exists():
            continue
        if one.own or (one.private and not encrypted) or not _is_below(path, bases) or _has_git(path):
            links.append(path)
        else:
            for file in _files_in(path):
                _add(file, bases, files)
    return Shipment(
        options._replace(inventories=tuple(one.resolve() for one in options.inventories)),
        str(Path.cwd()),
        tuple(files.values()),
        tuple(str(one) for one in dict.fromkeys(links)),
        frozenset(one.key for one in local if one.path.exists()),
        secrets,
        fingerprint(run),
        details,
    )


def fingerprint(run: Run) -> int:
    """A number that is equal for equal plays, that is, equal hosts and names of tasks. It is a CRC-32."""
    plays = [[(host, [task.name for task in tasks]) for host, tasks in one.tasks.items()] for one in run.plays]
    return zlib.crc32(repr(plays).encode())


# -- what tables name ----------------------------------------------------------------------------


def local_files(run: Run) -> list[LocalFile]:
    """The local files and folders that the tables of this run's tasks name, the files of secrets included."""
    found: dict[LocalFile, None] = {}
    tables = _tables_of(run)
    for settings in _settings_of(run):
        for key, owner, name, value in _leaves(settings, tables):
            if isinstance(value, SecretSource) and value.kind == "file":
                found[LocalFile(key, value.path, private=True)] = None
            elif isinstance(value, Path):
                private = (name == "key" or name.endswith(("_key", "_key_file"))) and (owner, name) not in _PUBLIC_KEYS
                accepts = owner is Ssh and name == "known_hosts" and settings[Ssh].host_keys == "accept-new"
                own = accepts or (owner is Ssh and name == "identity_file")
                written = owner is Pipeline and name == "path"
                found[LocalFile(key, value, private or is_secret_name(name), own, written)] = None
    return list(found)


def secrets_of(run: Run) -> Iterator[tuple[str, SecretSource]]:
    """The secrets in the settings of all hosts of the inventory, by their key."""
    for settings in _settings_of(run):
        for key, _, _, value in _leaves(settings):
            if isinstance(value, SecretSource):
                yield key, value


def _settings_of(run: Run) -> list[Settings]:
    """The settings of all hosts of the inventory: a token may be read on a host that is not selected."""
    every = [*(host.settings for host in run.hosts), *run.hosts[0].estate.settings.values()]
    return list({id(one): one for one in every}.values())


def _tables_of(run: Run) -> set[str]:
    """The names of the tables that the tasks of this run may read."""
    tasks = {task for one in run.plays for own in one.tasks.values() for task in own}
    tables: set[type[Table]] = {Ssh, Gitlab, Registry}
    return {options_of(table).name for table in tables.union(*(one.tables for one in tasks))}


def _leaves(
    settings: Settings, tables: Container[str] | None = None
) -> Iterator[tuple[str, type[Table] | None, str, Any]]:
    """Key, table, field and value of each value that is neither a table nor an array, in all tables or in these."""
    for name, value in settings.items():
        if tables is None or name in tables:
            yield from _below(value, (name,), None, name)


def _below(
    value: Any, path: KeyPath, owner: type[Table] | None, name: str
) -> Iterator[tuple[str, type[Table] | None, str, Any]]:
    if isinstance(value, Table):
        kind = type(value)
        for key, (field, _) in zip(fields_of(kind), kind.model_fields.items(), strict=True):
            yield from _below(getattr(value, field), (*path, key), kind, field)
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _below(one, (*path, str(key)), owner, name)
    elif isinstance(value, list | tuple):
        for place, one in enumerate(value):
            yield from _below(one, (*path, place), owner, name)
    elif value is not None:
        yield dotted(path), owner, name, value


# -- secrets -------------------------------------------------------------------------------------


def identity(source: SecretSource, root: str = "") -> tuple[object, ...]:
    """A key for the source of a secret, which is equal on client and worker. `root`: the worker's private folder."""
    return source.kind, source.value, str(source.origin.base).removeprefix(root)


def _fetched(run: Run) -> dict[tuple[object, ...], str]:
    """The texts of the secrets that this run needs and that are not in files, by their source."""
    return {
        identity(one): one.resolve().reveal()
        for _, one in secrets_of(run)
        if one.kind in ("env", "command", "prompt") and one.is_fetched
    }


def _exposed(run: Run, options: Options) -> list[str]:
    """The settings that would send a secret, in words."""
    found = ["the sudo password of -K"] if options.become_password is not None else []
    for key, one in secrets_of(run):
        if one.kind == "plain":
            found.append(f"{key} (text in {one.origin.file})")
        elif one.kind != "file" and one.is_fetched:
            found.append(f"{key} ({one.kind})")
    known = tuple(one.partition(" (")[0] for one in found)
    for path in options.inventories:
        tree = tomllib.loads(path.read_text("utf-8-sig"))
        found += [f"{key} (text in {path})" for key in _secret_texts(tree, ()) if not key.endswith(known)]
    for setting in options.settings:
        name, _, value = setting.partition("=")
        if _has_secret(value):
            found.append(f"{name.strip()} (text in --set)")
    return list(dict.fromkeys(found))


def _secret_texts(tree: Any, path: KeyPath) -> Iterator[str]:
    """The keys of texts that are secrets by their names or by what they contain."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _secret_texts(value, (*path, key))
    elif isinstance(tree, list):
        for place, value in enumerate(tree):
            yield from _secret_texts(value, (*path, place))
    elif isinstance(tree, str) and tree:
        name = next((part for part in reversed(path) if isinstance(part, str)), "")
        if is_secret_name(name) or _has_secret(tree):
            yield dotted(path)


def _has_secret(text: str) -> bool:
    return mask(mask_secret_values(text)) != text


# -- files ---------------------------------------------------------------------------------------


def _bases(options: Options) -> list[Path]:
    """The folders that local files are sent from."""
    return list(dict.fromkeys(one.resolve().parent for one in options.inventories))


def _own_folders(options: Options) -> list[Path]:
    """The user's playbooks and templates that are used here."""
    playbooks = [one for one in folders_beside(options.inventories) if not others_can_change(one)]
    beside = [*(one / "templates" for one in _bases(options)), Path.cwd() / "templates"]
    templates, _ = trusted_folders([one for one in dict.fromkeys(beside) if one.is_dir()])
    return [*playbooks, *templates]


def _files_in(path: Path) -> Iterator[Path]:
    """The regular files below a path, or the file itself; no .git, no compiled Python."""
    if not path.is_dir():
        yield path
        return
    for folder, names, files in os.walk(path):
        names[:] = sorted(one for one in names if one not in (".git", "__pycache__"))
        for name in sorted(files):
            file = Path(folder, name)
            if name != ".git" and (file.is_file() or file.is_symlink()):
                yield file


def _is_below(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.resolve().is_relative_to(one.resolve()) for one in folders)


def _has_git(path: Path) -> bool:
    return path.is_dir() and (path / ".git").exists()


def _add(path: Path, folders: Iterable[Path], files: dict[Path, SentFile]) -> None:
    """Reads a file to send. Raises UsageError for links out of the folders, and for too much."""
    if path in files:
        return
    if not _is_below(path, folders):
        raise UsageError(
            f"{path} is a link to {path.resolve()}, outside of the folder that is sent to the workers",
            hint="copy the file into the folder, or remove the link",
        )
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            return
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read, to be sent to the workers: {error.strerror}", hint="make it readable"
        ) from None
    files[path] = SentFile(str(path), bool(mode & stat.S_IXUSR), data)
    if sum(len(one.data) for one in files.values()) > LIMIT:
        raise UsageError(
            f"the files of this run have more than {LIMIT >> 20} MiB: too many to send to each worker ({path})",
            hint="keep large folders at a path that every worker has, outside of the inventory's folder",
        )


class Unpacked:
    """The files of a shipment on a worker, below a private folder that `remove` deletes."""

    def __init__(self, shipment: Shipment, parent: str | None) -> None:
        self._folder = tempfile.mkdtemp(prefix="provision-", dir=parent)  # mode 0700
        self.root = os.path.realpath(self._folder)
        try:
            self._write(shipment)
        except BaseException:
            self.remove()
            raise

    def path(self, client_path: str | Path) -> Path:
        """Where a path of the client is on this worker."""
        return Path(self.root + os.path.normpath(client_path))

    def client_path(self, text: str) -> str:
        """The text, with paths on this worker replaced by those on the client."""
        return text.replace(self.root, "")

    def _write(self, shipment: Shipment) -> None:
        self.path(shipment.folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        for one in shipment.files:
            path = self.path(one.path)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700 if one.executable else 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(one.data)
        for name in shipment.links:
            link = self.path(name)
            link.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            link.symlink_to(name)

    def missing(self, run: Run, needed: frozenset[str]) -> list[str]:
        """The local files that are not on this worker: `KEY (PATH)`."""
        return [
            f"{one.key} ({self.client_path(os.path.normpath(one.path))})"
            for one in local_files(run)
            if one.key in needed and not one.path.exists()
        ]

    def remove(self) -> None:
        """Deletes the private folder. The targets of links stay."""
        shutil.rmtree(self._folder, ignore_errors=True)
