"""Debian packages of the lab: .deb files from files, and Docker's packages made of Debian's.

Docker's own repository cannot be reached from everywhere, and Debian's docker.io is the same program. So the lab repacks
it under the names, paths and relations of Docker's packages. They carry the true upstream version in two revisions, so
that pins and upgrades have versions to choose from. The plug-ins are Debian's too; where Debian has none (before 13),
they are placeholders that do nothing.

Formats: deb822(5) for control fields, deb(5) for the archive.
"""

from __future__ import annotations

import io
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from provision_lab.run import LabError, run

ORIGINS = ("docker.io", "containerd", "runc")  # the Debian packages that all files come from
SPLIT_ORIGINS = ("docker-cli", "docker-buildx", "docker-compose")  # packages since Debian 13
REVISIONS = ("1", "2")
_RELEASES = {"bookworm": "12", "trixie": "13", "jammy": "22.04", "noble": "24.04", "resolute": "26.04"}
_PLUGIN = """\
#!/bin/sh
# A placeholder: Debian 12 does not have the real plug-in.
if [ "$1" = docker-cli-plugin-metadata ]; then
    echo '{"SchemaVersion":"0.1.0","Vendor":"provision lab","Version":"v0.0.0","ShortDescription":"placeholder"}'
    exit 0
fi
echo "docker-%s: a placeholder of the lab; the plug-in is not installed" >&2
exit 1
"""


@dataclass(frozen=True)
class _Package:
    name: str
    origin: str  # the Debian package that the files come from
    files: dict[str, str] = field(
        default_factory=dict
    )  # path in the package: name of the program or unit in the origin
    units: tuple[str, ...] = ()
    relations: dict[str, str] = field(default_factory=dict)
    before: str = ""  # the first command of postinst


# Relations as in github.com/docker/docker-ce-packaging, deb/common/control. The plug-ins have no conflicts there: they
# hold files of docker-buildx and docker-compose, so dpkg refuses them beside those.
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
            "Conflicts": "docker.io",
            "Replaces": "docker-ce-cli (<< 5:28.0.0)",
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
            "Conflicts": "docker.io, docker-cli",
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


def paragraph(fields: Mapping[str, str]) -> str:
    """One paragraph. Further lines of a value must be indented already."""
    return "".join(f"{name}: {value}\n" for name, value in fields.items())


def parse(text: str) -> dict[str, str]:
    """The fields of one paragraph in order, with the line breaks of continuation lines."""
    fields: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith((" ", "\t")) and name:
            fields[name] += f"\n{line}"
        elif line:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    return fields


def fields_of(deb: Path) -> dict[str, str]:
    """The control fields of a .deb."""
    return parse(run("dpkg-deb", "--field", deb).stdout)


def pack(tree: Path, out: Path) -> Path:
    """Writes the files below `tree` as `out`, the data.tar.zst of any number of packages; all files belong to root.

    Docker's packages hold 370 MB, and tests install them often: dpkg unpacks zstd five times as fast as gzip.
    """
    archive = out.with_name(f"{out.name}.tar")
    with tarfile.open(archive, "w:", format=tarfile.GNU_FORMAT) as unpacked:
        unpacked.add(tree, ".", filter=_of_root)
    run("zstd", "-q", "-1", "--rm", archive, "-o", out, deadline=300)
    return out


def write_deb(out: Path, fields: Mapping[str, str], scripts: Mapping[str, str], data: Path) -> Path:
    """Writes and returns `out`/NAME_VERSION_ARCH.deb: control fields, maintainer scripts by name, packed files."""
    meta = io.BytesIO()
    with tarfile.open(fileobj=meta, mode="w:gz", format=tarfile.GNU_FORMAT) as archive:
        for name, text in {"control": paragraph(fields), **scripts}.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size, member.mode = len(text.encode()), 0o644 if name in ("control", "conffiles") else 0o755
            archive.addfile(member, io.BytesIO(text.encode()))
    version = fields["Version"].partition(":")[2] or fields["Version"]  # an epoch is not part of the file's name
    deb = out / f"{fields['Package']}_{version}_{fields['Architecture']}.deb"
    with deb.open("wb") as stream, data.open("rb") as packed:
        stream.write(b"!<arch>\n")
        members = {"debian-binary": io.BytesIO(b"2.0\n"), "control.tar.gz": meta, "data.tar.zst": packed}
        for name, member_file in members.items():
            size = member_file.seek(0, io.SEEK_END)
            member_file.seek(0)
            stream.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{size:<10}`\n".encode())
            shutil.copyfileobj(member_file, stream)
            stream.write(b"\n" * (size % 2))
    return deb


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def build_docker(debs: Path, out: Path, codenames: Mapping[str, str]) -> None:
    """Writes Docker's packages as `out`/SYSTEM/*.deb, made from those of docker.io, containerd and runc in `debs`.

    `codenames` gives the release for each system: {"debian": "trixie", "ubuntu": "noble"}.
    """
    with tempfile.TemporaryDirectory(dir=out) as work:
        _build_docker(debs, Path(work), out, codenames)


def _build_docker(debs: Path, work: Path, out: Path, codenames: Mapping[str, str]) -> None:
    origin = work / "origin"
    origin.mkdir()
    for system in codenames:
        out.joinpath(system).mkdir()
    version = {}
    for deb in debs.glob("*.deb"):
        fields = fields_of(deb)
        if fields["Package"] not in ORIGINS + SPLIT_ORIGINS:
            continue
        run("dpkg-deb", "--extract", deb, origin, deadline=120)
        version[fields["Package"]] = fields["Version"].partition("+")[0].partition("~")[0].rpartition(":")[2]
        architecture = fields["Architecture"]
    for package in _PACKAGES:
        data = pack(_lay(package, origin, work / package.name), work / f"{package.name}.tar.zst")
        epoch = "5:" if package.name.startswith("docker-ce") else ""
        fields = {"Package": package.name, "Architecture": architecture, **_COMMON, **package.relations}
        for system, full in _versions(epoch + version[package.origin].partition("-")[0], codenames):
            fields |= {"Version": full, "Description": f"{package.origin} under Docker's own package name"}
            write_deb(out / system, fields, _scripts(package), data)
    for plugin in ("buildx", "compose"):
        tree = work / plugin
        program = tree / "usr/libexec/docker/cli-plugins" / f"docker-{plugin}"
        program.parent.mkdir(parents=True)
        if real := next(origin.glob(f"usr/lib*/docker/cli-plugins/docker-{plugin}"), None):
            shutil.copy(real, program)
        else:
            program.write_text(_PLUGIN % plugin)
            program.chmod(0o755)
        data = pack(tree, work / f"{plugin}.tar.zst")
        fields = {"Package": f"docker-{plugin}-plugin", "Architecture": architecture, **_COMMON}
        upstream = version.get(f"docker-{plugin}", "0.0.0").partition("-")[0]
        for system, full in _versions(upstream, codenames):
            fields |= {"Version": full, "Description": f"Docker's {plugin} plug-in, or a placeholder"}
            write_deb(out / system, fields, {}, data)


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
            raise LabError(f"Debian's {package.origin} has no {name}")
        target = tree / ours
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(found, target)
        if target.name == "docker.service":
            target.write_text(target.read_text().replace("/usr/sbin/dockerd", "/usr/bin/dockerd"))
    return tree


def _scripts(package: _Package) -> dict[str, str]:
    """The maintainer scripts of a package with units, as debhelper writes them, shortened."""
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
