"""`File` and `Absent`: bare, half done, converged, broken; then applied with a real sh."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision.errors import ProbeFailed
from provision.host.scripts import script
from provision.resources import Absent, File, Handler, Result
from provision.secret import Secret
from provision.shell import sh
from provision.testing import NO_FILE, LocalSession, file_is, notes, observe, observe_on, planned
from tests.support.resources import ME, apply, refuse

RELOAD = Handler("reload", "reload it", sh("systemctl reload it"))
MOTD = File("/etc/motd", "hello\n", notify=(RELOAD,))


def test_bare() -> None:
    """No file: one change creates it, shows its content and notifies the handler."""
    (change,) = planned(MOTD, observe(MOTD, NO_FILE))
    assert (change.summary, change.action) == ("create /etc/motd", "create")
    assert change.diff == "--- /etc/motd (now)\n+++ /etc/motd (wanted)\n@@ -0,0 +1 @@\n+hello"
    assert change.notify == (RELOAD,)
    assert MOTD.handlers == (RELOAD,)


def test_an_empty_file_that_is_wanted_is_created() -> None:
    """An absent file is not an empty one."""
    empty = File("/etc/empty", "")
    assert [one.action for one in planned(empty, observe(empty, NO_FILE))] == ["create"]
    assert planned(empty, observe(empty, file_is(""))) == []


def test_half_done_content() -> None:
    """Another content: the same change sets mode and owner."""
    (change,) = planned(MOTD, observe(MOTD, file_is("good bye\n", "0600", "bob:bob")))
    assert (change.summary, change.action) == ("update /etc/motd", "update")
    assert change.diff.splitlines()[3:] == ["-good bye", "+hello"]


@pytest.mark.parametrize(("mode", "owner"), [("0600", "root:root"), ("0644", "bob:root"), ("4755", "root:root")])
def test_half_done_mode_or_owner(mode: str, owner: str) -> None:
    """The same content: only mode and owner are set, and no handler is notified."""
    (change,) = planned(MOTD, observe(MOTD, file_is("hello\n", mode, owner)))
    assert change.summary == f"set /etc/motd to 0644 root:root (was {mode} {owner})"
    assert change.run == script("set_access", "/etc/motd", "0644", "root:root")
    assert change.notify == ()


def test_converged() -> None:
    """No changes, no notes."""
    seen = observe(MOTD, file_is("hello\n"))
    assert planned(MOTD, seen) == []
    assert notes(MOTD, seen) == []


def test_broken() -> None:
    """A file that cannot be read, for example a directory: the host's own message."""
    seen = observe(MOTD, Result(b"0755 root:root\n", b"cat: /etc/motd: Is a directory\n", 1))
    with pytest.raises(ProbeFailed, match="/etc/motd cannot be read: cat: /etc/motd: Is a directory") as caught:
        planned(MOTD, seen)
    assert caught.value.hint == "check it on the host: ls -ld /etc/motd"


def test_binary_content_is_compared_byte_by_byte() -> None:
    """Bytes that are not UTF-8 are shown, and different ones look different."""
    key = File("/etc/key.gpg", b"\x99\xff\n")
    assert planned(key, observe(key, file_is(b"\x99\xff\n"))) == []
    (change,) = planned(key, observe(key, file_is(b"\x99\xfe\n")))
    assert change.diff.splitlines()[3:] == [r"-\x99\xfe", r"+\x99\xff"]


def test_a_secret_is_in_no_diff_and_no_script() -> None:
    """Its checksum shows that it changed; the text is sent on standard input."""
    key = File("/etc/key", Secret("very-secret-key\n"), mode="0600")
    (change,) = planned(key, observe(key, file_is("old-secret\n", "0600")))
    assert "secret-key" not in change.diff
    assert "old-secret" not in change.diff
    assert change.diff == "--- /etc/key (now)\n+++ /etc/key (wanted)\n(a secret: not shown)"  # no hash either
    assert not callable(change.run)
    command = change.run
    assert "very-secret-key" not in f"{command!r}"
    assert getattr(command, "stdin", b"") == b"very-secret-key\n"


def test_a_known_secret_inside_a_file_is_masked_in_its_diff() -> None:
    """Line by line; the rest is shown."""
    Secret("s3cr3t-in-a-line")
    conf = File("/etc/conf", "user = me\npassword = s3cr3t-in-a-line\n")
    (change,) = planned(conf, observe(conf, file_is("user = me\n")))
    assert change.diff.splitlines()[3:] == [" user = me", "+password = ***"]


def test_differences_in_line_ends_and_secrets() -> None:
    """Lines that look equal are explained."""
    (change,) = planned(MOTD, observe(MOTD, file_is("hello\r\n")))
    assert change.diff.splitlines()[3:] == ["-hello", "+hello", "(the lines differ in secrets or line endings)"]


def test_a_long_diff_is_cut() -> None:
    """400 lines, and the number of further ones."""
    long = File("/etc/long", "".join(f"{number}\n" for number in range(1000)))
    (change,) = planned(long, observe(long, NO_FILE))
    assert change.diff.splitlines()[-1] == "… 603 more lines"


@pytest.fixture
def host(tmp_path: Path) -> LocalSession:
    """This machine, with its folders elsewhere."""
    return LocalSession({"/var/lib/provision": tmp_path / "home", "/etc": tmp_path / "etc"})


def test_applied_it_converges(host: LocalSession, tmp_path: Path) -> None:
    """It is created, fixed when content or mode differ, and otherwise unchanged."""
    wanted = File("/etc/conf d/it's", "50%\n\\n $HOME `x`\n", mode="0640", owner=ME)
    target = tmp_path / "etc" / "conf d" / "it's"
    assert apply(wanted, host) == ["create /etc/conf d/it's"]
    assert target.read_text() == "50%\n\\n $HOME `x`\n"
    assert apply(wanted, host) == []
    target.chmod(0o600)
    assert apply(wanted, host) == [f"set /etc/conf d/it's to 0640 {ME} (was 0600 {ME})"]
    assert apply(wanted, host) == []
    target.write_text("drift")
    assert apply(wanted, host) == ["update /etc/conf d/it's"]
    assert apply(wanted, host) == []


def test_absent_bare_and_done(host: LocalSession, tmp_path: Path) -> None:
    """A file and a dangling link are deleted; nothing happens where there is none."""
    gone = Absent("/etc/old.list", notify=(RELOAD,))
    folder = tmp_path / "etc"
    folder.mkdir()
    assert apply(gone, host) == []
    (folder / "old.list").write_text("x")
    (change,) = planned(gone, observe_on(host, gone))
    assert (change.action, change.notify, gone.handlers) == ("delete", (RELOAD,), (RELOAD,))
    assert apply(gone, host) == ["delete /etc/old.list"]
    (folder / "old.list").symlink_to("/nowhere/at/all")
    assert apply(gone, host) == ["delete /etc/old.list"]
    assert apply(gone, host) == []
    assert list(folder.iterdir()) == []


def test_an_absent_directory(host: LocalSession, tmp_path: Path) -> None:
    """An empty one is deleted; one with files stays, and that is an error."""
    folder = tmp_path / "etc/old"
    folder.mkdir(parents=True)
    assert apply(Absent("/etc/old"), host) == ["delete /etc/old"]
    assert not folder.exists()
    folder.mkdir()
    (folder / "file").write_text("x")
    assert "not empty" in refuse(Absent("/etc/old"), host).lower()
    assert (folder / "file").exists()
