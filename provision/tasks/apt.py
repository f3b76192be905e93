"""Where packages come from: the project's own repository, or the site's mirror of it."""

from __future__ import annotations

from provision.errors import UsageError
from provision.inventory.tables.apt import Mirror


def address(mirror: Mirror | None, upstream: str) -> str:
    """The mirror's URL, or upstream's."""
    return str(mirror.url) if mirror else upstream


def key_text(mirror: Mirror | None) -> str:
    """The mirror's key, read from the local file that the inventory names; "" without one."""
    if mirror is None or mirror.key is None:
        return ""
    try:
        return mirror.key.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"apt key {mirror.key}: {error}", hint="the key of an [apt] mirror is a local, armoured file"
        ) from error
