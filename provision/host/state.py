"""What we remember on a host, before and after a change.

While a change is under way both what was set and what will be are on record: a change that fails or is killed
leaves nothing of ours unknown. What a proof showed is on record only once it has shown it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def updated(state: Mapping[str, Any], memory: Mapping[str, Any]) -> dict[str, Any]:
    """The state with a change's memory in it; None takes an entry out."""
    return {key: value for key, value in {**state, **memory}.items() if value is not None}


def either(old: Any, new: Any) -> Any:
    """What is in the one or the other: keys of both objects, members of both lists; of two plain values the old."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return {
            key: either(old[key], new[key]) if key in old and key in new else old.get(key, new.get(key))
            for key in {**old, **new}
        }
    if isinstance(old, list) and isinstance(new, list):
        return [*old, *(one for one in new if one not in old)]
    return old
