"""An example of your own task: copy it, rename it, and run it by its name.

`provision motd -i inventory.toml --check --diff` shows what it would do.
"""

from collections.abc import Iterator

from provision import File, Host, Resource, task


@task(on="all")
def motd(host: Host) -> Iterator[Resource]:
    """Greet logins with the host's name and groups."""
    yield File("/etc/motd", f"{host.name} ({', '.join(host.groups)}), kept by provision\n")
