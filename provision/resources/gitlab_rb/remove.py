"""Taking a setting out again."""

from __future__ import annotations

from collections.abc import Collection

from provision.resources.gitlab_rb.literals import pairs
from provision.resources.gitlab_rb.locate import Place, Places
from provision.resources.gitlab_rb.paths import Path, covers, name
from provision.resources.gitlab_rb.plan import Plan
from provision.resources.gitlab_rb.values import MISSING, Plain, lookup


def take_out(plan: Plan, path: Path, found: Places, wanted: Collection[Path]) -> None:
    """Every plain assignment of `path`, and of what lies under it, goes; a key inside a wider hash literal too.

    What is also `wanted` is left to be settled; what cannot be taken safely stays, and a note names its line.
    """
    name(path)  # refuses what is no setting
    for place in found.near(path):
        if place.kind in ("unseen", "variable"):
            continue
        if any(covers(place.path, goal) or covers(goal, place.path) for goal in wanted):
            continue
        if covers(path, place.path):
            if place.how == "plain" and place.kind == "set":
                plan.drop(path, place)
            else:
                plan.note(f"line {place.line} also sets {name(path)}, in {place.context}: left as it is")
        elif lookup(place.literal, path[len(place.path) :]) is not MISSING:
            _take_key(plan, path, place)


def _take_key(plan: Plan, path: Path, place: Place) -> None:
    """`path` inside the hash that `place` assigns to something wider."""
    keys, node, value = path[len(place.path) :], place.value, place.literal
    for key in keys[:-1]:
        held = (pairs(plan.document, node) or []) if node is not None and node.type == "hash" else []
        node = next((pair.value for pair in held if pair.key == key), None)
        value = lookup(value, (key,))
    if place.how != "plain" or node is None or node.type != "hash" or not isinstance(value, dict):
        plan.note(f"line {place.line} also sets {name(path)}, as part of {name(place.path)}: left as it is")
        return
    rest: dict[str, Plain] = {key: item for key, item in value.items() if key != keys[-1]}
    plan.rewrite(path, place, node, rest)
