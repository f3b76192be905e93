"""`provision schema`: the inventory's JSON Schema, for editors."""

from __future__ import annotations

import click


@click.command("schema")
def schema() -> None:
    """Prints the inventory's JSON Schema (draft 2020-12), for editors that check TOML."""
    import json

    from provision.inventory import schema as inventory_schema

    click.echo(json.dumps(inventory_schema(), indent=2, ensure_ascii=False))
