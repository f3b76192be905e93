"""Debian's control files: paragraphs of fields, as deb822(5) has them."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path

from provision_lab.run import run


def paragraph(fields: Mapping[str, str]) -> str:
    """One paragraph; a value's further lines are indented, as they must be."""
    return "".join(f"{name}: {value}\n" for name, value in fields.items())


def parse(text: str) -> dict[str, str]:
    """The fields of one paragraph, in order; continuation lines keep their line breaks."""
    fields: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith((" ", "\t")) and name:
            fields[name] += f"\n{line}"
        elif line:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    return fields


def of_deb(deb: Path) -> dict[str, str]:
    """The control fields of a .deb."""
    return parse(run("dpkg-deb", "--field", deb).stdout)


def pack(tree: Path, out: Path) -> Path:
    """The files below `tree` as `out`, the data.tar.gz of any number of packages; all owned by root.

    Compressed lightly: it is installed often, and travels over a bridge only.
    """
    with tarfile.open(out, "w:gz", compresslevel=1, format=tarfile.GNU_FORMAT) as archive:
        archive.add(tree, ".", filter=_of_root)
    return out


def build(out: Path, fields: Mapping[str, str], scripts: Mapping[str, str], data: Path) -> Path:
    """Writes `out`/NAME_VERSION_ARCH.deb: these control fields and maintainer scripts before packed files.

    The form is deb(5): an ar archive of three members.
    """
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
        members = {"debian-binary": io.BytesIO(b"2.0\n"), "control.tar.gz": meta, "data.tar.gz": packed}
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
