"""The lab's packages and repositories, read by dpkg and by apt's own checks."""

import gzip
import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from provision_lab import packages
from provision_lab.repository import Suite, discard, signers, write

pytestmark = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("dpkg-deb", "gpg", "gpgv")), reason="needs dpkg-deb, gpg and gpgv"
)
FIELDS = {
    "Package": "tool",
    "Version": "5:1.0-1~debian.12~bookworm",
    "Architecture": "all",
    "Maintainer": "a <a@lab.test>",
}


@pytest.fixture
def deb(tmp_path: Path) -> Path:
    """A package of one program and one maintainer script."""
    program = tmp_path / "tree" / "usr" / "bin" / "tool"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho tool\n")
    program.chmod(0o755)
    data = packages.pack(tmp_path / "tree", tmp_path / "data.tar.zst")
    out = tmp_path / "out"
    out.mkdir()
    return packages.write_deb(out, FIELDS | {"Description": "a tool\n of two lines"}, {"postinst": "#!/bin/sh\n"}, data)


def output(*argv: str | Path) -> str:
    """The output of a program that must succeed."""
    return subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=True).stdout


def test_dpkg_reads_the_package(deb: Path, tmp_path: Path) -> None:
    """dpkg-deb reads fields, script, files, owner and mode."""
    assert deb.name == "tool_1.0-1~debian.12~bookworm_all.deb"
    assert output("dpkg-deb", "--field", deb, "Package", "Version") == (
        "Package: tool\nVersion: 5:1.0-1~debian.12~bookworm\n"
    )
    assert packages.fields_of(deb)["Description"] == "a tool\n of two lines"
    listing = output("dpkg-deb", "--contents", deb)
    assert "-rwxr-xr-x root/root" in listing
    assert "./usr/bin/tool" in listing
    output("dpkg-deb", "--raw-extract", deb, tmp_path / "raw")
    assert (tmp_path / "raw" / "DEBIAN" / "postinst").stat().st_mode & 0o777 == 0o755


def test_the_repository_is_signed_and_its_sums_are_true(deb: Path, tmp_path: Path) -> None:
    """gpgv accepts InRelease and Release.gpg with the public key; every sum and size fits its file."""
    server = tmp_path / "server"
    server.mkdir()
    keys = signers(["docker", "gitlab"])
    try:
        write(server, Suite("docker/linux/debian", "bookworm", "stable", "Docker", "Docker CE"), [deb], keys["docker"])
    finally:
        discard(keys, server)
    dist = server / "docker/linux/debian/dists/bookworm"
    for name in ("docker", "gitlab"):
        output(
            "gpg", "--homedir", tmp_path, "--batch", "--dearmor", "-o", tmp_path / f"{name}.gpg", server / f"{name}.asc"
        )
    output("gpgv", "--keyring", tmp_path / "docker.gpg", dist / "InRelease")
    output("gpgv", "--keyring", tmp_path / "docker.gpg", dist / "Release.gpg", dist / "Release")
    with pytest.raises(subprocess.CalledProcessError):
        output("gpgv", "--keyring", tmp_path / "gitlab.gpg", dist / "InRelease")
    sums = packages.parse(dist.joinpath("Release").read_text())["SHA256"].split()
    for digest, size, path in zip(sums[::3], sums[1::3], sums[2::3], strict=True):
        content = dist.joinpath(path).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (digest, int(size))
    index = next(dist.glob("stable/binary-*/Packages"))
    assert gzip.decompress(index.with_suffix(".gz").read_bytes()) == index.read_bytes()
    entry = packages.parse(index.read_text())
    placed = server / "docker/linux/debian" / entry["Filename"]
    assert hashlib.sha256(placed.read_bytes()).hexdigest() == entry["SHA256"]
    assert entry["Size"] == str(deb.stat().st_size)


def test_private_keys_are_thrown_away(tmp_path: Path) -> None:
    """Only the public half of a signing key is kept."""
    keys = signers(["docker"])
    ring = keys["docker"].ring
    discard(keys, tmp_path)
    assert "BEGIN PGP PUBLIC KEY BLOCK" in (tmp_path / "docker.asc").read_text()
    assert not ring.exists()
    assert not ring.parent.exists()
