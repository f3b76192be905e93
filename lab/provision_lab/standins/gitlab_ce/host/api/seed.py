"""Users, tokens and projects that are there from the start, and passwords.

/etc/gitlab-standin/seed.json, laid before the first start, read at every start:

    {"users": {"root": "password"}, "api_token": "…", "project": "root/hello_hapi",
     "tokens": [{"token": "…", "user": "root", "scopes": ["create_runner"]}],
     "projects": ["sammy/hello_hapi"], "job_tokens": [{"token": "…", "project": "root/hello_hapi"}]}
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from typing import Any

from ..paths import Paths  # noqa: TID252 - the package has another name on the host
from .store import Record, Store, now

ALL_SCOPES = ["api", "read_api", "create_runner", "manage_runner", "read_registry", "write_registry", "admin_mode"]


def plant(store: Store, paths: Paths) -> None:
    """Adds what the seed names and is not there yet; passwords follow the seed."""
    path = paths.switches / "seed.json"
    seed: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    with store:
        ensure_user(store, "root", seed.get("users", {}).get("root") or _initial_password(paths))
        for name, password in seed.get("users", {}).items():
            ensure_user(store, name, password)
        if seed.get("api_token"):
            _ensure_token(store, {"token": seed["api_token"], "user": "root", "scopes": ALL_SCOPES})
        for token in seed.get("tokens", []):
            _ensure_token(store, token)
        for name in [*seed.get("projects", []), *([seed["project"]] if seed.get("project") else [])]:
            ensure_project(store, name)
        for token in seed.get("job_tokens", []):
            _ensure_token(store, {"user": "root", "scopes": [], **token})


def ensure_user(store: Store, name: str, password: str | None) -> Record:
    """The user of that name, with that password if one is given."""
    user = store.find("users", username=name)
    if user is None:
        user = store.add("users", {"username": name, "admin": name == "root", "created_at": now(), "password": ""})
    if password and not check_password(user, password):
        salt = secrets.token_hex(8)
        user["password"] = f"{salt}${_digest(salt, password)}"
        store.changed()
    return user


def check_password(user: Record, password: str) -> bool:
    """The password is the user's."""
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
    if not paths.initial_root_password.exists():
        return None
    found = re.search(r"^Password: (.*)$", paths.initial_root_password.read_text(), re.MULTILINE)
    return found.group(1) if found else None


def _digest(salt: str, password: str) -> str:
    return hashlib.sha256(f"{salt}:{password}".encode()).hexdigest()
