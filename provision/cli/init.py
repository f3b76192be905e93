"""`provision init`: a commented inventory and a playbooks folder to start from."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("init")
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(file_okay=False, path_type=Path))
def init(folder: Path) -> None:
    """Writes inventory.toml and playbooks/motd.py into DIR; what is there already is left alone."""
    from provision.errors import UsageError
    from provision.places import shipped

    files = {
        folder / "inventory.toml": shipped("inventories") / "example.toml",
        folder / "playbooks" / "motd.py": shipped("templates") / "init" / "motd.py",
    }
    try:
        for target, source in files.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                click.echo(f"kept     {target}")
            else:
                target.write_text(source.read_text("utf-8"), "utf-8")
                click.echo(f"written  {target}")
    except OSError as error:
        raise UsageError(
            f"{error.filename}: {error.strerror}", hint="choose a folder that can be written to"
        ) from error
    inventory = folder / "inventory.toml"
    click.echo(f"\nEdit {inventory}, then:\n  provision all -i {inventory} --check --diff")
