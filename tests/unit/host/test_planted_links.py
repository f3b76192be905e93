"""What root writes in a folder that another user may write to: links and exchanged names do not lead it elsewhere."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from provision.host.files import replace
from provision.host.scripts import NOTHING_CHANGED, script
from provision.shell import Command, Result
from provision.testing import LocalSession
from tests.support.local import Local, one_shell
from tests.support.programs import Programs

NOBODY: Final = 65534
ME: Final = "root:root"
BACKUP: Final = "/var/lib/provision/backup"
pytestmark = [pytest.mark.slow, pytest.mark.root]


@pytest.fixture
def theirs() -> Iterator[Path]:
    """A folder of the user nobody, in one that everybody can enter; beside it a file `victim` of root, mode 0600."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        folder = Path(name) / "theirs"
        folder.mkdir()
        os.chown(folder, NOBODY, NOBODY)
        victim = Path(name) / "victim"
        victim.write_text("root's\n")
        victim.chmod(0o600)
        yield folder


@pytest.fixture
def host(tmp_path: Path, local: Local) -> LocalSession:
    """This machine as a host."""
    return local({"/var/lib/provision": tmp_path / "home"})


def victim(folder: Path) -> tuple[str, int, int]:
    """Content, owner and mode of the file that root must not touch."""
    file = folder.parent / "victim"
    return file.read_text(), file.stat().st_uid, stat.S_IMODE(file.stat().st_mode)


UNTOUCHED: Final = ("root's\n", 0, 0o600)


def plant(folder: Path, name: str) -> None:
    """A link of the user nobody to the victim."""
    (folder / name).symlink_to("../victim")
    os.lchown(folder / name, NOBODY, NOBODY)


def run(host: LocalSession, command: Command) -> Result:
    """Runs a command."""
    return host.run(command, deadline=20)


@contextmanager
def attacker(folder: Path) -> Iterator[None]:
    """The user nobody exchanges whatever appears in its folder for a link to the victim, as fast as it can."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.chdir(folder)
            os.write(writer, b"x")
            while True:
                for one in Path().iterdir():
                    if one.name.startswith(".") and not one.is_symlink():
                        with suppress(OSError):
                            one.rename(f"{one}-moved")
                            one.symlink_to("../victim")
        finally:
            os._exit(1)
    assert os.read(reader, 1) == b"x"
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)


class TestReplace:
    """`replace`."""

    def test_a_planted_temporary_name_is_not_followed(self, host: LocalSession, theirs: Path) -> None:
        """The name that earlier versions used is such a link."""
        plant(theirs, ".file.provision")
        assert run(host, replace(f"{theirs}/file", "new\n", mode="0644", owner=ME)).code == 0
        assert (theirs / "file").read_text() == "new\n"
        assert not (theirs / "file").is_symlink()
        assert victim(theirs) == UNTOUCHED
        assert [one.name for one in theirs.iterdir()] == ["file"]

    @one_shell
    @pytest.mark.parametrize("check", ["", "sleep 0.05"])
    def test_names_that_are_exchanged_meanwhile_lead_nowhere(
        self, host: LocalSession, theirs: Path, check: str
    ) -> None:
        """The file is written or the step fails; the victim keeps content, owner and mode."""
        with attacker(theirs):
            for number in range(20):
                run(host, replace(f"{theirs}/file", f"{number}\n", mode="0666", owner="nobody:nogroup", check=check))
        assert victim(theirs) == UNTOUCHED

    def test_a_link_of_another_user_is_refused(self, host: LocalSession, theirs: Path) -> None:
        """As the file, and as a folder on the way."""
        plant(theirs, "file")
        (theirs / "folder").symlink_to("..")
        os.lchown(theirs / "folder", NOBODY, NOBODY)
        for path in (theirs / "file", theirs / "folder" / "victim"):
            result = run(host, replace(str(path), "new\n", mode="0644", owner="nobody:nogroup"))
            assert result.code == NOTHING_CHANGED
            assert "is a symbolic link that belongs to nobody: root does not follow it" in result.errors
        assert victim(theirs) == UNTOUCHED

    def test_a_link_of_root_is_followed(self, host: LocalSession, theirs: Path) -> None:
        """Root may write the file anyway. The link is relative, absolute, dangling, or one of several in a row."""
        real = theirs.parent / "real"
        (theirs / "one").symlink_to("../two")
        (theirs.parent / "two").symlink_to(real / "file")
        assert run(host, replace(f"{theirs}/one", "new\n", mode="0644", owner=ME)).code == 0
        assert (real / "file").read_text() == "new\n"
        assert (theirs / "one").is_symlink()

    def test_links_in_a_circle_end(self, host: LocalSession, theirs: Path) -> None:
        """With a message."""
        (theirs / "a").symlink_to("b")
        (theirs / "b").symlink_to("a")
        result = run(host, replace(f"{theirs}/a", "new\n", mode="0644", owner=ME))
        assert (result.code, result.errors) == (
            NOTHING_CHANGED,
            f"{theirs}/a leads through too many symbolic links\n",
        )

    @one_shell
    def test_a_folder_with_the_files_name_is_no_place_for_it(self, host: LocalSession, theirs: Path) -> None:
        """It is not moved into it."""
        (theirs / "file").mkdir()
        assert run(host, replace(f"{theirs}/file", "new\n", mode="0644", owner=ME)).code == NOTHING_CHANGED
        assert list((theirs / "file").iterdir()) == []


class TestNeverWider:
    """Who may not read the old file cannot read the new one at any moment."""

    WATCHED: Final = ("cat", "chmod", "chown", "cp", "ln", "mv", "rm", "sync", "mktemp", "stat")

    @pytest.fixture
    def watched(self, theirs: Path, tmp_path: Path, local: Local) -> tuple[LocalSession, Path]:
        """A session in which, after each program, the user nobody looks for files to read; and what it found."""
        folder, found = theirs.parent / "docker", theirs.parent / "found"
        folder.mkdir()
        programs = Programs(tmp_path / "programs")
        look = f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups find {folder} -type f -readable 2>/dev/null"
        for name in self.WATCHED:
            real = f"/usr/bin/{name}"
            programs.add(name, f'{real} "$@"; code=$?; {look} >> {found}; exit $code')
        return local(
            {"/var/lib/provision": tmp_path / "home"}, {"PATH": f"{programs.path}:{os.environ['PATH']}"}
        ), found

    @one_shell
    @pytest.mark.parametrize("check", ["", 'test -s "$new"'])
    def test_while_it_is_replaced(self, watched: tuple[LocalSession, Path], check: str) -> None:
        """A daemon.json of mode 0600, since it holds the password of a proxy."""
        host, found = watched
        file = found.parent / "docker" / "daemon.json"
        file.write_text("{}")
        file.chmod(0o600)
        command = replace(str(file), '{"a": 1}', mode="0644", owner=ME, keep=True, check=check)
        assert run(host, command).code == 0
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert found.read_text() == ""

    @one_shell
    def test_while_it_is_rolled_back(self, watched: tuple[LocalSession, Path], tmp_path: Path) -> None:
        """The rollback copy has its mode; the file gets mode and time of before."""
        host, found = watched
        file, copy = found.parent / "docker" / "daemon.json", tmp_path / "home" / "rollback" / "daemon.json"
        copy.parent.mkdir(parents=True)
        copy.write_text("old")
        copy.chmod(0o600)
        os.utime(copy, ns=(1, 1_500_000_000_123_456_789))
        file.write_text("new")
        file.chmod(0o600)
        body = script(
            "restart_docker", str(file), "/var/lib/provision/rollback/daemon.json", "/var/lib/provision/pending"
        )
        Programs(tmp_path / "programs").add("systemctl", "exit 1")
        assert run(host, body).code == 1
        assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("old", 0o600)
        assert file.stat().st_mtime_ns == 1_500_000_000_123_456_789
        assert found.read_text() == ""


class TestAccess:
    """`set_access` and `make_directory`."""

    def test_mode_and_owner_of_a_file_and_a_folder(self, host: LocalSession, theirs: Path) -> None:
        """Both are set; nothing else is left behind."""
        (theirs / "file").write_text("x")
        (theirs / "folder").mkdir()
        for name, mode in (("file", "0640"), ("folder", "0710")):
            assert run(host, script("set_access", f"{theirs}/{name}", mode, "nobody:nogroup")).code == 0
            found = (theirs / name).stat()
            assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (NOBODY, int(mode, 8))
        assert run(host, script("set_access", f"{theirs}/file", "0600", "")).code == 0
        assert (theirs / "file").stat().st_uid == NOBODY
        assert sorted(one.name for one in theirs.iterdir()) == ["file", "folder"]

    def test_a_link_of_another_user_is_refused(self, host: LocalSession, theirs: Path) -> None:
        """Its target keeps owner and mode."""
        plant(theirs, "file")
        assert run(host, script("set_access", f"{theirs}/file", "0666", "nobody:nogroup")).code == NOTHING_CHANGED
        assert victim(theirs) == UNTOUCHED

    @one_shell
    def test_a_file_that_is_exchanged_meanwhile(self, host: LocalSession, theirs: Path) -> None:
        """The victim keeps owner and mode."""
        with attacker(theirs):
            for _ in range(30):
                run(host, replace(f"{theirs}/.file", "x", mode="0600", owner="nobody:nogroup"))
                run(host, script("set_access", f"{theirs}/.file", "0666", "nobody:nogroup"))
        assert victim(theirs) == UNTOUCHED

    def test_a_new_folder(self, host: LocalSession, theirs: Path) -> None:
        """Those above it are root's, with 0755."""
        assert run(host, script("make_directory", f"{theirs}/a/b", "0750", "nobody:nogroup")).code == 0
        above, made = (theirs / "a").stat(), (theirs / "a/b").stat()
        assert (above.st_uid, stat.S_IMODE(above.st_mode)) == (0, 0o755)
        assert (made.st_uid, stat.S_IMODE(made.st_mode)) == (NOBODY, 0o750)
        (theirs / "link").symlink_to("..")
        os.lchown(theirs / "link", NOBODY, NOBODY)
        result = run(host, script("make_directory", f"{theirs}/link/c", "0777", "nobody:nogroup"))
        assert result.code == NOTHING_CHANGED
        assert not (theirs.parent / "c").exists()


class TestOtherScripts:
    """Links under the temporary names that earlier versions used, for each script that writes files."""

    NAMES: Final = (
        *(".file.provision", ".file.provision-old", ".file.download", "file.provision", "file.new", "file.before"),
        *("file.gone", ".file.download.new"),
    )

    @staticmethod
    def fragment(path: Path) -> Command:
        return script("write_fragment", str(path), "0644", ME, "true", BACKUP).reading("new\n")

    @staticmethod
    def refused_fragment(path: Path) -> Command:
        return script("write_fragment", str(path), "0644", ME, "false", BACKUP).reading("other\n")

    @staticmethod
    def certificate(path: Path) -> Command:
        return script("replace_certificate", str(path), f"{path}.key", BACKUP, "bmV3Cg==").reading("key")

    @staticmethod
    def refused_certificate(path: Path) -> Command:
        Path(f"{path}.key").mkdir()
        return script("replace_certificate", str(path), f"{path}.key", BACKUP, "b3RoZXIK").reading("key")

    @staticmethod
    def ca(path: Path) -> Command:
        return script("write_ca", str(path.parent), 1, path.name, "new\n")

    @pytest.mark.parametrize("make", [fragment, refused_fragment, certificate, refused_certificate, ca])
    def test_are_not_followed(
        self, theirs: Path, tmp_path: Path, local: Local, make: Callable[[Path], Command]
    ) -> None:
        """The file is right, the victim untouched."""
        programs = Programs(tmp_path / "programs")
        programs.add("update-ca-certificates")
        host = local({"/var/lib/provision": tmp_path / "home"}, {"PATH": f"{programs.path}:{os.environ['PATH']}"})
        file = theirs / "file"
        file.write_text("new\n")
        for name in self.NAMES:
            plant(theirs, name)
        result = run(host, make(file))
        assert result.code == (NOTHING_CHANGED if "refused" in make.__name__ else 0), result.errors
        assert file.read_text() == "new\n"
        assert victim(theirs) == UNTOUCHED

    def test_a_downloaded_file(self, host: LocalSession, theirs: Path, serve: Callable[..., Any], reply: Any) -> None:
        """Also while names are exchanged."""
        content = b"tool\n"
        checksum = hashlib.sha256(content).hexdigest()
        web = serve(lambda _: reply(200, content))
        for name in self.NAMES:
            plant(theirs, name)
        command = script(
            "download", f"{web.url}/x", f"{theirs}/file", checksum, "0755", "nobody:nogroup", "", "http", 60
        )
        result = run(host, command)
        assert result.code == 0, result.errors
        assert (theirs / "file").read_bytes() == content
        with attacker(theirs):
            for _ in range(5):
                run(host, command)
        assert victim(theirs) == UNTOUCHED
