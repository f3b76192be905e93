"""The key of GitLab's repository: expired in the inventory, expired on the host, about to expire."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness
from tests.support.runs import provision, refused, twice, untouched, without_registry

HOST = "runner-1"
KEY = "/etc/apt/keyrings/gitlab-runner.asc"


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A bare host."""
    return without_registry(harness_factory(LabHost(HOST)))


def key(folder: Path, lifetime: str, *, since: str = "") -> Path:
    """A new key in a file, created at the time `since`."""
    home = folder / "gnupg"
    home.mkdir(mode=0o700)
    environment = {**os.environ, "GNUPGHOME": str(home)}
    gpg = ["gpg", "--batch", "--quiet", "--passphrase", "", *([f"--faked-system-time={since}"] if since else [])]
    for words in (["--quick-gen-key", "Repository", "ed25519", "sign", lifetime], ["--armor", "--export"]):
        done = subprocess.run([*gpg, *words], env=environment, check=True, capture_output=True)
    subprocess.run(["gpgconf", "--kill", "all"], env=environment, check=True)
    path = folder / "key.asc"
    path.write_bytes(done.stdout)
    return path


def test_an_expired_key_is_refused(harness: Harness, tmp_path: Path) -> None:
    """Named with its date before anything changes: apt would skip the repository and install another package."""
    old = key(tmp_path, "30d", since="20240101T000000")
    with untouched(harness, HOST, "/etc"):
        outcome = refused(harness, "runner", changes={"apt": {"runner": {"key": str(old)}}})
    assert "it expired on 2024-01-31" in outcome.errors
    assert harness.lab.inside(HOST, "dpkg-query -W gitlab-runner 2>/dev/null || :") == ""


def test_an_expired_copy_on_the_host_is_replaced(harness: Harness, tmp_path: Path) -> None:
    """An old key file that apt cannot read is replaced by the valid one, and the runner is installed."""
    old = key(tmp_path, "30d", since="20240101T000000").read_text()
    harness.lab.inside(HOST, f"umask 077; mkdir -p /etc/apt/keyrings; cat > {KEY}", stdin=old)
    twice(harness, "runner")
    there = harness.host(HOST).file(KEY)
    assert (there.mode, there.content) == (0o644, Path(harness.inventory["apt"]["runner"]["key"]).read_bytes())
    assert harness.lab.inside(HOST, "dpkg-query -W -f '${Version}' gitlab-runner") == "19.3.0-1"


def test_one_that_expires_soon_is_reported(harness: Harness, tmp_path: Path) -> None:
    """The date is in a note, in the plan too."""
    soon = key(tmp_path, "5d")
    outcome = provision(harness, "runner", "--check", changes={"apt": {"runner": {"key": str(soon)}}})
    assert outcome.code == 0, outcome.errors
    assert "it expires on 20" in outcome.messages()
