"""`provision list`: playbooks and tasks with their first line."""

from __future__ import annotations

from pathlib import Path

import click

from provision.cli.options import inventory_option


@click.command("list")
@inventory_option(required=False)
def listing(inventory: tuple[Path, ...]) -> None:
    """Shows playbooks and tasks, the shipped ones and yours."""
    from provision.engine.catalogue import Catalogue, folders_beside

    catalogue = Catalogue.of(folders_beside(inventory))
    width = max(len(name) for name in [*catalogue.playbooks, *catalogue.tasks]) + 2
    click.echo("playbooks")
    for name, book in sorted(catalogue.playbooks.items()):
        click.echo(f"  {name:<{width}}{book.headline}")
        for one in book.plays:
            click.echo(f"  {'':<{width}}  on {one.on}: {', '.join(task.name for task in one.tasks)}")
    click.echo("tasks")
    for name, task in catalogue.tasks.items():
        click.echo(f"  {name:<{width}}{task.headline} (on {task.on})")
