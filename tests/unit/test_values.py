"""`values.dataclass` beside the standard one: the same behaviour."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from dataclasses import field
from functools import cached_property
from typing import Any, ClassVar

import pytest

from provision.values import dataclass

Decorator = Callable[..., Any]
BOTH = pytest.mark.parametrize("make", [dataclasses.dataclass(frozen=True), dataclass(frozen=True)])


def pair(make: Decorator) -> Any:
    """A class with every kind of field that is used here."""

    class Pair:
        """Documented."""

        KIND: ClassVar = "pair"
        left: int
        right: str = "r"
        many: list[int] = field(default_factory=list)
        aside: Any = field(default=None, compare=False)
        hidden: str = field(default="", repr=False)
        unhashed: dict[str, int] = field(default_factory=dict, hash=False)

        @cached_property
        def both(self) -> str:
            return f"{self.left}{self.right}"

    return make(Pair)


@dataclass(frozen=True)
class Kept:
    """At module level, so that it can be pickled."""

    left: int
    right: tuple[int, ...] = ()


@BOTH
def test_made_and_shown(make: Decorator) -> None:
    """Positions, names, defaults, a list of its own for each."""
    kind = pair(make)
    one = kind(1, many=[])
    assert (one.left, one.right, one.many, one.both, one.KIND) == (1, "r", [], "1r", "pair")
    assert kind(1).many is not kind(1).many
    assert repr(kind(1, "x", hidden="y")).endswith("Pair(left=1, right='x', many=[], aside=None, unhashed={})")
    assert kind.__match_args__ == ("left", "right", "many", "aside", "hidden", "unhashed")
    assert dataclasses.asdict(one)["left"] == 1


@BOTH
def test_compared_and_hashed(make: Decorator) -> None:
    """By the fields that count, and never with another class."""
    kind = pair(make)
    assert kind(1, aside=2) == kind(1, aside=3)
    assert kind(1) != kind(2)
    assert kind(1) != 1
    assert kind(1).__eq__(1) is NotImplemented
    assert hash(kind(1, many=(), aside=[], unhashed={"a": 1})) == hash(kind(1, many=(), unhashed={"b": 2}))
    with pytest.raises(TypeError, match="unhashable"):
        hash(kind(1))


@BOTH
def test_frozen(make: Decorator) -> None:
    """Neither set nor deleted, known or not."""
    one = pair(make)(1)
    for name in ("left", "other"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(one, name, 2)
        with pytest.raises(dataclasses.FrozenInstanceError):
            delattr(one, name)


@BOTH
@pytest.mark.parametrize("wrong", [((), {}), ((1,), {"left": 1}), ((1,), {"nothing": 1}), (range(7), {})])
def test_wrong_arguments(make: Decorator, wrong: tuple[Any, dict[str, Any]]) -> None:
    """Missing, given twice, unknown, too many."""
    given, named = wrong
    with pytest.raises(TypeError):
        pair(make)(*given, **named)


@BOTH
def test_replaced_and_copied(make: Decorator) -> None:
    """By the standard library."""
    one = pair(make)(1, many=[1])
    assert dataclasses.replace(one, left=2) == type(one)(2, many=[1])
    assert copy.copy(one) == one
    assert copy.deepcopy(one).many is not one.many


def test_pickled() -> None:
    """And back."""
    assert pickle.loads(pickle.dumps(Kept(1, (2,)))) == Kept(1, (2,))


@BOTH
def test_what_the_class_defines_stays(make: Decorator) -> None:
    """Its own methods, and what it does after it was made."""

    class Own:
        """Documented."""

        name: str

        def __post_init__(self) -> None:
            if not self.name:
                raise ValueError("no name")

        def __repr__(self) -> str:
            return "own"

        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 7

    kind = make(Own)
    assert (repr(kind("a")), kind("a") == 1, hash(kind("a"))) == ("own", True, 7)
    with pytest.raises(ValueError, match="no name"):
        kind("")


@BOTH
def test_inherited(make: Decorator) -> None:
    """By a frozen class of either kind."""
    base = pair(make)
    for other in (dataclasses.dataclass(frozen=True), dataclass(frozen=True)):
        body = {"__annotations__": {"more": int}, "more": 5, "__doc__": "Documented."}
        derived = other(type("Derived", (base,), body))
        assert derived(1) == derived(1, more=5)
        assert derived(1) != base(1)
        assert (derived(1, more=6).more, derived(1).both) == (6, "1r")
        with pytest.raises(dataclasses.FrozenInstanceError):
            derived(1).more = 7


def test_the_rest_is_the_standard_ones() -> None:
    """What is not frozen, or asks for more."""

    @dataclass
    class Loose:
        """Documented."""

        value: int = 1

    @dataclass(frozen=True)
    class Named:
        """Documented."""

        value: int = field(default=1, kw_only=True)

    loose = Loose()
    loose.value = 2
    assert loose == Loose(2)
    assert list(inspect.signature(Named).parameters) == ["value"]
    with pytest.raises(TypeError):
        Named(1)  # type: ignore[misc]
