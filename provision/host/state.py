"""The records on a host, in `/var/lib/provision/state.json`. It contains no secrets.

    {"version": 2,
     "owners": {"firewall": {"ufw": ["5555/tcp"]}},
     "shared": {"fingerprint key": "…"},
     "unowned": {}}

owners   records by task, then by the resource's record key
shared   records that belong to no single task
unowned  records of version 1 whose task is unknown: the first task with a resource of that key takes them over

While a change runs, the file holds both the old and the new records, so that a change that fails or is killed leaves
no unrecorded settings.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
from collections.abc import Mapping
from typing import Any, Final

from provision.errors import ProbeFailed
from provision.host.files import HOME
from provision.host.scripts import script
from provision.shell import Command, sh

STATE: Final = f"{HOME}/state.json"
ASK_STATE: Final = sh("test ! -e %s || cat %s", STATE, STATE)
VERSION: Final = 2

Json = Any
Records = Mapping[str, Json]

_PARTS: Final = ("owners", "shared", "unowned")
_KEY: Final = "fingerprint key"
_HEX_KEY: Final = re.compile(r"[0-9a-f]{64}")

# Version 1 had one flat table. For each key: the task of version 0.1.0 that wrote it, and the record key that the task uses now.
_OWNERS_OF_VERSION_1: Final = {
    "/etc/docker/daemon.json": ("docker", "/etc/docker/daemon.json"),
    "gitlab.rb/gitlab": ("gitlab", "gitlab.rb"),
    "gitlab.rb/registry": ("registry", "gitlab.rb"),
    "s3": ("registry", "s3"),
    "firewall": ("firewall", "ufw"),
    "config.toml": ("register", "config.toml"),
    "verified": ("verify", "verified"),
    "prune timer": ("prune", "prune timer"),
    "held docker-ce": ("docker", "held docker-ce"),
    "held docker.io": ("docker", "held docker.io"),
    "held gitlab-ce": ("gitlab", "held gitlab-ce"),
    "held gitlab-ee": ("gitlab", "held gitlab-ee"),
    "held gitlab-runner": ("runner", "held gitlab-runner"),
}
_PREFIXES_OF_VERSION_1: Final = {
    "gitlab runner/": "register",
    "gitlab project/": "project",
    "gitlab variable/": "project",
    "gitlab pipeline/": "pipeline",
    "image ": "image",
    "app ": "deploy",
}


class HostState:
    """The records of one host. The engine changes them only when it writes the file on the host."""

    def __init__(self, tree: Mapping[str, Mapping[str, Json]] | None = None) -> None:
        given = tree or {}
        self.tree: dict[str, dict[str, Json]] = {part: dict(given.get(part, {})) for part in _PARTS}

    @classmethod
    def parse(cls, text: str) -> HostState:
        """Reads the file; an empty text is an empty state. Raises ValueError for a broken file."""
        if not text.strip():
            return cls()
        try:
            found = json.loads(text)
        except RecursionError as error:
            raise ValueError("its values are nested too deeply") from error
        if not isinstance(found, dict):
            raise ValueError("not a JSON object")
        key = (_part(found, "shared") if "version" in found else found).get(_KEY)
        if key is not None and not (isinstance(key, str) and _HEX_KEY.fullmatch(key)):
            raise ValueError(f"the {_KEY} is not 64 hexadecimal digits")
        if "version" not in found:
            return cls(_from_version_1(found))
        if found["version"] != VERSION:
            raise ValueError(f"it has version {found['version']}; this program supports version {VERSION}")
        tree = {part: _part(found, part) for part in _PARTS}
        for owner, records in tree["owners"].items():
            if not isinstance(records, dict):
                raise ValueError(f"owners.{owner} is not a JSON object")
        return cls(tree)

    def records(self, owner: str) -> Records:
        """Everything that a task recorded, by record key."""
        records: Records = self.tree["owners"].get(owner, {})
        return records

    def record(self, owner: str, key: str) -> Json:
        """What a task recorded under a key, or a record of unknown origin under that key; None without one."""
        own = self.records(owner)
        return own[key] if key in own else self.tree["unowned"].get(key)

    def others(self, owner: str, key: str) -> Records:
        """What other tasks recorded under the same key, by task."""
        owners = self.tree["owners"].items()
        return {name: records[key] for name, records in owners if name != owner and key in records}

    @property
    def fingerprint_key(self) -> str:
        """The host's random key for fingerprints, in hex. A new key is written with the next record."""
        shared = self.tree["shared"]
        if shared.get(_KEY) is None:
            shared[_KEY] = os.urandom(32).hex()
        return str(shared[_KEY])

    def updated(self, owner: str, entries: Records) -> HostState:
        """The state with a task's new records; None removes a record."""
        after = HostState(self.tree)
        records = {key: value for key, value in {**self.records(owner), **entries}.items() if value is not None}
        after.tree["owners"].pop(owner, None)
        if records:
            after.tree["owners"][owner] = records
        for key in entries:
            after.tree["unowned"].pop(key, None)
        return after

    def merged(self, after: HostState) -> HostState:
        """The records of both states. The host must hold them while the change from one to the other runs."""
        return HostState(union(self.tree, after.tree))

    def replace_with(self, after: HostState) -> None:
        """Replaces the records with those of a state that was written to the host."""
        self.tree = after.tree

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HostState) and self.tree == other.tree

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"HostState({self.tree})"

    def text(self) -> str:
        """The file's text; keys are sorted, so that the files of two hosts can be compared."""
        parts = {part: records for part, records in self.tree.items() if records or part != "unowned"}
        return json.dumps({"version": VERSION, **parts}, indent=1, sort_keys=True)

    def write(self) -> str:
        """Shell text that replaces the file."""
        return script("write_state", STATE, self.text()).script


def fingerprint(key: str, value: Json) -> str:
    """32 hex digits that identify plain data, such as settings with secrets, and reveal nothing without the host's key.

    key  `HostState.fingerprint_key`: without it, a short secret could be guessed from an ordinary hash
    """
    text = json.dumps(value, sort_keys=True)
    return hmac.new(bytes.fromhex(key), text.encode(), hashlib.sha256).hexdigest()[:32]


def _part(found: Mapping[str, Json], name: str) -> Records:
    part = found.get(name, {})
    if not isinstance(part, Mapping):
        raise ValueError(f"{name} is not a JSON object")
    return part


def strings(record: Json) -> list[str]:
    """A record that is a list of strings; [] without one. Raises ProbeFailed for another type."""
    if record is None or (isinstance(record, list) and all(isinstance(one, str) for one in record)):
        return record or []
    raise _wrong_type(record, "a list of strings")


def mapping(record: Json) -> Records:
    """A record that is an object; {} without one. Raises ProbeFailed for another type."""
    if record is None or isinstance(record, dict):
        return record or {}
    raise _wrong_type(record, "an object")


def _wrong_type(record: Json, expected: str) -> ProbeFailed:
    return ProbeFailed(
        f"{STATE}: a record is not {expected}, but: {json.dumps(record)[:80]}",
        hint="correct the record, or remove it: then what it recorded is not removed from the host when it leaves the "
        "inventory",
    )


def union(old: Json, new: Json) -> Json:
    """The union of two values: the keys of both objects, the members of both lists. Of two plain values, the old one."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return {
            key: union(old[key], new[key]) if key in old and key in new else old.get(key, new.get(key))
            for key in {**old, **new}
        }
    if isinstance(old, list) and isinstance(new, list):
        return [*old, *(one for one in new if one not in old)]
    return old


def unless_recorded(text: str, command: Command) -> Command:
    """The command, skipped (code 0, no output) on a host whose state.json contains `text`."""
    return Command(
        sh("! grep -qF -e %s %s 2>/dev/null || exit 0\n", text, STATE).script + command.script, command.stdin
    )


def if_recorded(text: str, command: Command) -> Command:
    """The command, skipped (code 0, no output) on a host whose state.json does not contain `text`."""
    return Command(sh("grep -qF -e %s %s 2>/dev/null || exit 0\n", text, STATE).script + command.script, command.stdin)


def _from_version_1(flat: Mapping[str, Json]) -> dict[str, dict[str, Json]]:
    """The records of version 1 under their owners."""
    tree: dict[str, dict[str, Json]] = {part: {} for part in _PARTS}
    for key, value in flat.items():
        prefix = next((one for one in _PREFIXES_OF_VERSION_1 if key.startswith(one)), "")
        if key == _KEY:
            tree["shared"][key] = value
        elif key in _OWNERS_OF_VERSION_1 or prefix:
            owner, new_key = _OWNERS_OF_VERSION_1.get(key) or (_PREFIXES_OF_VERSION_1[prefix], key)
            tree["owners"].setdefault(owner, {})[new_key] = value
        elif key.startswith("gitlab.rb/"):  # a user's own task, under the name that it chose
            tree["owners"].setdefault(key.removeprefix("gitlab.rb/"), {})["gitlab.rb"] = value
        else:
            tree["unowned"][key] = value
    return tree
