"""Locks that the kernel frees, and a cache that holds only complete entries."""

import ctypes
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from provision_lab import LabError, cache, processes
from provision_lab.processes import locked


def hold(path: Path, ready: "multiprocessing.synchronize.Event") -> None:
    """Takes the lock and keeps it."""
    with locked(path):
        ready.set()
        time.sleep(60)


def test_one_at_a_time_and_no_file_left(tmp_path: Path) -> None:
    """Twenty processes that add one after the other lose nothing, and the lock file is removed."""
    path, count = tmp_path / "below" / "a.lock", [0]

    def add(_: int) -> None:
        with locked(path):
            seen = count[0]
            time.sleep(0.001)  # room for another to come between
            count[0] = seen + 1

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(add, range(20)))
    assert count == [20]
    assert not path.exists()


def test_a_killed_holder_frees_it(tmp_path: Path) -> None:
    """Waiting for another process's lock has a limit; kill -9 of the holder frees it."""
    path, ready = tmp_path / "a.lock", multiprocessing.Event()
    holder = multiprocessing.Process(target=hold, args=(path, ready))
    holder.start()
    assert ready.wait(10)
    with pytest.raises(LabError, match=r"has held .*a\.lock for 0\.1 s"), locked(path, deadline=0.1):
        pytest.fail("two hold one lock")
    assert holder.pid
    os.kill(holder.pid, signal.SIGKILL)
    with locked(path, deadline=10):
        assert path.exists()
    holder.join()
    assert not path.exists()


def test_made_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight processes that need an entry at once get the same one, built once; it never shows incomplete."""
    monkeypatch.setenv("PROVISION_LAB_CACHE", str(tmp_path))
    made = []

    def make(draft: Path) -> None:
        assert not cache.entry("base", "1").exists()
        made.append(draft)
        draft.joinpath("file").write_text("whole")

    with ThreadPoolExecutor(8) as pool:
        entries = list(pool.map(lambda _: cache.ensure("base", "1", make), range(8)))
    assert set(entries) == {tmp_path / "base-1"}
    assert len(made) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["base-1"]


def test_two_entries_are_made_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The base images of two suites do not wait for each other."""
    monkeypatch.setenv("PROVISION_LAB_CACHE", str(tmp_path))
    both = Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda key: cache.ensure("base", key, lambda _: both.wait(10) and None), ("1", "2")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base-1", "base-2"]


def test_a_failed_make_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed build leaves no entry, and the incomplete one of a killed process is replaced."""
    monkeypatch.setenv("PROVISION_LAB_CACHE", str(tmp_path))
    (tmp_path / "base-1.draft").mkdir()
    (tmp_path / "base-1.draft" / "half").write_text("")

    def fail(draft: Path) -> None:
        assert list(draft.iterdir()) == []
        raise LabError("no network")

    with pytest.raises(LabError, match="no network"):
        cache.ensure("base", "1", fail)
    assert list(tmp_path.iterdir()) == []


def test_unused_entries_go_after_a_week(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new entry removes those of its kind that were not used for a week and are not in use."""
    monkeypatch.setenv("PROVISION_LAB_CACHE", str(tmp_path))
    for name, days in (("base-old", 8), ("base-recent", 2), ("apt-old", 8)):
        (tmp_path / name).mkdir()
        when = time.time() - days * 86400
        os.utime(tmp_path / name, (when, when))
    (tmp_path / "base-served").mkdir()
    os.utime(tmp_path / "base-served", (0, 0))
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()", str(tmp_path / "base-served")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as user:
        assert user.stdout is not None
        user.stdout.readline()  # while a program is being replaced by the next, /proc shows no arguments
        cache.ensure("base", "new", lambda _: None)
        user.kill()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["apt-old", "base-new", "base-recent", "base-served"]


def test_entries_may_be_kept_for_a_shorter_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kind decides: here an hour."""
    monkeypatch.setenv("PROVISION_LAB_CACHE", str(tmp_path))
    for name, hours in (("prepared-old", 2), ("prepared-recent", 0)):
        (tmp_path / name).mkdir()
        when = time.time() - hours * 3600
        os.utime(tmp_path / name, (when, when))
    cache.ensure("prepared", "new", lambda _: None, kept=3600)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prepared-new", "prepared-recent"]


def test_the_hash_sees_names_contents_and_modes_but_no_compiled_python(tmp_path: Path) -> None:
    """Changing a stand-in changes its hash; running it does not."""
    file = tmp_path / "a.py"
    file.write_text("1")
    seen = [cache.hash_of_files(tmp_path)]
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_text("")
    assert cache.hash_of_files(tmp_path) == seen[0]
    file.write_text("2")
    seen.append(cache.hash_of_files(tmp_path))
    file.chmod(0o755)
    seen.append(cache.hash_of_files(tmp_path))
    file.rename(tmp_path / "b.py")
    seen.append(cache.hash_of_files(tmp_path))
    assert len(set(seen)) == 4


def test_nothing_below_a_mount_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a mount below it is not removed."""
    removed: list[Path] = []
    # Should the guard ever fail, /proc is not the place to see it.
    monkeypatch.setattr(shutil, "rmtree", removed.append)
    with pytest.raises(LabError, match=r"/proc.* is mounted"):
        cache.remove(Path("/proc"))
    assert removed == []


_IN_CHROOT = "import os, sys; os.chroot(sys.argv[1]); print('there', flush=True); sys.stdin.read()"
_NEW_MOUNTS = 0x20000  # CLONE_NEWNS


def mount(*arguments: str | Path) -> None:
    """Mounts, as root."""
    subprocess.run(["mount", *arguments], check=True)


def after_a_killed_build(folder: Path, check: Callable[[Path, Path], None]) -> None:
    """Calls `check` with the draft of a killed build and a folder outside, in a process whose mounts end with it.

    The draft has a mount with one below it, as /sys of a tree, the folder outside, and a process with its root there.
    """
    outside, draft = folder / "outside", folder / "container-1.draft"
    outside.mkdir()
    outside.joinpath("file").write_text("kept")

    def work() -> None:
        assert ctypes.CDLL(None, use_errno=True).unshare(_NEW_MOUNTS) == 0, os.strerror(ctypes.get_errno())
        mount("--make-rprivate", "/")
        (draft / "root/proc").mkdir(parents=True)
        (draft / "root/sys").mkdir()
        mount("-t", "tmpfs", "tmpfs", draft / "root/sys")
        (draft / "root/sys/below").mkdir()
        mount("-t", "tmpfs", "tmpfs", draft / "root/sys/below")
        mount("--bind", outside, draft / "root/proc")
        argv = [sys.executable, "-c", _IN_CHROOT, draft / "root"]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"there\n"
            check(draft, outside)
            assert child.wait(10) == -signal.SIGKILL

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == 0, "see its standard error"
    assert outside.joinpath("file").read_text() == "kept"


@pytest.mark.root
def test_the_next_build_removes_what_a_killed_one_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes and mounts first: nothing is removed while something is mounted there."""
    monkeypatch.setenv("PROVISION_LAB_CACHE", str(tmp_path))

    def check(draft: Path, _: Path) -> None:
        with pytest.raises(LabError, match=r"cannot remove .*container-1\.draft: .* is mounted"):
            cache.remove(draft)
        made = cache.ensure("container", "1", lambda empty: empty.joinpath("new").touch())
        assert [path.name for path in made.iterdir()] == ["new"]

    after_a_killed_build(tmp_path, check)


@pytest.mark.root
def test_another_build_removes_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody may need that entry again. A draft whose lock is held is somebody's work."""
    monkeypatch.setenv("PROVISION_LAB_CACHE", str(tmp_path))

    def check(draft: Path, _: Path) -> None:
        with locked(draft.with_name("container-1.lock")):
            cache.ensure("base", "1", lambda _: None)
            assert len(cache.mounted_below(draft)) == 3
            assert len(processes.of_build(draft)) == 1
        cache.ensure("base", "2", lambda _: None)
        assert not draft.exists()

    after_a_killed_build(tmp_path, check)


@pytest.mark.root
def test_an_entry_has_no_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a build that fails leave one. mmdebstrap ends with a warning when it could not unmount."""
    monkeypatch.setenv("PROVISION_LAB_CACHE", str(tmp_path))

    def check(draft: Path, outside: Path) -> None:
        def fail(empty: Path) -> None:
            make(empty)
            raise LabError("it took too long")

        def make(empty: Path) -> None:
            empty.joinpath("root").mkdir()
            mount("--bind", outside, empty / "root")

        with pytest.raises(LabError, match="it took too long"):
            cache.ensure("container", "1", fail)
        assert not draft.exists()
        assert list(cache.ensure("container", "1", make).joinpath("root").iterdir()) == []

    after_a_killed_build(tmp_path, check)


@pytest.mark.parametrize(
    ("argv", "builds"),
    [
        (["/usr/bin/perl", "/usr/bin/mmdebstrap", "trixie", "{}/root"], True),
        (["apt-get", "--yes", "-oDPkg::Chroot-Directory={}/root", "install"], True),
        (["apt-get", "--yes", "install", "hello"], False),
        (["/usr/bin/perl", "/usr/bin/mmdebstrap", "trixie", "{}2/root"], False),
        (["rm", "-rf", "{}/root"], False),
    ],
)
def test_what_builds_in_a_draft(tmp_path: Path, argv: list[str], builds: bool) -> None:
    """By its name and the draft in its arguments, and no other process that mentions the draft."""
    draft = tmp_path / "container-1.draft"
    assert processes._is_builder([word.format(draft) for word in argv], draft) is builds
