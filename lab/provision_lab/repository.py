"""An apt repository: .deb files in, signed indexes out."""

from __future__ import annotations

import email.utils
import gzip
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from provision_lab import control
from provision_lab.run import run


@dataclass(frozen=True)
class Suite:
    """One suite of a repository at `path` (below the server's root), as `deb URL/path name component` reads it."""

    path: str
    name: str
    component: str
    origin: str
    label: str


class Signer:
    """A signing key of its own, in a key ring that is thrown away; `public` is what hosts are given."""

    def __init__(self, ring: Path, owner: str) -> None:
        self.ring = ring
        ring.mkdir(mode=0o700)
        self._gpg(
            "--passphrase", "", "--quick-generate-key", f"{owner} <{ring.name}@lab.test>", "ed25519", "sign", "never"
        )
        self.public = self._gpg("--armor", "--export")

    def clearsign(self, text: str) -> str:
        """`text` with its signature around it: InRelease."""
        return self._gpg("--clearsign", stdin=text)

    def detach(self, text: str) -> str:
        """The signature alone: Release.gpg."""
        return self._gpg("--armor", "--detach-sign", stdin=text)

    def close(self) -> None:
        """Ends the agent that gpg started."""
        run("gpgconf", "--homedir", self.ring, "--kill", "all", check=False)

    def _gpg(self, *arguments: str, stdin: str = "") -> str:
        return run("gpg", "--homedir", self.ring, "--batch", "--quiet", *arguments, stdin=stdin).stdout


def write(server: Path, suite: Suite, debs: Iterable[Path], signer: Signer) -> None:
    """Lays pool, Packages and the signed Release of `suite` below the server's root."""
    base = server / suite.path
    pool = base / "pool" / suite.name
    pool.mkdir(parents=True, exist_ok=True)
    entries = []
    for deb in sorted(debs):
        placed = pool / deb.name
        if not placed.exists():
            placed.hardlink_to(deb)
        entries.append(_entry(placed, base))
    dist = base / "dists" / suite.name
    folder = dist / suite.component / f"binary-{architecture()}"
    folder.mkdir(parents=True)
    text = "\n".join(entries).encode()
    folder.joinpath("Packages").write_bytes(text)
    folder.joinpath("Packages.gz").write_bytes(gzip.compress(text, mtime=0))
    release = _release(suite, dist)
    dist.joinpath("Release").write_text(release)
    dist.joinpath("InRelease").write_text(signer.clearsign(release))
    dist.joinpath("Release.gpg").write_text(signer.detach(release))


def _entry(deb: Path, base: Path) -> str:
    fields = control.of_deb(deb)
    content = deb.read_bytes()
    fields |= {
        "Filename": str(deb.relative_to(base)),
        "Size": str(len(content)),
        "MD5sum": hashlib.md5(content, usedforsecurity=False).hexdigest(),
        "SHA256": hashlib.sha256(content).hexdigest(),
    }
    return control.paragraph(fields)


def _release(suite: Suite, dist: Path) -> str:
    sums = [""]
    for path in sorted(dist.glob(f"{suite.component}/**/Packages*")):
        content = path.read_bytes()
        sums.append(f" {hashlib.sha256(content).hexdigest()} {len(content)} {path.relative_to(dist)}")
    fields = {
        "Origin": suite.origin,
        "Label": suite.label,
        "Suite": suite.name,
        "Codename": suite.name,
        "Date": email.utils.formatdate(usegmt=True).replace("GMT", "UTC"),
        "Architectures": architecture(),
        "Components": suite.component,
        "SHA256": "\n".join(sums),
    }
    return control.paragraph(fields)


def architecture() -> str:
    """This machine's architecture by Debian's name."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def signers(names: Iterable[str]) -> dict[str, Signer]:
    """One signing key for each name. Close them when all is signed."""
    return {
        name: Signer(Path(tempfile.mkdtemp(prefix="provision-lab-")) / name, f"provision lab: {name}") for name in names
    }


def discard(keys: dict[str, Signer], into: Path) -> None:
    """Writes the public keys as `into`/NAME.asc and throws the private ones away."""
    for name, signer in keys.items():
        into.joinpath(f"{name}.asc").write_text(signer.public)
        signer.close()
        shutil.rmtree(signer.ring.parent)
