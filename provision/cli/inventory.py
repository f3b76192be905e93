"""The verbs that contact no host: list, inventory, schema, explain, init."""

from __future__ import annotations

import json
from pathlib import Path

import click

from provision.cli import inventory_option, set_option


@click.command("list")
@inventory_option(required=False)
def list_(inventory: tuple[Path, ...]) -> None:
    """Print the playbooks, tasks and tables, the shipped ones and yours."""
    from provision.engine.catalogue import Catalogue
    from provision.inventory.explain import table_list

    catalogue = Catalogue.beside(inventory)
    width = max(len(name) for name in [*catalogue.playbooks, *catalogue.tasks]) + 2
    click.echo("playbooks")
    for name, book in sorted(catalogue.playbooks.items()):
        click.echo(f"  {name:<{width}}{book.headline}")
        for one in book.plays:
            click.echo(f"  {'':<{width}}  on {one.on}: {', '.join(task.name for task in one.tasks)}")
    click.echo("tasks")
    for name, task in catalogue.tasks.items():
        click.echo(f"  {name:<{width}}{task.headline} (on {task.on})")
    click.echo(f"tables\n{table_list(catalogue.tables)}")


@click.command("inventory")
@inventory_option(required=True)
@set_option
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def inventory(inventory: tuple[Path, ...], settings: tuple[str, ...], as_json: bool) -> None:
    """Print the resolved hosts, groups and settings. Secrets are masked and not fetched."""
    from provision.engine.catalogue import load_inventory

    loaded = load_inventory(inventory, settings)
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(json.dumps(loaded.as_dict(), indent=2, ensure_ascii=False) if as_json else loaded.as_text())


@click.command("schema")
@inventory_option(required=False)
def schema(inventory: tuple[Path, ...]) -> None:
    """Print the inventory's JSON Schema, for editors."""
    from provision.engine.catalogue import Catalogue
    from provision.inventory import schema as schema_of

    click.echo(json.dumps(schema_of(Catalogue.beside(inventory).tables), indent=2, ensure_ascii=False))


@click.command("explain")
@click.argument("name", required=False)
@inventory_option(required=False)
def explain(name: str | None, inventory: tuple[Path, ...]) -> None:
    """Print the documentation of a task or a table, or list them.

    NAME is a task, a table such as docker, or a table in one, such as registry.certificate.
    """
    from provision.engine.catalogue import Catalogue
    from provision.errors import UsageError, did_you_mean
    from provision.inventory.explain import explain_table, find_table, table_list
    from provision.inventory.tables.base import options_of

    catalogue = Catalogue.beside(inventory)
    tables = catalogue.tables
    if name is None:
        click.echo("tasks")
        for one in catalogue.tasks.values():
            click.echo(f"  {one.name:<14}{one.headline}")
        click.echo(f"tables\n{table_list(tables)}")
        return
    task, table = catalogue.tasks.get(name), find_table(tables, name)
    if task is None and table is None:
        near = did_you_mean(name, {*catalogue.tasks, *tables.names})
        raise UsageError(f"no task or table has the name {name!r}{near}", hint="`provision explain` lists them")
    if task is not None:
        click.echo(f"task {task.name}, on {task.on}\n")
        click.echo("\n".join(f"  {line}".rstrip() for line in task.doc.splitlines()))
        if task.tables:
            click.echo(f"\n  tables: {', '.join(options_of(one).brackets for one in task.tables)}")
    if table is not None:
        click.echo(("\n" if task is not None else "") + explain_table(*table))


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
