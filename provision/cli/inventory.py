"""The verbs that contact no host: list, inventory, schema, explain, help, init."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from provision.cli.verbs import catalogue_of, find_verb, inventory_option, report_unused, set_option, verbose_option

if TYPE_CHECKING:
    from provision.tasks.base import Play


@click.command("list")
@inventory_option(required=False)
@verbose_option
def list_(inventory: tuple[Path, ...], verbose: int) -> None:
    """Print the playbooks, tasks and tables, the shipped ones and yours."""
    from provision.inventory.reference import table_list

    catalogue = catalogue_of(inventory)
    report_unused(catalogue, verbose=bool(verbose))
    width = max(len(name) for name in [*catalogue.playbooks, *catalogue.tasks]) + 2
    click.echo("playbooks")
    for name, book in sorted(catalogue.playbooks.items()):
        click.echo(f"  {name:<{width}}{book.headline}")
        for line in _describe_plays(book.plays):
            click.echo(f"  {'':<{width}}  {line}")
    click.echo("tasks")
    for name, task in catalogue.tasks.items():
        click.echo(f"  {name:<{width}}{task.headline} (on {task.on})")
    click.echo(f"tables\n{table_list(catalogue.tables)}")


def _describe_plays(plays: Sequence[Play]) -> list[str]:
    """A line for each play. The lines have numbers if a play names the plays that it waits for."""
    lines = [f"on {one.on}: {', '.join(task.name for task in one.tasks)}" for one in plays]
    if all(one.after is None for one in plays):
        return lines
    described = []
    for index, (one, line) in enumerate(zip(plays, lines, strict=True)):
        awaited = plays[:index] if one.after is None else one.after
        numbers = [str(number) for number, other in enumerate(plays, 1) if any(other is each for each in awaited)]
        after = f" (after {' and '.join(numbers)})" if numbers else ""
        described.append(f"{index + 1} {line}{after}")
    return described


@click.command("inventory")
@inventory_option(required=True)
@set_option
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@verbose_option
def inventory(inventory: tuple[Path, ...], settings: tuple[str, ...], as_json: bool, verbose: int) -> None:
    """Print the resolved hosts, groups and settings. Secrets are masked and not fetched."""
    catalogue = catalogue_of(inventory)
    loaded = catalogue.load(inventory, settings)
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    report_unused(catalogue, verbose=bool(verbose), warnings=False)
    click.echo(json.dumps(loaded.as_dict(), indent=2, ensure_ascii=False) if as_json else loaded.as_text())


@click.command("schema")
@inventory_option(required=False)
@verbose_option
def schema(inventory: tuple[Path, ...], verbose: int) -> None:
    """Print the inventory's JSON Schema, for editors."""
    from provision.inventory.reference import schema as schema_of

    catalogue = catalogue_of(inventory)
    report_unused(catalogue, verbose=bool(verbose))
    click.echo(json.dumps(schema_of(catalogue.tables), indent=2, ensure_ascii=False))


@click.command("explain")
@click.argument("name", required=False)
@inventory_option(required=False)
@verbose_option
def explain(name: str | None, inventory: tuple[Path, ...], verbose: int = 0) -> None:
    """Print the documentation of a task or a table, or list them.

    NAME is a task, a table such as docker, or a table in one, such as registry.certificate.
    """
    from provision.errors import UsageError, misspelt
    from provision.inventory.reference import explain_keys, explain_table, find_table, table_list
    from provision.inventory.tables.base import options_of

    catalogue = catalogue_of(inventory)
    report_unused(catalogue, verbose=bool(verbose))
    tables = catalogue.tables
    if name is None:
        click.echo("tasks")
        for one in catalogue.tasks.values():
            click.echo(f"  {one.name:<14}{one.headline}")
        click.echo(f"tables\n{table_list(tables)}")
        return
    task, table = catalogue.tasks.get(name), find_table(tables, name)
    if task is None and table is None and (keys := explain_keys(tables, name)):
        click.echo(keys)
        return
    if task is None and table is None:
        near = misspelt(name, {*catalogue.tasks, *tables.names})  # explaining a task is harmless, whatever it does
        hint = f'did you mean "{near}"?' if near else "`provision explain` lists them"
        raise UsageError(f"no task or table has the name {name!r}", hint=hint)
    if task is not None:
        click.echo(f"task {task.name}, on {task.on}\n")
        click.echo("\n".join(f"  {line}".rstrip() for line in task.doc.splitlines()))
        if task.tables:
            click.echo(f"\n  tables: {', '.join(options_of(one).brackets for one in task.tables)}")
    if table is not None:
        click.echo(("\n" if task is not None else "") + explain_table(*table))


@click.command("help")
@click.argument("name", required=False)
@inventory_option(required=False)
@click.pass_context
def help_(context: click.Context, name: str | None, inventory: tuple[Path, ...]) -> None:
    """Print the help of NAME: a verb, a task or a table. Without NAME: the program's help."""
    from provision.cli.run import run

    if name is None:
        click.echo(run.make_context("provision", [], resilient_parsing=True).get_help())
    elif (verb := find_verb(name)) is not None:
        click.echo(click.Context(verb, info_name=name, parent=context.parent).get_help())
    else:
        context.invoke(explain, name=name, inventory=inventory)


@click.command("init")
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(file_okay=False, path_type=Path))
def init(folder: Path) -> None:
    """Write an example inventory and playbook into DIR.

    The files are inventory.toml and playbooks/motd.py; existing ones stay unchanged.
    """
    from provision.errors import UsageError
    from provision.templating import shipped

    files = {
        folder / "inventory.toml": shipped("inventories") / "example.toml",
        folder / "playbooks" / "motd.py": shipped("templates") / "init" / "motd.py",
    }
    try:
        for target, source in files.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                click.echo(f"exists   {target}")
            else:
                target.write_text(source.read_text("utf-8"), "utf-8")
                click.echo(f"written  {target}")
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}", hint="choose a folder that you may write to") from error
    path = folder / "inventory.toml"
    click.echo(f"\nEdit {path}, then:\n  provision all -i {path} --check --diff")
