"""The inventory: TOML files -> Inventory -> hosts with typed settings.

    inventory = load([Path("inventory.toml")], ["docker.source=distro"], tables)
    for host in inventory.select("runners,!runner-3"):
        host.settings[Docker].users

`tables` are what the tasks register: `provision.engine.catalogue` collects them.
"""

from __future__ import annotations

from provision.inventory.inventory import Estate, Host, Inventory, Member, settings_dict
from provision.inventory.loading import load
from provision.inventory.secrets import SecretSource, resolve
from provision.inventory.settings import Settings, Tables
from provision.inventory.tables.base import Table

__all__ = [
    "Estate",
    "Host",
    "Inventory",
    "Member",
    "SecretSource",
    "Settings",
    "Table",
    "Tables",
    "load",
    "resolve",
    "settings_dict",
]
