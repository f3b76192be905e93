"""Locks that the kernel frees, and a cache that holds only complete entries."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from provision_lab import LabError, cache
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
