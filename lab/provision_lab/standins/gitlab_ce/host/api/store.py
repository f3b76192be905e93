"""The database: one JSON file that is replaced whole, and the seed that it starts with.

/etc/gitlab-standin/seed.json is written before the first start and read at every start:

    {"users": {"root": "password"}, "api_token": "…", "project": "root/hello_hapi",
     "tokens": [{"token": "…", "user": "root", "scopes": ["create_runner"]}],
     "projects": ["sammy/hello_hapi"], "job_tokens": [{"token": "…", "project": "root/hello_hapi"}],
     "groups": {"acme": {}, "acme/web": {}}, "members": [{"user": "sammy", "path": "acme", "role": "maintainer"}],
     "protected_branches": [{"project": "acme/web/shop", "branch": "main", "push": "nobody"}]}

`path` is a group's or a project's. Roles: guest, reporter, developer, maintainer, owner; `push` also has nobody.
"""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import hmac
import json
import secrets
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from ..layout import (
    Paths,
    write_atomically,
)

Record = dict[str, Any]


class Store:
    """The tables. One thread of one process at a time enters it; leaving writes the file when something has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._written = threading.Condition()
        self._dirty = False
        empty: Record = {"last_id": {}, "users": [], "tokens": [], "projects": [], "runners": [], "variables": []}
        more = ("repositories", "merge_requests", "groups", "members", "protected_branches")
        rest = ("protected_tags", "deploy_tokens", "pipelines", "jobs")
        self._data: Record = {**empty, **{name: [] for name in (*more, *rest)}}
        self._depth, self._version = 0, (0, 0)
        self._read()

    @property
    def repositories(self) -> Path:
        """The folder of the projects' git repositories."""
        return self._path.parent.parent / "git-data/repositories"

    @property
    def traces(self) -> Path:
        """The folder of the jobs' logs."""
        return self._path.parent.parent / "gitlab-ci/builds"

    def __enter__(self) -> Store:
        self._lock.acquire()
        self._depth += 1
        if self._depth == 1:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._guard = self._path.with_suffix(".lock").open("a")
            fcntl.flock(self._guard, fcntl.LOCK_EX)
            self._read()
        return self

    def _read(self) -> None:
        """Reads the file if another process has written it."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return
        if (found.st_ino, found.st_mtime_ns) != self._version:
            self._data |= json.loads(self._path.read_text())
            self._version = found.st_ino, found.st_mtime_ns

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._dirty and self._depth == 1:
                write_atomically(self._path, json.dumps(self._data, indent=1) + "\n", 0o600)
                found = self._path.stat()
                self._version = found.st_ino, found.st_mtime_ns
                self._dirty = False
                with self._written:
                    self._written.notify_all()
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._guard.close()
            self._lock.release()

    def all(self, table: str) -> list[Record]:
        """The records of a table, oldest first."""
        records: list[Record] = self._data[table]
        return records

    def find(self, table: str, **wanted: Any) -> Record | None:
        """The first record with these values."""
        for record in self.all(table):
            if all(record.get(key) == value for key, value in wanted.items()):
                return record
        return None

    def add(self, table: str, record: Record) -> Record:
        """Stores a record under a new id."""
        identity = self._data["last_id"].get(table, 0) + 1
        self._data["last_id"][table] = identity
        kept = {"id": identity, **record}
        self.all(table).append(kept)
        self.changed()
        return kept

    def remove(self, table: str, record: Record) -> None:
        """Deletes a record."""
        self.all(table).remove(record)
        self.changed()

    def changed(self) -> None:
        """Marks the store as changed, after a record was changed in place."""
        self._dirty = True

    def wait(self, seconds: float) -> None:
        """Waits until this process has written a change, outside of the store."""
        with self._written:
            self._written.wait(seconds)

    def last_id(self, name: str) -> int:
        """The newest number under this name; 0 without any."""
        return int(self._data["last_id"].get(name, 0))

    def new_id(self, name: str) -> int:
        """A number that was never used before under this name."""
        identity = self.last_id(name) + 1
        self._data["last_id"][name] = identity
        self.changed()
        return identity


def now() -> str:
    """The time in the API's format."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def age(moment: str) -> float:
    """Seconds since a time in that format."""
    then = datetime.datetime.fromisoformat(moment.replace("Z", "+00:00"))
    return (datetime.datetime.now(datetime.UTC) - then).total_seconds()


def find_token(store: Store, text: str) -> Record | None:
    """The record of a token that is neither revoked nor expired."""
    found = store.find("tokens", token=text) if text else None
    if found is None or found.get("revoked"):
        return None
    end = found.get("expires_at")
    return None if end and datetime.date.fromisoformat(end) <= datetime.datetime.now(datetime.UTC).date() else found


ALL_SCOPES = ["api", "read_api", "create_runner", "manage_runner", "read_registry", "write_registry", "admin_mode"]


def apply_seed(store: Store, paths: Paths) -> None:
    """Adds what the seed names and the store does not have; sets passwords to the seed's."""
    path = paths.switches / "seed.json"
    seed: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    with store:
        ensure_first_user(store, paths)
        for name, password in seed.get("users", {}).items():
            ensure_user(store, name, password)
        if seed.get("api_token"):
            _ensure_token(store, {"token": seed["api_token"], "user": "root", "scopes": ALL_SCOPES})
        for token in seed.get("tokens", []):
            _ensure_token(store, token)
        for name in [*seed.get("projects", []), *([seed["project"]] if seed.get("project") else [])]:
            ensure_project(store, name)
        for path in seed.get("groups", {}):
            if store.find("groups", full_path=path) is None:
                store.add("groups", {"full_path": path, "name": path.rpartition("/")[2], "created_at": now()})
        for table in ("members", "protected_branches"):
            for record in seed.get(table, []):
                if store.find(table, **record) is None:
                    store.add(table, dict(record))
        for token in seed.get("job_tokens", []):
            _ensure_token(store, {"user": "root", "scopes": [], **token})


def ensure_first_user(store: Store, paths: Paths) -> None:
    """Root, with the first password that the reconfigure chose."""
    if store.find("users", username="root") is None:
        ensure_user(store, "root", _initial_password(paths))


def ensure_user(store: Store, name: str, password: str | None) -> Record:
    """The user of that name, with this password if one is given."""
    user = store.find("users", username=name)
    if user is None:
        user = store.add("users", {"username": name, "admin": name == "root", "created_at": now(), "password": ""})
    if password and not check_password(user, password):
        salt = secrets.token_hex(8)
        user["password"] = f"{salt}${_digest(salt, password)}"
        store.changed()
    return user


def check_password(user: Record, password: str) -> bool:
    """Whether the password is the user's."""
    salt, _, digest = user["password"].partition("$")
    return bool(digest) and hmac.compare_digest(digest, _digest(salt, password))


def ensure_project(store: Store, full_path: str) -> Record:
    """The project at `namespace/name`."""
    found = store.find("projects", path_with_namespace=full_path)
    if found:
        return found
    namespace, _, name = full_path.rpartition("/")
    settings = {
        "description": None,
        "default_branch": "main",
        "visibility": "private",
        "shared_runners_enabled": True,
        "group_runners_enabled": True,
        "container_registry_access_level": "enabled",
        "builds_access_level": "enabled",
        "ci_config_path": "",
    }
    names = {"name": name, "path": name, "path_with_namespace": full_path, "namespace": namespace}
    return store.add("projects", {**names, "created_at": now(), **settings})


def _ensure_token(store: Store, token: Record) -> None:
    if store.find("tokens", token=token["token"]) is None:
        store.add("tokens", {"created_at": now(), "project": None, **token})


def _initial_password(paths: Paths) -> str | None:
    return paths.first_root_password.read_text() if paths.first_root_password.exists() else None


def _digest(salt: str, password: str) -> str:
    return hashlib.sha256(f"{salt}:{password}".encode()).hexdigest()
