"""This machine as a host, with a folder of its own in place of /var/lib/provision."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.testing import LocalSession
from tests.support.local import Local


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Replaces /var/lib/provision."""
    return tmp_path / "home"


@pytest.fixture
def host(home: Path, local: Local) -> LocalSession:
    """This machine as a host."""
    return local({"/var/lib/provision": home})


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB. Only root may mount it."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)
