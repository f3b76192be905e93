"""Replacing a file, by each shell, on real file systems."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from provision.host.files import replace
from provision.host.scripts import CHANGED_MEANWHILE, NOTHING_CHANGED
from provision.shell import Result
from provision.testing import LocalSession
from tests.support.local import Local, one_shell, text_of

ME = f"{os.getuid()}:{os.getgid()}"


def write(host: LocalSession, path: Path, content: str | bytes, check: str = "", keep: bool = False) -> Result:
    """Replaces a file, mode 0640."""
    return host.run(replace(str(path), content, mode="0640", owner=ME, check=check, keep=keep), deadline=10)


def backups(home: Path) -> list[str]:
    """Contents of the backups, oldest first."""
    return [one.read_text() for one in sorted((home / "backup").iterdir())]


def mode(path: Path) -> int:
    """Permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


@one_shell
class TestReplace:
    """`replace` on a real file system."""

    def test_a_new_file_has_its_content_and_mode_and_no_backup(
        self, host: LocalSession, tmp_path: Path, home: Path
    ) -> None:
        """Folders on the way are made; nothing else is left behind."""
        target = tmp_path / "etc" / "deep" / "it's a file.json"
        assert write(host, target, b"\x00\xff new\n").code == 0
        assert target.read_bytes() == b"\x00\xff new\n"
        assert mode(target) == 0o640
        assert [one.name for one in target.parent.iterdir()] == [target.name]
        assert not home.exists()

    def test_the_file_is_another_inode_and_the_old_one_is_backed_up(
        self, host: LocalSession, tmp_path: Path, home: Path
    ) -> None:
        """Who has the old file open goes on reading the old bytes: it is renamed over, not written into."""
        target = tmp_path / "daemon.json"
        target.write_text("old\n")
        with target.open() as reader:
            write(host, target, "new\n")
            assert reader.read() == "old\n"
        assert target.read_text() == "new\n"
        assert backups(home) == ["old\n"]
        assert mode(home / "backup") == 0o700
        assert {mode(one) for one in (home / "backup").iterdir()} == {0o600}

    @staticmethod
    def keep(home: Path, target: Path, count: int, text: str) -> None:
        """Backups as earlier runs left them, oldest first."""
        name = str(target)[1:].replace("/", "_")
        (home / "backup").mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (home / "backup" / f"{name}.20260101T0000{number:02}.000000000").write_text(f"{text} {number}\n")

    def test_the_last_ten_backups_of_a_file_are_kept(self, host: LocalSession, tmp_path: Path, home: Path) -> None:
        """The oldest go."""
        target = tmp_path / "file"
        self.keep(home, target, 12, "old")
        write(host, target, "first\n")
        assert len(backups(home)) == 12  # there was nothing to back up yet
        write(host, target, "second\n")
        assert backups(home) == [*(f"old {number}\n" for number in range(3, 12)), "first\n"]

    def test_a_file_whose_name_begins_alike_keeps_its_own_backups(
        self, host: LocalSession, tmp_path: Path, home: Path
    ) -> None:
        """`x` and `x.conf` are two files: edits of the one do not push out the backups of the other."""
        target = tmp_path / "x"
        self.keep(home, tmp_path / "x.conf", 9, "conf")
        self.keep(home, target, 10, "x")
        write(host, target, "first\n")
        write(host, target, "second\n")
        kept = backups(home)
        assert len([one for one in kept if one.startswith("conf")]) == 9
        assert [one for one in kept if not one.startswith("conf")] == [*(f"x {n}\n" for n in range(1, 10)), "first\n"]

    def test_a_refused_file_never_appears(self, host: LocalSession, tmp_path: Path, home: Path) -> None:
        """The checker's words come back, the old file stays, no temporary file, no backup."""
        target = tmp_path / "daemon.json"
        target.write_text("old\n")
        result = write(host, target, "new\n", check='grep -q good "$new" || { echo "not good" >&2; exit 1; }')
        assert (result.code, result.errors) == (NOTHING_CHANGED, "not good\n")
        assert target.read_text() == "old\n"
        assert sorted(one.name for one in tmp_path.iterdir()) == ["daemon.json"]
        assert not home.exists()

    def test_the_check_sees_the_new_file_with_its_final_mode(self, host: LocalSession, tmp_path: Path) -> None:
        """Checkers that depend on modes see the final one."""
        target = tmp_path / "file"
        assert write(host, target, "good\n", check='test "$(stat -c %a "$new")" = 640 && grep -q good "$new"').code == 0
        assert target.read_text() == "good\n"

    def test_a_secret_is_never_readable_by_others(self, host: LocalSession, tmp_path: Path) -> None:
        """Not even for the moment before its mode is set: the new file is born 0600, in a folder of mode 0700."""
        target = tmp_path / "key"
        command = replace(str(target), "secret", mode="0600", owner=ME)
        born = command.script.replace('chown -h -- "$owner" new', 'stat -c %a . new; chown -h -- "$owner" new')
        assert born != command.script
        assert text_of(host, f"umask 000; {born}").stdout == b"700\n600\n"

    def test_a_symlink_is_followed(self, host: LocalSession, tmp_path: Path) -> None:
        """The link stays a link; what it points at is replaced in its own folder."""
        real = tmp_path / "real"
        real.mkdir()
        (real / "gitlab.rb").write_text("old\n")
        link = tmp_path / "gitlab.rb"
        link.symlink_to("real/gitlab.rb")
        assert write(host, link, "new\n").code == 0
        assert link.is_symlink()
        assert (real / "gitlab.rb").read_text() == "new\n"
        assert [one.name for one in real.iterdir()] == ["gitlab.rb"]

    def test_a_dangling_symlink_gets_its_target(self, host: LocalSession, tmp_path: Path) -> None:
        """Whoever made the link wants its target."""
        link = tmp_path / "link"
        link.symlink_to(tmp_path / "elsewhere" / "file")
        assert write(host, link, "new\n").code == 0
        assert link.is_symlink()
        assert link.read_text() == "new\n"

    def test_keep_leaves_the_mode_of_a_file_that_is_there(self, host: LocalSession, tmp_path: Path) -> None:
        """Files of others keep who may read them."""
        target = tmp_path / "file"
        target.write_text("old\n")
        target.chmod(0o604)
        write(host, target, "new\n", keep=True)
        assert mode(target) == 0o604
        fresh = tmp_path / "fresh"
        write(host, fresh, "new\n", keep=True)
        assert mode(fresh) == 0o640

    @pytest.mark.root
    def test_keep_leaves_the_owner_of_a_file_that_is_there(self, host: LocalSession, tmp_path: Path) -> None:
        """Without `keep` the owner is the one that is wanted."""
        target = tmp_path / "file"
        target.write_text("old\n")
        os.chown(target, 12, 34)
        write(host, target, "new\n", keep=True)
        assert (target.stat().st_uid, target.stat().st_gid) == (12, 34)
        write(host, target, "newer\n")
        assert (target.stat().st_uid, target.stat().st_gid) == (0, 0)

    def test_what_a_killed_run_left_is_deleted(self, host: LocalSession, tmp_path: Path) -> None:
        """Also what version 0.1.0 left."""
        (tmp_path / ".file.provision").write_text("half a fi")
        (tmp_path / ".file.provision.abcdef").mkdir()
        (tmp_path / ".file.provision.abcdef/new").write_text("half a fi")
        (tmp_path / ".file.provision.abcdef.new").write_text("whole")
        write(host, tmp_path / "file", "whole\n")
        assert [one.name for one in tmp_path.iterdir()] == ["file"]
        assert (tmp_path / "file").read_text() == "whole\n"

    @pytest.mark.root
    def test_a_full_disk_leaves_the_old_file(self, host: LocalSession, small_disk: Path) -> None:
        """The change fails with the system's words; no half file, no temporary file that fills the disk for good."""
        target = small_disk / "file"
        target.write_text("old\n")
        result = write(host, target, "x" * 200_000)
        assert result.code != 0
        assert "No space left on device" in result.errors
        assert target.read_text() == "old\n"
        assert [one.name for one in small_disk.iterdir()] == ["file"]

    @pytest.mark.root
    def test_a_full_disk_under_the_backups_leaves_the_old_file(
        self, small_disk: Path, tmp_path: Path, local: Local
    ) -> None:
        """Nothing is replaced that could not be kept."""
        host = local({"/var/lib/provision": small_disk / "home"})
        target = tmp_path / "file"
        target.write_text("old" * 50_000)
        result = write(host, target, "new\n")
        assert "No space left on device" in result.errors
        assert target.read_text() == "old" * 50_000
        assert ".file.provision" not in [one.name for one in tmp_path.iterdir()]

    @pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/self/ns").exists(), reason="needs Linux")
    def test_a_reader_sees_the_old_or_the_new_file_and_nothing_between(
        self, host: LocalSession, tmp_path: Path
    ) -> None:
        """Read again and again while it is replaced: always whole, never missing."""
        target = tmp_path / "file"
        whole = {letter * 100_000 for letter in "abcde"}
        target.write_text("a" * 100_000)
        seen: set[str] = set()
        done = threading.Event()

        def read() -> None:
            while not done.is_set():
                seen.add(target.read_text())

        reader = threading.Thread(target=read)
        reader.start()
        for letter in "bcde":
            write(host, target, letter * 100_000)
        done.set()
        reader.join()
        assert seen <= whole
        assert "e" * 100_000 in seen | {target.read_text()}


@one_shell
class TestRaces:
    """`seen`: the file must hold what was observed."""

    @staticmethod
    def write(host: LocalSession, path: Path, seen: bytes | None) -> Result:
        """Replaces what held `seen`."""
        return host.run(replace(str(path), "new\n", mode="0640", owner=ME, seen=seen), deadline=10)

    @pytest.mark.parametrize("content", [b"old\n", b"", b"\xff\x00", b"no newline"])
    def test_it_still_holds_it(self, host: LocalSession, tmp_path: Path, content: bytes) -> None:
        """Replaced."""
        (tmp_path / "file").write_bytes(content)
        assert self.write(host, tmp_path / "file", content).code == 0
        assert (tmp_path / "file").read_text() == "new\n"

    def test_it_holds_something_else(self, host: LocalSession, tmp_path: Path, home: Path) -> None:
        """Nothing is replaced, backed up or left behind; the code is one of its own."""
        (tmp_path / "file").write_text("theirs\n")
        result = self.write(host, tmp_path / "file", b"old\n")
        assert (result.code, result.errors) == (
            CHANGED_MEANWHILE,
            f"{tmp_path}/file was changed by another program in the meantime\n",
        )
        assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("file", "theirs\n")]
        assert not home.exists()

    def test_it_was_not_there_and_is_now(self, host: LocalSession, tmp_path: Path) -> None:
        """Another program created it."""
        (tmp_path / "file").write_text("theirs\n")
        assert self.write(host, tmp_path / "file", b"").code == CHANGED_MEANWHILE

    def test_it_is_still_not_there(self, host: LocalSession, tmp_path: Path) -> None:
        """Created."""
        assert self.write(host, tmp_path / "file", b"").code == 0
        assert (tmp_path / "file").read_text() == "new\n"


class TestShells:
    """The same in each shell."""

    def test_replaced_kept_refused_and_changed(self, host: LocalSession, tmp_path: Path, home: Path) -> None:
        """One file through all ways: created, replaced with its mode, refused by its check, changed in the meantime."""
        target = tmp_path / "it's a file"
        assert write(host, target, b"\xff first\n").code == 0
        target.chmod(0o604)
        assert write(host, target, "second\n", check='grep -q second "$new"', keep=True).code == 0
        assert (target.read_text(), mode(target)) == ("second\n", 0o604)
        assert write(host, target, "third\n", check="false; true").code == NOTHING_CHANGED
        changed = replace(str(target), "fourth\n", mode="0640", owner=ME, seen=b"other\n")
        assert host.run(changed, deadline=10).code == CHANGED_MEANWHILE
        assert target.read_text() == "second\n"
        assert [one.read_bytes() for one in (home / "backup").iterdir()] == [b"\xff first\n"]
        assert [one.name for one in tmp_path.iterdir() if one != home] == [target.name]

    def test_rollback_copy_is_made_once(self, host: LocalSession, tmp_path: Path, home: Path) -> None:
        """Of the content before the first change, or a marker for no file."""
        target = tmp_path / "file"
        for content in ("one\n", "two\n"):
            command = replace(str(target), content, mode="0640", owner=ME, rollback="/var/lib/provision/rollback/file")
            assert host.run(command, deadline=10).code == 0
        assert [one.name for one in (home / "rollback").iterdir()] == ["file.none"]
        (home / "rollback/file.none").unlink()
        for content in ("three\n", "four\n"):
            command = replace(str(target), content, mode="0640", owner=ME, rollback="/var/lib/provision/rollback/file")
            assert host.run(command, deadline=10).code == 0
        assert (home / "rollback/file").read_text() == "two\n"
