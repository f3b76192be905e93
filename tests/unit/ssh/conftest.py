"""A real sshd on a loopback port, with its own keys and known_hosts."""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from provision.errors import Unreachable
from provision.shell import sh
from provision.ssh import Target, connect
from provision.ssh.host_keys import known_hosts_name
from tests.support.waiting import wait_for


@dataclasses.dataclass
class Sshd:
    """One running sshd and what a client needs to log in."""

    port: int
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def key(self) -> Path:
        """The private key that root's login accepts."""
        return self.folder / "user_key"

    def public(self, kind: str = "ed25519") -> str:
        """`ssh-ed25519 AAAA…` of the host key of that type."""
        return " ".join((self.folder / f"host_{kind}.pub").read_text().split()[:2])

    def known(self, *lines: str) -> Path:
        """A known_hosts file; in a line `{key}` stands for the ed25519 host key and `{at}` for host and port."""
        file = self.folder / f"known_{len(list(self.folder.glob('known_*')))}"
        at = known_hosts_name("127.0.0.1", self.port)
        file.write_text("".join(line.format(key=self.public(), at=at) + "\n" for line in lines or ["{at} {key}"]))
        return file

    def target(self, **changes: object) -> Target:
        """A target that can be connected to, with some fields changed."""
        base = Target(
            name="web1",
            address="127.0.0.1",
            port=self.port,
            user="root",
            identity_file=self.key,
            known_hosts=self.known() if (self.folder / "host_ed25519.pub").exists() else None,
            connect_timeout=5.0,
            become=False,
        )
        return base._replace(**changes)


def free_port() -> int:
    """A loopback port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_sshd(
    folder: Path, *options: str, kinds: tuple[str, ...] = ("ed25519", "ecdsa", "rsa"), var_lib: str = "size=64m"
) -> Sshd:
    """Start an sshd in `folder` and wait until it listens; `var_lib` are the mount options of its /var/lib."""
    if shutil.which("sshd", path="/usr/sbin:/usr/bin") is None or os.geteuid() != 0:
        pytest.skip("needs openssh-server and root (make test installs it)")
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    for name, kind in [*((f"host_{kind}", kind) for kind in kinds), ("user_key", "ed25519")]:
        if not (folder / name).exists():
            bits = ["-b", "2048"] if kind == "rsa" else []
            subprocess.run(["ssh-keygen", "-q", "-N", "", "-t", kind, *bits, "-C", "", "-f", folder / name], check=True)
    (folder / "authorized_keys").write_bytes((folder / "user_key.pub").read_bytes())
    port = free_port()
    config = [
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        *(f"HostKey {folder}/host_{kind}" for kind in kinds),
        f"AuthorizedKeysFile {folder}/authorized_keys",
        f"PidFile {folder}/sshd.pid",
        "StrictModes no",
        "PermitRootLogin yes",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "UsePAM no",
        "MaxStartups 200",
        f"SetEnv HOME={folder}",  # not the developer's .bashrc
        *options,
    ]
    (folder / "sshd_config").write_text("\n".join(config) + "\n")
    log = (folder / "sshd.log").open("wb")
    # In a mount namespace with its own /var/lib: locks and state are not those of this machine.
    start = f"mount -t tmpfs -o {var_lib} tmpfs /var/lib && exec /usr/sbin/sshd -D -e -f {folder}/sshd_config"
    process = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sh", "-c", start], stderr=log)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return Sshd(port, folder, process)
        if process.poll() is not None:
            break
        time.sleep(0.02)
    raise RuntimeError(f"sshd did not start: {(folder / 'sshd.log').read_text()}")


@pytest.fixture
def sshd_factory(tmp_path: Path) -> Iterator[Callable[..., Sshd]]:
    """Starts an sshd for one test: `sshd_factory("ForceCommand …", var_lib="ro")`, with the keys of `folder`, if given."""
    started: list[Sshd] = []

    def start(*options: str, kind: str = "ed25519", folder: Path | None = None, var_lib: str = "size=64m") -> Sshd:
        if folder is None:
            folder = tmp_path / f"sshd{len(started)}"
            folder.mkdir()
        started.append(start_sshd(folder, *options, kinds=(kind,), var_lib=var_lib))
        return started[-1]

    yield start
    for one in started:
        one.process.terminate()
        one.process.wait(10)


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """The sshd that most tests share."""
    running = start_sshd(tmp_path_factory.mktemp("sshd"))
    yield running
    running.process.terminate()
    running.process.wait(10)


def refusal_of(kind: type[Unreachable], target: Target) -> str:
    """The message of this refusal; "" when the target is accepted and runs a command."""
    try:
        session = connect(target, lock=False, who="test")
    except kind as error:
        return str(error)
    try:
        assert session.ask([sh("echo ok")], deadline=10)[0].text == "ok\n"
    finally:
        session.close()
    return ""


def proxy_command(folder: Path) -> str:
    """A ProxyCommand that connects to %h and %p, and creates the file `used` in `folder`."""
    script = folder / "relay.py"
    script.write_text(
        "import os, socket, sys, threading\n"
        "open(sys.argv[3], 'w').close()\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def up():\n"
        "    while d := os.read(0, 65536): s.sendall(d)\n"
        "    s.shutdown(1)\n"
        "threading.Thread(target=up, daemon=True).start()\n"
        "while d := s.recv(65536): os.write(1, d)\n"
    )
    return f"{sys.executable} {script} %h %p {folder / 'used'}"


@contextmanager
def ssh_agent(folder: Path, *keys: Path) -> Iterator[Path]:
    """The socket of an ssh-agent that holds these keys."""
    path = folder / "agent.socket"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    environment = {**os.environ, "SSH_AUTH_SOCK": str(path)}

    def answers() -> bool:
        listing = subprocess.run(["ssh-add", "-l"], capture_output=True, env=environment)
        return listing.returncode == 1  # no keys yet

    try:
        wait_for(answers, "the agent answers")
        for key in keys:
            subprocess.run(["ssh-add", "-q", key], check=True, capture_output=True, env=environment)
        yield path
    finally:
        process.terminate()
        process.wait(5)


@pytest.fixture(autouse=True)
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder and no agent, so that the developer's own ssh configuration has no effect."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setattr("provision.ssh.connection._RETRY_PAUSE", (0.01, 0.02))
    return home
