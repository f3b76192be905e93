"""[prune]: what may go when nobody uses it any more."""

from pydantic import Field

from provision.inventory.tables.base import Table


class Prune(Table):
    """Stopped containers and unused images that may go."""

    days: int = Field(default=14, ge=0)
    """Those older than this many days."""
    timer: bool = False
    """true: the hosts do it themselves, every night."""
