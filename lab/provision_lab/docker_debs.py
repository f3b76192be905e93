"""Docker's packages for the lab: Debian's Docker under the names, files and relations of Docker's own repository.

Docker's repository cannot be reached from everywhere; Debian's docker.io is the same program. The
packages carry its true upstream version, in two revisions, so that pins and upgrades have something
to choose from. The plug-ins are placeholders: they say their name and nothing more.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from provision_lab import control
from provision_lab.run import LabError, run

ORIGINS = ("docker.io", "containerd", "runc")  # the Debian packages that all files come from
REVISIONS = ("1", "2")
_RELEASES = {"bookworm": "12", "trixie": "13", "jammy": "22.04", "noble": "24.04"}
_PLUGIN = """\
#!/bin/sh
# A placeholder: the real plug-in is not part of Debian 12.
if [ "$1" = docker-cli-plugin-metadata ]; then
    echo '{"SchemaVersion":"0.1.0","Vendor":"provision lab","Version":"v0.0.0","ShortDescription":"placeholder"}'
    exit 0
fi
echo "docker-%s: a placeholder of the lab, without the plug-in's work" >&2
exit 1
"""


@dataclass(frozen=True)
class _Package:
    name: str
    origin: str  # the Debian package that the files come from
    files: dict[str, str] = field(default_factory=dict)  # our path -> the program's or unit's name there
    units: tuple[str, ...] = ()
    relations: dict[str, str] = field(default_factory=dict)
    before: str = ""  # what postinst does first


_COMMON = {"Section": "admin", "Priority": "optional", "Maintainer": "provision lab <lab@lab.test>"}
_PACKAGES = (
    _Package(
        "docker-ce",
        "docker.io",
        {
            "usr/bin/dockerd": "dockerd",
            "usr/bin/docker-proxy": "docker-proxy",
            "lib/systemd/system/docker.service": "docker.service",
            "lib/systemd/system/docker.socket": "docker.socket",
        },
        ("docker.socket", "docker.service"),
        {
            "Depends": "containerd.io, docker-ce-cli, iptables, libc6, libdevmapper1.02.1, libsystemd0",
            "Recommends": "ca-certificates, xz-utils",
            "Conflicts": "docker (<< 1.5~), docker-engine, docker.io",
            "Replaces": "docker-engine",
        },
        "getent group docker >/dev/null || groupadd --system docker",
    ),
    _Package(
        "docker-ce-cli",
        "docker.io",
        {"usr/bin/docker": "docker"},
        (),
        {
            "Depends": "libc6",
            "Recommends": "docker-buildx-plugin, docker-compose-plugin",
            "Conflicts": "docker (<< 1.5~), docker-engine, docker.io",
        },
    ),
    _Package(
        "containerd.io",
        "containerd",
        {
            "usr/bin/containerd": "containerd",
            "usr/bin/containerd-shim-runc-v2": "containerd-shim-runc-v2",
            "usr/bin/ctr": "ctr",
            "usr/bin/runc": "runc",
            "lib/systemd/system/containerd.service": "containerd.service",
        },
        ("containerd.service",),
        {
            "Depends": "libc6, libseccomp2",
            "Provides": "containerd, runc",
            "Conflicts": "containerd, runc",
            "Replaces": "containerd, runc",
        },
    ),
)


def build(debs: Path, out: Path, codenames: Mapping[str, str]) -> None:
    """The packages as `out`/debian/*.deb and `out`/ubuntu/*.deb, from docker.io's, containerd's and runc's in `debs`."""
    with tempfile.TemporaryDirectory(dir=out) as work:
        _build(debs, Path(work), out, codenames)


def _build(debs: Path, work: Path, out: Path, codenames: Mapping[str, str]) -> None:
    origin = work / "origin"
    origin.mkdir()
    for system in codenames:
        out.joinpath(system).mkdir()
    version = {}
    for deb in debs.glob("*.deb"):
        fields = control.of_deb(deb)
        if fields["Package"] not in ORIGINS:
            continue
        run("dpkg-deb", "--extract", deb, origin, deadline=120)
        version[fields["Package"]] = fields["Version"].partition("+")[0].partition("~")[0].rpartition(":")[2]
        architecture = fields["Architecture"]
    for package in _PACKAGES:
        data = control.pack(_lay(package, origin, work / package.name), work / f"{package.name}.tar.gz")
        epoch = "5:" if package.name.startswith("docker-ce") else ""
        fields = {"Package": package.name, "Architecture": architecture, **_COMMON, **package.relations}
        for system, full in _versions(epoch + version[package.origin].partition("-")[0], codenames):
            fields |= {"Version": full, "Description": f"{package.origin} under Docker's own package name"}
            control.build(out / system, fields, _scripts(package), data)
    for plugin in ("buildx", "compose"):
        tree = work / plugin
        program = tree / "usr/libexec/docker/cli-plugins" / f"docker-{plugin}"
        program.parent.mkdir(parents=True)
        program.write_text(_PLUGIN % plugin)
        program.chmod(0o755)
        data = control.pack(tree, work / f"{plugin}.tar.gz")
        fields = {"Package": f"docker-{plugin}-plugin", "Architecture": architecture, **_COMMON}
        for system, full in _versions("0.0.0", codenames):
            fields |= {"Version": full, "Description": f"placeholder of Docker's {plugin} plug-in"}
            control.build(out / system, fields, {}, data)


def _versions(upstream: str, codenames: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for system, codename in codenames.items():
        for revision in REVISIONS:
            yield system, f"{upstream}-{revision}~{system}.{_RELEASES.get(codename, '0')}~{codename}"


def _lay(package: _Package, origin: Path, tree: Path) -> Path:
    for ours, name in package.files.items():
        found = next(
            (path for path in sorted(origin.rglob(name)) if path.parent.name in ("bin", "sbin", "system")), None
        )
        if found is None:
            raise LabError(f"Debian's {package.origin} holds no {name}")
        target = tree / ours
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(found, target)
        if target.name == "docker.service":
            target.write_text(target.read_text().replace("/usr/sbin/dockerd", "/usr/bin/dockerd"))
    return tree


def _scripts(package: _Package) -> dict[str, str]:
    """What debhelper writes for a package with these units, in short."""
    if not package.units:
        return {}
    units = " ".join(package.units)
    live = "if [ -d /run/systemd/system ]; then {}; fi"
    enable = [
        f"deb-systemd-helper unmask {unit} >/dev/null\ndeb-systemd-helper enable {unit} >/dev/null"
        for unit in package.units
    ]
    start = live.format(f"systemctl daemon-reload; deb-systemd-invoke restart {units} >/dev/null || true")
    stop = live.format(f'[ "$1" != remove ] || deb-systemd-invoke stop {units} >/dev/null || true')
    purge = f'if [ "$1" = purge ]; then deb-systemd-helper purge {units} >/dev/null; fi'
    return {
        "postinst": "\n".join(["#!/bin/sh", "set -e", package.before or ":", *enable, start, ""]),
        "prerm": f"#!/bin/sh\nset -e\n{stop}\n",
        "postrm": f"#!/bin/sh\nset -e\n{purge}\n",
    }
