"""What state.json remembers of projects: that they were as wanted, and which variables are ours.

A value that GitLab never tells again is compared by its fingerprint: HMAC-SHA256 under a random key that state.json
keeps. Without that file a fingerprint says nothing, not even whether two values are equal.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

KEY: Final = "fingerprint key"


def key_in(state: Mapping[str, Any]) -> str:
    """The key of the host's fingerprints; a new one where there is none yet."""
    return str(state.get(KEY) or _new_key())


@cache
def _new_key() -> str:
    # One for all that this run sets: each of them brings it into state.json.
    return secrets.token_hex(32)


def keyed(key: str, value: Any) -> str:
    """The fingerprint of plain data."""
    text = json.dumps(value, sort_keys=True)
    return hmac.new(bytes.fromhex(key), text.encode(), hashlib.sha256).hexdigest()[:32]


def project_record(path: str) -> str:
    """Under which name it is remembered that a project is as wanted."""
    return f"gitlab project/{path}"


def variable_record(path: str, name: str, scope: str) -> str:
    """Under which name it is remembered that a variable is ours, with its value's fingerprint."""
    return f"gitlab variable/{path} {name} {scope}"


def variables_in(state: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """Name and scope of the variables of a project that are ours."""
    for record in state:
        before, _, after = record.partition(f"gitlab variable/{path} ")
        if not before and after:
            name, _, scope = after.partition(" ")
            yield name, scope
