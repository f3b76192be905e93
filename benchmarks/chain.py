"""The longest chain of a run: its time if every play started as soon as the plays that it waits for had ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """A play on its hosts.

    name     shown on the page
    seconds  how long it took on each of its hosts
    after    the places of the plays that must have ended on all hosts before it starts on any
    serial   it works on one host after the other
    """

    name: str
    seconds: Mapping[str, float]
    after: Sequence[int] = ()
    serial: bool = False


@dataclass(frozen=True)
class Chain:
    """The longest chain: its seconds, and its steps in order as (play, host, seconds)."""

    seconds: float
    steps: tuple[tuple[str, str, float], ...]


def longest_chain(steps: Sequence[Step]) -> Chain:
    """The chain that ends last. A host works on one play at a time, in the order of `steps`.

    Raises ValueError for a play that waits for a later one.
    """
    done: list[dict[str, Chain]] = []
    on_host: dict[str, Chain] = {}
    for place, step in enumerate(steps):
        if any(one >= place for one in step.after):
            raise ValueError(f"{step.name} waits for a later play")
        before = _longest([chain for one in step.after for chain in done[one].values()])
        ended: dict[str, Chain] = {}
        for host, seconds in step.seconds.items():
            start = _longest([before, on_host.get(host, _NOTHING)])
            ended[host] = Chain(start.seconds + seconds, (*start.steps, (step.name, host, seconds)))
            if step.serial:
                before = ended[host]
        on_host |= ended
        done.append(ended)
    return _longest([chain for chains in done for chain in chains.values()])


_NOTHING = Chain(0.0, ())


def _longest(chains: Sequence[Chain]) -> Chain:
    return max(chains, key=lambda one: one.seconds, default=_NOTHING)
