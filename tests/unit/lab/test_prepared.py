"""Prepared hosts: what a lab replaces in their files, and labs that cannot have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from provision_lab import Lab, LabError, LabHost, prepared
from provision_lab.certificates import Authority


def test_addresses_become_those_of_the_lab(tmp_path: Path) -> None:
    """In the recorded files, and in the names of apt's lists; other numbers and the file's mode stay."""
    prepared.Addresses("198.18.3.1", "198.18.3.10", {"server": ["etc/sources", "etc/hosts"], "runner": []}).save(
        tmp_path
    )
    root = tmp_path / "root"
    lists = root / "var/lib/apt/lists"
    lists.mkdir(parents=True)
    (root / "etc").mkdir()
    lists.joinpath("198.18.3.1:8080_debian_InRelease").write_text("1")
    root.joinpath("etc/sources").write_text("URIs: http://198.18.3.1:8080/debian\nPin: origin 198.18.3.1\n")
    root.joinpath("etc/sources").chmod(0o600)
    root.joinpath("etc/hosts").write_text("198.18.3.10 gitlab\n198.18.3.11 other\n")
    root.joinpath("etc/other").write_text("198.18.3.10")
    prepared.readdress(tmp_path, "server", root, "198.18.7.1", "198.18.7.12")
    assert root.joinpath("etc/sources").read_text() == "URIs: http://198.18.7.1:8080/debian\nPin: origin 198.18.7.1\n"
    assert root.joinpath("etc/sources").stat().st_mode & 0o777 == 0o600
    assert root.joinpath("etc/hosts").read_text() == "198.18.7.12 gitlab\n198.18.3.11 other\n"
    assert root.joinpath("etc/other").read_text() == "198.18.3.10"
    assert [path.name for path in lists.iterdir()] == ["198.18.7.1:8080_debian_InRelease"]


@pytest.mark.parametrize(
    "options", [{}, {"prepared": Path("/x"), "internet": True}, {"prepared": Path("/x"), "ipv6": True}]
)
def test_labs_that_cannot_have_prepared_hosts(options: dict[str, Any]) -> None:
    """Without the folder of their layers, or with addresses and packages that they were not prepared with."""
    with pytest.raises(LabError, match="prepared hosts need"):
        Lab("x", [LabHost("gitlab", prepared="server")], **options)


def test_labs_share_an_authority(tmp_path: Path) -> None:
    """What it signs after it was loaded has the same issuer and authority."""
    made = Authority("of all")
    tmp_path.joinpath("ca.pem").write_text(made.certificate)
    tmp_path.joinpath("ca.key").write_text(made.key)
    loaded = Authority.load(tmp_path)
    assert (loaded.certificate, loaded.key) == (made.certificate, made.key)
    assert loaded.issue(["gitlab.lab.test"], []).fullchain.endswith(made.certificate)
