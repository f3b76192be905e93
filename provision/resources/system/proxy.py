"""The proxy of a host's programs: apt, and services such as Docker and gitlab-runner.

Sources: apt.conf(5) and apt-transport-http(1), Acquire::http::Proxy; systemd.exec(5), EnvironmentFile; Docker's
documentation, "Daemon proxy configuration"; GitLab Runner's, "Running GitLab Runner behind a proxy".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from provision.host.pending import Handler
from provision.inventory import Settings
from provision.inventory.tables.apt import Apt, package_servers
from provision.inventory.tables.proxy import Proxy
from provision.resources.base import Change, Note, Observation, Probe, Resource, record_only
from provision.resources.system.file import File, ask_file, digest, read_file
from provision.secret import Secret, reveal
from provision.shell import Command, sh

APT_CONF: Final = "/etc/apt/apt.conf.d/95provision-proxy"


@dataclass(frozen=True)
class ProxyFile(Resource):
    """A file with proxy settings has this content. Without content it is deleted, provided that this task wrote it.

    after  shell text that runs after a change
    """

    path: str
    content: str | Secret | None
    after: str = ""
    notify: tuple[Handler, ...] = ()

    @property
    def record_key(self) -> str:
        return f"proxy {self.path}"

    def claims(self) -> Mapping[str, Hashable]:
        return {self.path: "absent" if self.content is None else digest(reveal(self.content))}

    def probe(self) -> Probe:
        return Probe.of(ask_file(self.path))

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        if self.content is None:
            if seen.record and read_file(self.path, seen).content is None:
                yield dataclasses.replace(record_only("that the host has no proxy", None), id="no proxy")
            elif seen.record:
                delete = self._with_after(sh("rm -f -- %s", self.path))
                yield Change(f"delete {self.path}", delete, "delete", notify=self.handlers, record=None)
            return
        # Other users must not read a password. apt and systemd read the file as root.
        mode = "0600" if isinstance(self.content, Secret) else "0644"
        changes = [*File(self.path, self.content, mode, notify=self.notify).plan(seen)]
        for change in changes:
            if isinstance(change, Change) and isinstance(change.run, Command):
                yield dataclasses.replace(change, run=self._with_after(change.run), record=True)
        if not changes and not seen.record:
            yield record_only(f"the proxy settings in {self.path}", True)

    def _with_after(self, command: Command) -> Command:
        if not self.after:
            return command
        return Command(f"(\n{command.script}\n) || exit\n{self.after}", command.stdin)


def apt_proxy(settings: Settings) -> ProxyFile:
    """apt's proxy. Mirrors are exceptions of their own, because apt itself knows no domains or networks."""
    proxy, mirrors = settings.get(Proxy), package_servers(settings[Apt])
    if proxy is None or not proxy.is_set:
        return ProxyFile(APT_CONF, None)
    lines, secret = ["// Written by provision: [proxy] of the inventory."], False
    for scheme in ("http", "https"):
        address = proxy.address(scheme)
        secret = secret or isinstance(address, Secret)
        if reveal(address):
            lines.append(f'Acquire::{scheme}::Proxy "{reveal(address)}";')
            named = [name for name in proxy.no_proxy if not name.startswith((".", "*")) and "/" not in name]
            direct = dict.fromkeys([*named, *filter(proxy.spares, mirrors)])
            lines += [f'Acquire::{scheme}::Proxy::{host} "DIRECT";' for host in direct]
    text = "\n".join([*lines, ""])
    return ProxyFile(APT_CONF, Secret(text) if secret else text)


def service_proxy(unit: str, proxy: Proxy | None, restart: Handler) -> tuple[ProxyFile, ProxyFile]:
    """The proxy of a service: a file with the variables, and a drop-in of its unit that names the file.

    The variables are not in the unit, because every user can read those.
    """
    file = f"/etc/default/provision-proxy-{unit}"
    drop_in = f"/etc/systemd/system/{unit}.service.d/provision-proxy.conf"
    reload = "systemctl daemon-reload"
    if proxy is None or not proxy.is_set:
        return ProxyFile(drop_in, None, reload, (restart,)), ProxyFile(file, None, "", (restart,))
    variables = proxy.variables()
    lines = [f'{one}="{reveal(value)}"\n' for name, value in variables.items() for one in (name, name.upper())]
    text, secret = "".join(lines), any(isinstance(value, Secret) for value in variables.values())
    named = f"# Written by provision: [proxy] of the inventory.\n[Service]\nEnvironmentFile=-{file}\n"
    return (
        ProxyFile(file, Secret(text) if secret else text, "", (restart,)),
        ProxyFile(drop_in, named, reload, (restart,)),
    )
