"""A playbook of the user's own, with a settings table, and an estate that has it."""

from __future__ import annotations

from pathlib import Path

NODE_EXPORTER = '''
from __future__ import annotations

from collections.abc import Iterator

from provision import File, Host, Resource, Table, Url, task


class NodeExporter(Table):
    """[node_exporter]: Prometheus's exporter of host metrics."""

    port: int = 9100
    """Where it listens."""
    mirror: Url | None = None
    """Where it is downloaded from."""


@task(on="all", settings=NodeExporter)
def node_exporter(host: Host, wanted: NodeExporter) -> Iterator[Resource]:
    """Install the Prometheus node exporter and keep it running."""
    yield File("/etc/default/node_exporter", f"PORT={wanted.port}\\n")
'''


def write_estate(folder: Path, more: str = "", **playbooks: str) -> Path:
    """Writes an inventory with one host, and node_exporter and more playbooks beside it; the inventory's path."""
    (folder / "playbooks").mkdir(exist_ok=True)
    for name, text in ({"node_exporter": NODE_EXPORTER} | playbooks).items():
        (folder / f"playbooks/{name}.py").write_text(text)
    path = folder / "inventory.toml"
    path.write_text(f'[hosts.web1]\ngroups = ["web"]\n{more}')
    return path
