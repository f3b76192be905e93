"""The whole command, on an estate in which some hosts are hostile: the others finish, and the summary names the culprits."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import hostile_shell
from tests.support.hostile_server import relay, tcp_server

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.unit.ssh.conftest import Sshd

SHELL = Path(hostile_shell.__file__)
MEMORY_LIMIT = 200  # MB, of the whole process
CUTS = (0, 5, 21, 60, 500, 1000, 1500, 2000, 2300)  # bytes after which a host closes; a login takes about 2400
TASK = '''"""One file, and a setting in gitlab.rb."""
from provision.resources import RubySettings
from provision.tasks import play, task
from provision.resources import File


@task(on="all")
def fuzz(host):
    """Read gitlab.rb and a file."""
    yield File("/var/lib/fuzz", "content\\n")
    yield RubySettings({("registry", "enable"): True})


PLAYS = [play("all", fuzz)]
'''
# The program with shorter waits: a stalled host is given up after 8 seconds instead of 135. Its peak memory goes to a file.
PROGRAM = """
import sys
from pathlib import Path
from provision.cli import exit_code_of
from provision.engine import observe
from provision.ssh import connection, shell_session
observe.DEADLINE = 6.0
shell_session._KILL_AFTER = shell_session._ANSWER_TIMEOUT = 1.0
connection._RETRY_PAUSE = (0.01, 0.02)
code = exit_code_of(sys.argv[2:])
# Not ru_maxrss, which counts the memory of the process that started this one.
status = Path("/proc/self/status").read_text().splitlines()
Path(sys.argv[1]).write_text(next(line.split()[1] for line in status if line.startswith("VmHWM:")))
sys.exit(code)
"""


def test_hostile_hosts_do_not_affect_the_others(sshd_factory: Callable[..., Sshd], tmp_path: Path) -> None:
    """One floods, one stalls in the middle of a frame, one sends 2 GiB of gzip zeros, some close during the handshake.

    The other hosts finish in time, memory stays under 200 MB, and the summary and the errors name each culprit.
    """
    good = [sshd_factory(), sshd_factory()]
    modes = ["flood", "stall", "zeros", "marker-without-end", "garbage", "flood-greeting"]
    hostile = {mode: sshd_factory(f"ForceCommand {sys.executable} {SHELL} {mode}") for mode in modes}
    with contextlib.ExitStack() as stack:
        ports = {f"good{number}": (one.port, one) for number, one in enumerate(good)}
        ports |= {mode: (one.port, one) for mode, one in hostile.items()}
        for size in CUTS:
            closing = partial(relay, port=good[0].port, size=size)
            ports[f"closes{size}"] = (stack.enter_context(tcp_server(closing)), good[0])
        text = "".join(
            f'[hosts."{name}"]\naddress = "127.0.0.1"\nhost_key = "{one.public()}"\n'
            f'[hosts."{name}".ssh]\nport = {port}\nidentity_file = "{one.key}"\n'
            for name, (port, one) in ports.items()
        )
        inventory = tmp_path / "inventory.toml"
        inventory.write_text(f'[ssh]\nuser = "root"\nbecome = false\nconnect_timeout = 20\n{text}')
        (tmp_path / "playbooks").mkdir(mode=0o755)
        (tmp_path / "playbooks" / "fuzz.py").write_text(TASK)
        memory = tmp_path / "memory"
        command = [sys.executable, "-c", PROGRAM, memory, "fuzz", "-i", inventory, "--check", "--json"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=240, env=os.environ, check=False)
    events = [json.loads(line) for line in ended.stdout.splitlines()]
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    summary = events[-1]
    assert summary["type"] == "summary"
    hosts = summary["hosts"]
    assert {name for name, one in hosts.items() if not (one["failed"] or one["unreachable"])} == {"good0", "good1"}
    assert all(hosts[name]["changed"] for name in ("good0", "good1"))
    assert all(hosts[name]["seconds"] < 60 for name in ("good0", "good1"))
    assert all(hosts[f"closes{size}"]["unreachable"] for size in CUTS if size < 1500)  # later, the shell ended
    errors = {one["host"]: one["text"] for one in events if one["type"] == "error"}
    assert set(errors) == set(hosts) - {"good0", "good1"}
    assert "more than 64 MiB" in errors["flood"]
    assert "no result within 6 s" in errors["stall"]
    assert "gitlab.rb is larger than 8 MiB" in errors["zeros"]
    assert "a marker of more than" in errors["marker-without-end"]
    assert "more than 1 MiB of output" in errors["flood-greeting"]
    assert not any("Unexpected" in one["error"] for one in events if one["type"] == "error")
    assert int(memory.read_text()) * 1024 < MEMORY_LIMIT * 1_000_000
