"""`provision help [NAME]`: the help of the program or of a verb, or the documentation of a task or a table."""

from __future__ import annotations

from pathlib import Path

import click

from provision.cli import commands, inventory_option


@click.command("help")
@click.argument("name", required=False)
@inventory_option(required=False)
@click.pass_context
def help_(context: click.Context, name: str | None, inventory: tuple[Path, ...]) -> None:
    """Print the help of NAME: a verb, a task or a table. Without NAME: the program's help."""
    from provision.cli.inventory import explain
    from provision.cli.run import run

    program = click.Context(commands, info_name="provision")
    if name is None:
        click.echo(run.make_context("provision", [], resilient_parsing=True).get_help())
    elif (verb := commands.get_command(program, name)) is not None:
        click.echo(click.Context(verb, info_name=name, parent=program).get_help())
    else:
        context.invoke(explain, name=name, inventory=inventory)
