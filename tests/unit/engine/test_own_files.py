"""Playbooks and templates that other users can change are not executed, whether the user is root or not."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from provision.engine.catalogue import Catalogue
from provision.engine.own_files import trusted_folders

EVIL = "from pathlib import Path\nPath({!r}).touch()\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of playbooks with one that leaves a trace when it is executed."""
    path = tmp_path / "playbooks"
    path.mkdir(mode=0o755)
    (path / "evil.py").write_text(EVIL.format(str(tmp_path / "executed")))
    (path / "evil.py").chmod(0o644)
    return path


def not_executed(folder: Path) -> str:
    """The warnings; the playbook was not executed."""
    warnings = Catalogue.of([folder]).warnings
    assert not (folder.parent / "executed").exists()
    return "\n".join(warnings)


def test_ones_own_folder_is_used(folder: Path) -> None:
    """It belongs to this user, and no other user can write to it."""
    assert Catalogue.of([folder]).warnings == []
    assert (folder.parent / "executed").exists()


@pytest.mark.parametrize("mode", [0o777, 0o757, 0o1777])
def test_a_folder_that_every_user_can_write_to(folder: Path, mode: int) -> None:
    """It is skipped, with a warning that says what to do."""
    folder.chmod(mode)
    assert f"{folder}: every user can write to it (run `chmod go-w {folder}`" in not_executed(folder)


def test_a_file_that_every_user_can_write_to(folder: Path) -> None:
    """Only that file is skipped."""
    (folder / "good.py").write_text("from provision import task\n@task()\ndef good(host):\n    yield\n")
    (folder / "evil.py").chmod(0o666)
    assert f"{folder}/evil.py: every user can write to it" in not_executed(folder)
    assert "good" in Catalogue.of([folder]).tasks


def test_group_writable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Allowed if the owner is the only member of the group: some distributions create files like that."""
    folder.chmod(0o775)
    monkeypatch.setattr("provision.engine.own_files._is_private", lambda *_: False)
    assert "can write to it" in not_executed(folder)
    monkeypatch.setattr("provision.engine.own_files._is_private", lambda *_: True)
    assert Catalogue.of([folder]).warnings == []


def test_a_group_with_an_access_control_list(folder: Path) -> None:
    """The bits of the group then stand for the users of the list."""
    none = 0xFFFFFFFF
    entries = [(0x01, 7), (0x02, 7), (0x04, 5), (0x10, 7), (0x20, 5)]  # owner, user, group, mask, others
    acl = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, bits, 65534 if tag == 0x02 else none) for tag, bits in entries
    )
    try:
        os.setxattr(folder, "system.posix_acl_access", acl)  # source: linux/posix_acl_xattr.h
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        pytest.skip("this file system has no access control lists")
    assert "can write to it" in not_executed(folder)


@pytest.mark.parametrize(("number", "used"), [(errno.ENOTSUP, True), (errno.EIO, False)])
def test_an_access_control_list_that_cannot_be_read(
    folder: Path, number: int, used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file system may have none. After any other error nothing is executed."""

    def fail(_: object) -> list[str]:
        raise OSError(number, os.strerror(number))

    folder.chmod(0o775)
    monkeypatch.setattr("provision.engine.own_files._is_private", lambda *_: True)
    monkeypatch.setattr(os, "listxattr", fail)
    assert (Catalogue.of([folder]).warnings == []) == used
    assert (folder.parent / "executed").exists() == used


@pytest.mark.root
class TestOtherOwners:
    """Root executes what belongs to root only."""

    @pytest.mark.parametrize("name", ["", "evil.py"])
    def test_another_users(self, folder: Path, name: str) -> None:
        """A folder, and a file in root's folder."""
        os.chown(folder / name, 65534, 65534)
        assert "it belongs to nobody" in not_executed(folder)

    def test_a_link_of_another_user(self, folder: Path, tmp_path: Path) -> None:
        """It names a file of ours, but the other user chose which."""
        (tmp_path / "link").symlink_to(folder)
        os.chown(tmp_path / "link", 65534, 65534, follow_symlinks=False)
        assert "it belongs to nobody" in not_executed(tmp_path / "link")

    def test_a_group_of_root_with_members(self, folder: Path) -> None:
        """The group of another user."""
        folder.chmod(0o775)
        os.chown(folder, 0, 65534)
        assert "can write to it" in not_executed(folder)

    def test_as_an_unprivileged_user(self) -> None:
        """Root's files and one's own are used; those of a third user are not."""
        with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
            self.check_as_nobody(Path(name))

    def check_as_nobody(self, folder: Path) -> None:
        """Asks as the user nobody about files of root, of daemon and of its own."""
        folder.chmod(0o755)
        for uid in (0, 1, 65534):
            (folder / str(uid)).touch(mode=0o644)
            os.chown(folder / str(uid), uid, uid)
        code = (
            "import os, sys; from pathlib import Path; from provision.engine.own_files import others_can_change;"
            "os.setuid(65534); print([bool(others_can_change(Path(one))) for one in sys.argv[1:]])"
        )
        names = [str(folder / str(uid)) for uid in (0, 1, 65534)]
        ended = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=True)
        assert ended.stdout == "[False, True, False]\n"


def test_planted_bytecode_is_not_executed(folder: Path, tmp_path: Path) -> None:
    """Python would run `__pycache__/NAME.pyc` in place of the source, also if another user wrote it."""
    import importlib.util
    import py_compile

    harmless = folder / "harmless.py"
    harmless.write_text("x = 1\n")
    (tmp_path / "evil.py").write_text(EVIL.format(str(tmp_path / "planted")) + "# " + "x" * 10)
    stat = harmless.stat()
    os.utime(tmp_path / "evil.py", (stat.st_atime, stat.st_mtime))
    cached = Path(importlib.util.cache_from_source(str(harmless)))
    cached.parent.mkdir()
    py_compile.compile(
        str(tmp_path / "evil.py"), str(cached), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
    )
    Catalogue.of([folder])
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize("mode", [0o644, 0o666])
def test_templates(tmp_path: Path, mode: int) -> None:
    """A template can call any function, so the same holds for templates."""
    templates = tmp_path / "templates"
    (templates / "deep").mkdir(parents=True)
    (templates / "deep" / "x.j2").write_text("{{ 1 }}")
    (templates / "deep" / "x.j2").chmod(mode)
    trusted, unused = trusted_folders([templates])
    if mode == 0o644:
        assert (trusted, unused) == ([templates], [])
    else:
        assert trusted == []
        assert f"{templates}/deep/x.j2: every user can write to it" in unused[0].warning
