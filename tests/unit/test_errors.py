"""The error tree, as it is drawn."""

from __future__ import annotations

import inspect
import re

import pytest

from provision import errors
from provision.errors import ProvisionError

CLASSES = {name: one for name, one in vars(errors).items() if inspect.isclass(one) and issubclass(one, Exception)}


def drawn() -> dict[str, str]:
    """Child by parent, from the drawing at the top of the module."""
    parents: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^([ │├└─]*)([A-Z]\w+)(?:\s{2,}|$)", line)
        if not found or found[2] not in CLASSES:
            continue
        depth = len(found[1])
        path = [one for one in path if one[0] < depth]
        if path:
            parents[found[2]] = path[-1][1]
        path.append((depth, found[2]))
    return parents


def test_the_drawing_is_the_tree() -> None:
    """Every class is in it, under its base."""
    tree = {name: one.__mro__[1].__name__ for name, one in CLASSES.items() if one is not ProvisionError}
    assert drawn() == tree


@pytest.mark.parametrize("kind", CLASSES.values(), ids=list(CLASSES))
def test_each_says_what_and_what_next(kind: type[ProvisionError]) -> None:
    """Two lines; the second is the hint, if there is one."""
    assert str(kind("it broke")) == "it broke"
    error = kind("it broke", hint="fix it")
    assert str(error) == "it broke\n  → fix it"
    assert (error.text, error.hint, error.args) == ("it broke", "fix it", ("it broke",))
    assert kind.__doc__
