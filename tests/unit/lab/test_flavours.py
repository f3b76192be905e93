"""Systems that the base image is made like, without building one."""

from pathlib import Path

import pytest

from provision.cli import exit_code_of
from provision_lab import LabError, LabHost
from provision_lab.flavours import FLAVOURS, Flavour, OsRelease
from provision_lab.hosts import Server
from provision_lab.image import DEFAULT_SUITE, Image
from provision_lab.state import LabInfo, Record

RELEASE = OsRelease("26.04", "26.04.1 LTS", "resolute", "Resolute Raccoon")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with two sets of programs."""
    for path in ("usr/bin/ls", "usr/bin/cp", "usr/sbin/chroot", "usr/bin/sudo", "usr/bin/sudo-rs", "usr/lib/new/ls"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    for name in ("cp", "chroot", "b3sum"):
        (tmp_path / "usr/lib/new" / name).write_text("new")
    return tmp_path


def test_programs_take_the_places_of_others(root: Path) -> None:
    """Those of the folder where there is one of the same name, except the kept ones; and each single link."""
    links = (("usr/bin/sudo", "usr/bin/sudo-rs"),)
    Flavour("sid", RELEASE, links=links, folder="usr/lib/new", kept=("cp",)).apply(root)
    found = {str(path.relative_to(root)): str(path.readlink()) for path in root.rglob("*") if path.is_symlink()}
    assert found == {
        "usr/bin/ls": "/usr/lib/new/ls",
        "usr/sbin/chroot": "/usr/lib/new/chroot",
        "usr/bin/sudo": "/usr/bin/sudo-rs",
    }


def test_a_program_that_is_missing(root: Path) -> None:
    """The build fails instead of making an image that is not like it."""
    with pytest.raises(LabError, match="has no /usr/bin/doas"):
        Flavour("sid", RELEASE, links=(("usr/bin/sudo", "usr/bin/doas"),)).apply(root)


def test_the_image_has_a_key_of_its_own() -> None:
    """Neither the default image nor a plain sid is taken for it."""
    flavoured = Image.like("ubuntu-26.04")
    assert flavoured == Image(FLAVOURS["ubuntu-26.04"].suite, flavour="ubuntu-26.04")
    assert len({flavoured.key, Image().key, Image(flavoured.suite).key}) == 3


@pytest.mark.parametrize(
    ("image", "ubuntu", "system", "codename"),
    [
        (Image(), False, "debian", None),
        (Image(), True, "ubuntu", "noble"),
        (Image.like("ubuntu-26.04"), False, "ubuntu", "resolute"),
        (Image.like("ubuntu-26.04"), True, "ubuntu", "resolute"),
    ],
)
def test_what_a_host_says_it_is(image: Image, ubuntu: bool, system: str, codename: str | None) -> None:
    """Its os-release, and the repositories that it gets."""
    host = LabHost("a", ubuntu=ubuntu)
    lab = LabInfo()
    lab._record = Record("x", "198.18.3.0/24", (host,), image, Server())
    told = lab.os_release(host)
    assert (lab.system(host), told and told.codename) == (system, codename)


def test_repositories_have_its_release() -> None:
    """GitLab's URL names the release; Debian's stays for hosts that say Debian."""
    assert Image.like("ubuntu-26.04").codenames == {"debian": DEFAULT_SUITE, "ubuntu": "resolute"}
    assert Image().codenames == {"debian": DEFAULT_SUITE, "ubuntu": "noble"}


def test_os_release() -> None:
    """The keys that tasks read, and those that people see."""
    os_release, lsb = RELEASE.files["usr/lib/os-release"], RELEASE.files["etc/lsb-release"]
    assert 'PRETTY_NAME="Ubuntu 26.04.1 LTS"\n' in os_release
    assert 'VERSION_ID="26.04"\n' in os_release
    assert "\nID=ubuntu\n" in os_release
    assert "VERSION_CODENAME=resolute\n" in os_release
    assert "DISTRIB_CODENAME=resolute\n" in lsb


@pytest.mark.parametrize("other", [["--ubuntu"], ["--suite", "trixie"], ["--mirror", "http://x/ubuntu"]])
def test_like_goes_with_no_other_image(
    other: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two descriptions of one image are bad usage; nothing is made."""
    monkeypatch.setenv("PROVISION_LAB_STATE", str(tmp_path / "state"))
    assert exit_code_of(["lab", "up", "--like", "ubuntu-26.04", *other]) == 2
    assert "--like cannot be combined" in capsys.readouterr().err
    assert not (tmp_path / "state").exists()
