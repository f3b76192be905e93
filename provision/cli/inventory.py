"""`provision inventory`: hosts, groups and settings as resolved; secrets masked."""

from __future__ import annotations

from pathlib import Path

import click

from provision.cli.options import inventory_option, set_option


@click.command("inventory")
@inventory_option(required=True)
@set_option
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def inventory(inventory: tuple[Path, ...], settings: tuple[str, ...], as_json: bool) -> None:
    """Shows hosts, groups and settings as resolved; secrets masked, and none is fetched."""
    from provision.inventory import load

    loaded = load(inventory, settings)
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    if as_json:
        import json

        click.echo(json.dumps(loaded.as_dict(), indent=2, ensure_ascii=False))
    else:
        click.echo(loaded.as_text())
