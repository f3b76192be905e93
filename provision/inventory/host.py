"""A host of the inventory, with the settings that hold for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from provision.inventory.models.settings import Settings


@dataclass(frozen=True, eq=False)
class Host:
    """One host. `settings` is shared by hosts for which the same settings hold. Names are unique."""

    name: str
    address: str
    groups: tuple[str, ...]
    host_key: str | None
    settings: Settings
