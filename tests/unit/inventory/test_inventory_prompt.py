"""Prompts on a real terminal, and without one."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ASK = """
import sys
from pathlib import Path
from provision.engine.catalogue import load_inventory as load
from provision.inventory.tables.host import Ssh
source = load([Path(sys.argv[1])]).hosts[0].settings[Ssh].become_password
try:
    print(f"length {len(source.resolve().reveal())} {source.resolve()}")
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def asking(write_estate: Callable[..., Path]) -> list[str]:
    """A program that prompts for the sudo password and prints its length."""
    path = write_estate("[ssh]\nbecome_password={prompt='sudo password'}\n")
    return [sys.executable, "-c", ASK, str(path)]


def on_terminal(command: list[str], typed: bytes) -> str:
    """Runs a command on a terminal of its own, types when it prompts, and returns the output."""
    process, terminal = pty.fork()
    if process == 0:
        os.execv(command[0], command)
    seen = b""
    while True:
        try:
            chunk = os.read(terminal, 4096)
        except OSError:  # the other side is closed (Linux)
            break
        seen += chunk
        if typed and b"sudo password: " in seen:
            os.write(terminal, typed)
            typed = b""
    os.waitpid(process, 0)
    os.close(terminal)
    return seen.decode()


def test_typed_secret_is_not_echoed(asking: list[str]) -> None:
    """The prompt appears once; the answer is read and not shown."""
    seen = on_terminal(asking, b"typed-canary\n")
    assert "length 12 ***" in seen
    assert seen.count("sudo password: ") == 1
    assert "canary" not in seen


def test_nothing_typed_on_the_terminal(asking: list[str]) -> None:
    """The end of the input is an empty answer."""
    assert "InventoryError" in (seen := on_terminal(asking, b"\x04"))
    assert "nothing was typed" in seen


def test_no_terminal(asking: list[str], tmp_path: Path) -> None:
    """Without a terminal (cron, pipelines) the message has file, line and the alternatives."""
    done = subprocess.run(
        asking, stdin=subprocess.DEVNULL, capture_output=True, text=True, start_new_session=True, check=True
    )
    assert f"InventoryError {tmp_path}/inventory.toml:9: ssh.become_password: no terminal to prompt for" in done.stdout
    assert "use { env = … }" in done.stdout
