"""No text leaves the program with a secret or an escape sequence in it: the whole command in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CANARY = "canary-0f2b-51"
SECRET_TABLE = f"""
[hosts.web1]
address = "127.0.0.1"
[hosts.web1.ssh]
port = 9
become_password = "{CANARY}"
[docker.daemon]
proxies = {{ http-proxy = "http://user:p@ss/{CANARY[:6]}@proxy.example.com:3128" }}
labels = ["{CANARY}"]
"""
HOOKS = f'''"""Everything that writes to stderr besides the command line itself."""
import gc, logging, sys, threading, warnings
from provision.resources import GroupMember
from provision.tasks import play, task

TEXT = "\\x1b[31mred {CANARY}\\x1b[0m"


class Broken:
    def __del__(self):
        raise ValueError(TEXT)


def fail():
    raise ValueError(TEXT)


@task(on="all")
def noisy(host):
    """Write to stderr."""
    warnings.warn(TEXT)
    logging.getLogger("urllib3").warning(TEXT)
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    Broken()
    gc.collect()
    print(TEXT, file=sys.stderr)
    yield GroupMember("bob", "staff")


PLAYS = [play("all", noisy)]
'''


def provision(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command in a process of its own."""
    command = [sys.executable, "-c", "from provision.cli import main; main()", *arguments]
    environment = {**os.environ, "HOME": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An inventory with a secret, and a playbook that writes it to stderr in every way."""
    (tmp_path / "inventory.toml").write_text(SECRET_TABLE)
    (tmp_path / "inventory.toml").chmod(0o600)
    (tmp_path / "playbooks").mkdir()
    (tmp_path / "playbooks" / "noisy.py").write_text(HOOKS)
    return tmp_path


def test_whatever_writes_to_stderr_is_masked(folder: Path) -> None:
    """Warnings, logs of libraries, tracebacks of threads and of finalizers, and prints of a playbook."""
    ended = provision(folder, "noisy", "-i", "inventory.toml", "--check")
    assert ended.returncode == 4, ended.stderr  # nothing listens on the port
    assert ended.stderr.count("red ***") >= 5, ended.stderr
    for text in (ended.stdout, ended.stderr):
        assert CANARY not in text
        assert "\x1b" not in text


@pytest.mark.parametrize("option", ["--json", "--text"])
def test_the_inventory_is_printed_without_secrets(folder: Path, option: str) -> None:
    """Passwords in URLs as well, and a known secret wherever it is repeated; keys stay, so that JSON stays valid."""
    ended = provision(folder, "inventory", "-i", "inventory.toml", *([option] if option == "--json" else []))
    assert ended.returncode == 0, ended.stderr
    assert CANARY not in ended.stdout
    assert "http://user:***@proxy.example.com:3128" in ended.stdout
    if option == "--json":
        assert json.loads(ended.stdout)["hosts"]["web1"]["settings"]["docker"]["daemon"]["labels"] == ["***"]


def test_errors_of_the_command_line_are_masked(folder: Path) -> None:
    """An error names what was typed; escape sequences in it do nothing."""
    ended = provision(folder, "noisy", "-i", "inventory.toml", f"--limit=\x1b[2J{CANARY}")
    assert ended.returncode == 2
    assert "\x1b" not in ended.stderr
    assert CANARY not in ended.stderr
    assert "***" in ended.stderr


@pytest.mark.parametrize(("secret", "warned"), [("abc", True), ("abcd", False)])
def test_a_secret_that_is_too_short_is_named(folder: Path, secret: str, warned: bool) -> None:
    """With its place, since it is not masked."""
    file = folder / "inventory.toml"
    file.write_text(file.read_text().replace(f'become_password = "{CANARY}"', f'become_password = "{secret}"'))
    ended = provision(folder, "noisy", "-i", "inventory.toml", "--check")
    text = (
        "warning: inventory.toml:6: hosts.web1.ssh.become_password: a secret of fewer than 4 characters is not masked"
    )
    assert (text in ended.stderr) == warned, ended.stderr
