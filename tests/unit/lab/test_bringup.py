"""Files that a lab writes into a host's tree before it boots."""

from __future__ import annotations

from pathlib import Path

from provision_lab.bringup import Tree, _keep_few_authorities


def test_hosts_without_internet_have_few_authorities(tmp_path: Path) -> None:
    """The first five of those that are selected; comments and deselected ones (`!`) are left out."""
    names = [f"mozilla/Authority_{number}.crt" for number in range(9)]
    file = tmp_path / "etc/ca-certificates.conf"
    file.parent.mkdir()
    file.write_text("# A comment\n!mozilla/Old.crt\n" + "".join(f"{name}\n" for name in names))
    _keep_few_authorities(Tree(tmp_path))
    assert file.read_text().splitlines() == names[:5]
