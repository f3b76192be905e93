"""What a task would change on a host, given what was observed. Nothing runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from provision.engine.desired_state import Owned
from provision.engine.observe import Observer, ResourceError, named
from provision.errors import HostFailed
from provision.host.pending import Handler
from provision.resources.base import KEEP, Change, Json, Note, Outcome


class Planned(NamedTuple):
    """A change, and the resource that planned it."""

    item: Owned
    change: Change

    @property
    def label(self) -> str:
        """The resource's name."""
        return self.item.label

    @property
    def id(self) -> tuple[str, str]:
        """The same for a change in an earlier and in a later plan."""
        return self.label, self.change.identity

    def entries(self, outcome: Outcome | None) -> dict[str, Json]:
        """What is recorded for the owner, by record key; `outcome` of an API action replaces what was planned."""
        record, records = self.change.record, self.change.records
        if outcome is not None and (outcome.record is not KEEP or outcome.records):
            record, records = outcome.record, outcome.records
        return {**records} if record is KEEP else {**records, self.item.resource.record_key: record}


@dataclass
class Plan:
    """The changes and notes of a task. `errors`: the resources that refused, if they did not end the planning."""

    changes: list[Planned] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    errors: list[ResourceError] = field(default_factory=list)

    @property
    def lasting(self) -> list[Planned]:
        """The changes that are not verifications."""
        return [one for one in self.changes if not one.change.verification]


class PlanErrors(Exception):
    """Several resources of a task refused; the others were planned. Check mode only."""

    def __init__(self, errors: Sequence[ResourceError]) -> None:
        super().__init__("; ".join(str(one) for one in errors))
        self.errors = errors


def make_plan(items: Sequence[Owned], observer: Observer, *, go_on: bool = False) -> Plan:
    """Plans each resource. Raises ResourceError for the first resource that refuses; `go_on`: collects these errors."""
    plan = Plan()
    watched = {(item.owner, path): handler for item in items for path, handler in item.resource.watches.items()}
    for item in items:
        watcher = watched.get((item.owner, getattr(item.resource, "path", "")))
        try:
            _plan_one(item, observer, watcher, plan)
        except ResourceError as error:
            if not go_on or not isinstance(error.error, HostFailed):
                raise
            plan.errors.append(error)
    return plan


def _plan_one(item: Owned, observer: Observer, watcher: Handler | None, plan: Plan) -> None:
    try:
        with named(item):
            for one in item.resource.plan(observer.observation(item)):
                if isinstance(one, Note):
                    plan.notes.append(one.text)
                elif watcher is None or watcher in one.notify:
                    plan.changes.append(Planned(item, one))
                else:
                    plan.changes.append(Planned(item, replace(one, notify=(*one.notify, watcher))))
    except HostFailed as error:
        raise ResourceError(item.label, error) from error


def declared_handlers(items: Sequence[Owned]) -> list[Handler]:
    """The handlers that changes of these resources may notify."""
    return list(dict.fromkeys(handler for item in items for handler in item.resource.handlers))
