"""What a parsed file's values mean before files are merged: secrets become sources, local paths absolute.

Both depend on the file that names them, so it is done per file.

A secret is
- any table with exactly one of the keys env, file, command, prompt whose value has that key's type
  (an environment variable's name, a path, an array of strings, a text), at any depth inside a settings table;
- any string under a key that is called like a secret: token, password, secretkey, api_key, …

Left alone are tables where those four are keys of another meaning: Docker's own `log-opts`, CI variables, an image's build
arguments, an app's variables and checks. What stands in them is looked at, but for `log-opts`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from provision.inventory.keys import KeyPath, in_table
from provision.inventory.secrets import Origin, SecretSource, as_source

_SECRET_NAME = re.compile(
    r"(?:token|password|passwd|passphrase|secret|secret_?key|access_?key|access_?key_?id|api_?key"
    r"|private_?key|account_?key|signing_?key|key_base|sentry_dsn)$",
    re.IGNORECASE,
)


def _patterns(*dotted: str) -> tuple[tuple[str, ...], ...]:
    """Paths of keys; `*` is any name, or the place in an array."""
    return tuple(tuple(one.split(".")) for one in dotted)


def _fits(path: KeyPath, patterns: tuple[tuple[str, ...], ...]) -> bool:
    return any(
        len(path) == len(one) and all(want in ("*", key) for key, want in zip(path, one, strict=True))
        for one in patterns
    )


_LOCAL_PATHS = _patterns(
    *("ssh.identity_file", "ssh.known_hosts"),
    *("registry.certificate.ca", "registry.certificate.local_fullchain", "registry.certificate.local_key"),
    *("apt.docker.key", "apt.gitlab.key", "apt.runner.key"),
    *("docker.registries.*.ca", "docker.registries.*.cert", "docker.registries.*.key"),
    *("images.*.context", "projects.*.pipeline.path"),
)
_TABLES = _patterns(
    *("images.*.options", "images.*.build_args", "apps.*.environment", "apps.*.health", "apps.*.check"),
    *("projects.*.variables", "projects.*.pipeline.variables"),
)


def is_secret_name(key: str) -> bool:
    """Whether a string under this key is taken for a secret."""
    return _SECRET_NAME.search(key) is not None


class Recogniser:
    """Walks one file's tables. `plain` then holds the keys of secrets that stand in the file as text."""

    def __init__(self, file: str, base: Path) -> None:
        self.file = file
        self.base = base
        self.plain: list[KeyPath] = []

    def tree(self, tree: dict[str, Any]) -> dict[str, Any]:
        """The same tables with SecretSource and Path objects in place."""
        return {key: self._value(value, (key,)) for key, value in tree.items()}

    def _value(self, value: Any, path: KeyPath) -> Any:
        if isinstance(value, dict):
            return self._table(value, path)
        if isinstance(value, list):
            return [self._value(one, (*path, place)) for place, one in enumerate(value)]
        if isinstance(value, str) and len(path) > 1:
            return self._text(value, path)
        return value

    def _table(self, table: dict[str, Any], path: KeyPath) -> Any:
        inside = in_table(path)
        if len(inside) > 1:
            if inside[:3] == ("docker", "daemon", "log-opts"):
                return table
            source = as_source(table, Origin(self.file, path, self.base))
            if source is not None and not _fits(inside, _TABLES):
                return source
        return {key: self._value(value, (*path, key)) for key, value in table.items()}

    def _text(self, text: str, path: KeyPath) -> Any:
        inside = in_table(path)
        if _fits(inside, _LOCAL_PATHS):
            return self.base / Path(text).expanduser()
        key = path[-1]
        if isinstance(key, str) and is_secret_name(key):
            self.plain.append(path)
            return SecretSource.plain(text, Origin(self.file, path, self.base))
        return text
