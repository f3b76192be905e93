"""An estate of fake hosts, and the command line in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from provision.cli import exit_code_of
from provision.errors import Unreachable
from provision.ssh.session import Target
from provision.templating import environment, use_templates_of
from provision.testing import FakeSession

INVENTORY = """
[hosts.web1]
groups = ["web"]
[hosts.web2]
groups = ["web"]
[hosts.db1]
groups = ["db"]
[docker.daemon]
debug = true
"""
# `staff` adds bob to a group: a real resource whose look and change are one command each.
STAFF = '''"""Everybody is in the group."""
from provision.resources import GroupMember
from provision.tasks import play, task


@task(on="all")
def staff(host):
    """Bob is one of the staff."""
    yield GroupMember("bob", "staff")


PLAYS = [play("web", staff)]
'''


@dataclass
class Estate:
    """Fake hosts by name, and the target of each connection."""

    folder: Path
    sessions: dict[str, FakeSession | Exception] = field(default_factory=dict)
    targets: dict[str, Target] = field(default_factory=dict)
    locked: dict[str, bool] = field(default_factory=dict)

    @property
    def inventory(self) -> str:
        """The inventory's path."""
        return str(self.folder / "inventory.toml")

    def connect(self, target: Target, *, lock: bool, who: str, dialler: object = None) -> FakeSession:
        """Stands for `provision.ssh.connect`."""
        assert "process" in who
        del dialler
        self.targets[target.name], self.locked[target.name] = target, lock
        session = self.sessions.get(target.name, Unreachable(f"{target.name}: nobody there"))
        if isinstance(session, Exception):
            raise session
        return session

    def playbook(self, name: str, text: str) -> None:
        """Writes a playbook of the user's."""
        (self.folder / "playbooks" / name).write_text(text)


@pytest.fixture
def estate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Estate]:
    """Two web hosts and a database host; bob is not in the group staff there."""
    (tmp_path / "inventory.toml").write_text(INVENTORY)
    (tmp_path / "playbooks").mkdir()
    estate = Estate(tmp_path)
    estate.playbook("everybody.py", STAFF)
    for name in ("web1", "web2", "db1"):
        estate.sessions[name] = FakeSession({"usermod": 0, "id -nG": ["bob", "bob staff"]})
    monkeypatch.setattr("provision.ssh.connect", estate.connect)
    monkeypatch.chdir(tmp_path)
    yield estate
    use_templates_of([])
    environment.cache_clear()


@dataclass(frozen=True)
class Ended:
    """A run of the command line."""

    code: int
    out: str
    err: str


@pytest.fixture
def provision(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """`provision("all", "-i", …)` → code, out, err."""

    def call(*arguments: str) -> Ended:
        code = exit_code_of(list(arguments))
        printed = capsys.readouterr()
        return Ended(code, printed.out, printed.err)

    return call
