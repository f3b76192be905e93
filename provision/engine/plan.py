"""What a task would do on a host, given what was seen: still nothing runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from provision.engine.observe import Eyes
from provision.errors import HostFailed, ProvisionError
from provision.host.pending import Handler
from provision.resources.base import Change, Note, Resource


class ResourceError(Exception):
    """Carries an error together with the resource it happened to."""

    def __init__(self, resource: str, error: ProvisionError) -> None:
        super().__init__(str(error))
        self.resource = resource
        self.error = error


@dataclass
class Plan:
    """A task's changes, each with the label of its resource, and its notes."""

    changes: list[tuple[str, Change]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def lasting(self) -> list[tuple[str, Change]]:
        """Those that leave something behind: a proof is no change."""
        return [(label, change) for label, change in self.changes if change.leaves]

    @property
    def handlers(self) -> list[Handler]:
        """What the changes owe, each once, in order."""
        return list(dict.fromkeys(handler for _, change in self.changes for handler in change.notify))


def make_plan(resources: Sequence[Resource], eyes: Eyes) -> Plan:
    """Plans each resource. Raises ResourceError where one says that nothing may be done."""
    plan = Plan()
    for resource in resources:
        try:
            for item in resource.plan(eyes.seen(resource)):
                if isinstance(item, Note):
                    plan.notes.append(item.text)
                else:
                    plan.changes.append((resource.label, item))
        except HostFailed as error:
            raise ResourceError(resource.label, error) from error
    return plan


def declared(resources: Sequence[Resource]) -> list[Handler]:
    """The handlers that these resources may owe."""
    return list(dict.fromkeys(handler for resource in resources for handler in resource.handlers))
