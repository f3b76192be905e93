"""Who may do what in which project."""

from __future__ import annotations

from .http import not_found
from .routing import Context
from .store import Record


def owns(user: Record | None, record: Record) -> bool:
    """Administrators own everything; others what stands in their own namespace."""
    if user is None:
        return False
    return bool(user["admin"]) or record["namespace"].split("/")[0] == user["username"]


def maintained(context: Context, record: Record) -> bool:
    """The caller is at least a maintainer of the project."""
    return owns(context.user, record)


def project(context: Context, identity: str, what: str = "Project") -> Record:
    """A project by number or path. Raises 404, also for what the caller may not see."""
    number = int(identity) if identity.isdigit() else None
    found = context.store.find("projects", **({"id": number} if number else {"path_with_namespace": identity}))
    if found is None or not maintained(context, found):
        raise not_found(what)
    return found
