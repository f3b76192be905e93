"""`dataclass` for the values of this project: as the standard one's, made without compiling code.

dataclasses writes, compiles and runs half a dozen functions for each frozen class. That is a third of a millisecond, there
are a hundred classes, and it was a third of the time before the first host is dialled. Here the classes share them. Type
checkers are shown the standard one.
"""

from __future__ import annotations

import dataclasses
import inspect
import reprlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(cls=None, /, *, frozen=False, **options):
        """A frozen dataclass made quickly; whatever is asked for besides, the standard one makes."""
        if cls is None:
            return lambda cls: dataclass(cls, frozen=frozen, **options)
        if not frozen or options or not _plain(cls):
            return dataclasses.dataclass(cls, frozen=frozen, **options)
        made = dataclasses.dataclass(cls, init=False, repr=False, eq=False)
        made.__dataclass_params__.frozen = made.__dataclass_params__.eq = True
        for name, function in {"__repr__": _repr, **_own(made, dataclasses.fields(made))}.items():
            if name not in made.__dict__:
                setattr(made, name, function)
        return made


def _plain(cls: type) -> bool:
    """Whether nothing is asked of a class that is not done here."""
    if not cls.__doc__ or any(map(dataclasses.is_dataclass, cls.__mro__[1:])):
        return False
    for name, kind in inspect.get_annotations(cls).items():
        value = cls.__dict__.get(name)
        if "InitVar" in str(kind) or "KW_ONLY" in str(kind):
            return False
        if isinstance(value, dataclasses.Field) and (value.kw_only is True or not value.init):
            return False
    return True


def _own(made: type, fields: tuple[dataclasses.Field[Any], ...]) -> dict[str, Any]:
    """The methods that rest on the class's fields."""
    names = tuple(one.name for one in fields)
    known = frozenset(names)
    missing = dataclasses.MISSING
    defaults = {one.name: one.default for one in fields if one.default is not missing}
    factories = {one.name: one.default_factory for one in fields if one.default_factory is not missing}
    compared = tuple(one.name for one in fields if one.compare)
    hashed = tuple(one.name for one in fields if (one.compare if one.hash is None else one.hash))
    after = hasattr(made, "__post_init__")

    def __init__(self: Any, *given: Any, **named: Any) -> None:
        values = dict(zip(names, given, strict=False))
        if len(given) > len(names) or not named.keys() <= known or named.keys() & values.keys():
            raise TypeError(
                f"{made.__qualname__}() takes {', '.join(names)}, and was given {len(given)} and {list(named)}"
            )
        values.update(named)
        if len(values) < len(names):
            values = defaults | {name: make() for name, make in factories.items() if name not in values} | values
            if len(values) < len(names):
                lacking = ", ".join(name for name in names if name not in values)
                raise TypeError(f"{made.__qualname__}() lacks {lacking}")
        self.__dict__.update(values)
        if after:
            self.__post_init__()

    def __eq__(self: Any, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        mine, others = self.__dict__, other.__dict__
        return all(mine[name] is others[name] or mine[name] == others[name] for name in compared)

    def __hash__(self: Any) -> int:
        mine = self.__dict__
        return hash(tuple([mine[name] for name in hashed]))

    def __setattr__(self: Any, name: str, value: Any) -> None:
        if type(self) is made or name in known:
            raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
        object.__setattr__(self, name, value)

    def __delattr__(self: Any, name: str) -> None:
        if type(self) is made or name in known:
            raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
        object.__delattr__(self, name)

    return {one.__name__: one for one in (__init__, __eq__, __hash__, __setattr__, __delattr__)}


@reprlib.recursive_repr()
def _repr(self: Any) -> str:
    shown = (one.name for one in dataclasses.fields(self) if one.repr)
    return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"
