"""The inventory: TOML files -> Inventory -> hosts with typed settings.

inventory = load([Path("inventory.toml")], ["registry.external_url=https://gitlab.example.com:5555"])
for host in inventory.select("runners,!runner-3"):
    host.settings.docker.users
"""

from __future__ import annotations

from provision.inventory.inventory import Host, Inventory
from provision.inventory.json_schema import schema
from provision.inventory.loading import load
from provision.inventory.secrets import SecretSource, resolve
from provision.inventory.tables.settings import Settings

__all__ = ["Host", "Inventory", "SecretSource", "Settings", "load", "resolve", "schema"]
