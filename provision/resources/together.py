"""Questions that are cheaper put together: each process on a host costs it a millisecond or two, on every look.

A resource asks as if it were alone. The engine puts the questions of one kind that a host is asked into one
command, and takes the answer apart; where that cannot be done they are asked one by one, as they stand.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from provision.resources.base import Result
from provision.shell import Command
from provision.values import dataclass


@dataclass(frozen=True)
class Together(Command):
    """A question that can be put together with others of its class. `script` asks it alone."""

    @classmethod
    @abstractmethod
    def join(cls, questions: Sequence[Any]) -> Command:
        """One command for all of them."""

    @classmethod
    @abstractmethod
    def split(cls, questions: Sequence[Any], result: Result) -> list[Result] | None:
        """What each of them alone would have been answered, in order; None where that cannot be told."""
