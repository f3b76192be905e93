"""Who: TOML → Inventory → Host with typed settings.

    inventory = load([Path("inventory.toml")], ["registry.external_url=https://gitlab.example.com:5555"])
    for host in inventory.select("runners,!runner-3"):
        host.settings.docker.users

Names are imported when they are first used: the models' library costs a tenth of a second, which `--help` need not pay.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from importlib import import_module
from typing import TYPE_CHECKING

from provision.lean import without

if TYPE_CHECKING:
    from provision.inventory.fetch import use_prompter
    from provision.inventory.host import Host
    from provision.inventory.inventory import Inventory
    from provision.inventory.json_schema import schema
    from provision.inventory.loading import load
    from provision.inventory.models.settings import Settings
    from provision.inventory.secrets import SecretSource, resolve

_HOMES = {
    "Host": "host",
    "Inventory": "inventory",
    "SecretSource": "secrets",
    "Settings": "models.settings",
    "load": "loading",
    "resolve": "secrets",
    "schema": "json_schema",
    "use_prompter": "fetch",
}

__all__ = ["Host", "Inventory", "SecretSource", "Settings", "load", "resolve", "schema", "use_prompter"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with without("importlib.metadata") if "pydantic.main" not in sys.modules else nullcontext():
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
