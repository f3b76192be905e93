"""Files that a lab writes into a host's tree before it boots."""

from __future__ import annotations

from pathlib import Path

from provision_lab.bringup import Tree, _keep_few_authorities, _mask_generators


def test_hosts_without_internet_have_few_authorities(tmp_path: Path) -> None:
    """The first five of those that are selected; comments and deselected ones (`!`) are left out."""
    names = [f"mozilla/Authority_{number}.crt" for number in range(9)]
    file = tmp_path / "etc/ca-certificates.conf"
    file.parent.mkdir()
    file.write_text("# A comment\n!mozilla/Old.crt\n" + "".join(f"{name}\n" for name in names))
    _keep_few_authorities(Tree(tmp_path))
    assert file.read_text().splitlines() == names[:5]


def test_systemds_own_generators_are_masked(tmp_path: Path) -> None:
    """Those of other packages run."""
    folder = tmp_path / "usr/lib/systemd/system-generators"
    folder.mkdir(parents=True)
    for name in ("systemd-fstab-generator", "sshd-socket-generator"):
        folder.joinpath(name).write_text("")
    _mask_generators(Tree(tmp_path))
    masks = list(tmp_path.joinpath("etc/systemd/system-generators").iterdir())
    assert [(path.name, str(path.readlink())) for path in masks] == [("systemd-fstab-generator", "/dev/null")]
