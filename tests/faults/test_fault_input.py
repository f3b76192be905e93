"""Invalid input: one message with its place, exit code 2, and nothing is contacted."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from provision_lab.harness import PROVISION

INVENTORY = """\
[ssh]
user = "nobody"
connect_timeout = 1

[hosts.one]
address = "127.0.0.1"
groups = ["gitlab", "runners"]
[hosts.one.ssh]
port = {port}

[gitlab]
external_url = "https://gitlab.example.com"
"""


@dataclass(frozen=True)
class Mistake:
    """What is appended to the inventory, what is typed, and the text of the message."""

    name: str
    words: tuple[str, ...]
    more: str = ""
    typed: tuple[str, ...] = ("all",)


MISTAKES = [
    Mistake("no matching host", ("nowhere", "one"), typed=("all", "--limit", "nowhere")),
    Mistake("a pattern that leaves none", ("one",), typed=("all", "--limit", "one,!one")),
    Mistake(
        "no host in the group",
        ("'gitlab'", "groups"),
        '[hosts.two]\ngroups = ["other"]\n',
        typed=("server", "--limit", "two"),
    ),
    Mistake("unknown group", ("servers", "gitlab"), typed=("all", "--limit", "servers")),
    Mistake("unknown name", ("'regstry'", "did you mean 'registry'"), typed=("regstry",)),
    Mistake("unknown option", ("--chek", "--check"), typed=("all", "--chek")),
    Mistake(
        "unknown key",
        ("inventory.toml:14: registry.extrenal_url", "external_url"),
        '[registry]\nextrenal_url = "x"\n',
    ),
    Mistake("unknown table", ("inventory.toml", "regitsry", "registry"), '[regitsry]\nexternal_url = "x"\n'),
    Mistake("wrong type", ("inventory.toml:14: runner.concurrent", "four"), '[runner]\nconcurrent = "four"\n'),
    Mistake(
        "wrong value",
        ("inventory.toml:14: registry.external_url", "https://"),
        '[registry]\nexternal_url = "gitlab:5555"\n',
    ),
    Mistake("no TOML", ("inventory.toml:13", "[brackets]"), "[registry\n"),
    Mistake("a key twice", ("inventory.toml:13", "only once"), 'external_url = "https://other.example.com"\n'),
    Mistake(
        "no such variable",
        ("PROVISION_NO_SUCH", "gitlab.api_token", "inventory.toml"),
        'api_token = { env = "PROVISION_NO_SUCH" }\n[[runners]]\nname = "x"\nexecutor = "shell"\n',
    ),
    Mistake(
        "no such secret file",
        ("no-such-file", "gitlab.api_token"),
        'api_token = { file = "no-such-file" }\n[[runners]]\nname = "x"\nexecutor = "shell"\n',
    ),
    Mistake(
        "a command that fails",
        ("gitlab.api_token", "false"),
        'api_token = { command = ["false"] }\n[[runners]]\nname = "x"\nexecutor = "shell"\n',
    ),
    Mistake(
        "no such sudo password",
        ("PROVISION_NO_SUCH", "become_password"),
        '[hosts.two.ssh]\nbecome_password = { env = "PROVISION_NO_SUCH" }\n[hosts.two]\naddress = "127.0.0.1"\ngroups = ["gitlab"]\n',
    ),
    Mistake(
        "--set of an unknown key", ("extrenal_url", "external_url"), typed=("all", "--set", "gitlab.extrenal_url=x")
    ),
    Mistake("no such inventory", ("no-such.toml",), typed=("all", "-i", "no-such.toml")),
    Mistake("--fail-on-change alone", ("--check",), typed=("all", "--fail-on-change")),
]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A port that counts connections, as the host that would be contacted."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        yield server


def typed(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the program with these arguments in that folder."""
    argv = [*PROVISION, *arguments, *([] if "-i" in arguments else ["-i", "inventory.toml"])]
    return subprocess.run(
        argv, cwd=folder, capture_output=True, text=True, env={**os.environ, **(env or {})}, check=False, timeout=60
    )


def contacted(listener: socket.socket) -> bool:
    """Whether anything has connected."""
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def write(folder: Path, listener: socket.socket, more: str = "") -> None:
    """An inventory whose only host is the listener; `more` begins on line 13."""
    text = INVENTORY.format(port=listener.getsockname()[1])
    (folder / "inventory.toml").write_text(text + more)
    (folder / "inventory.toml").chmod(0o600)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name.replace(" ", "-"))
def test_mistake(tmp_path: Path, listener: socket.socket, mistake: Mistake) -> None:
    """A few lines on stderr, nothing on stdout, nothing contacted."""
    write(tmp_path, listener, mistake.more)
    done = typed(tmp_path, *mistake.typed)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert [word for word in mistake.words if word not in done.stderr] == [], done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 6
    assert not contacted(listener)


def test_the_listener_is_contacted_otherwise(tmp_path: Path, listener: socket.socket) -> None:
    """Without a mistake the same inventory contacts the port, so the tests above check the right one."""
    write(tmp_path, listener)
    done = typed(tmp_path, "server", "--json", "--set", "ssh.connect_timeout=0.2")
    assert (done.returncode, contacted(listener)) == (4, True), done.stderr
