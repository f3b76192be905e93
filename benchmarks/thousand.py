"""`python -m benchmarks.thousand`: what many hosts cost the machine that `provision` runs on. It needs root and Linux.

The hosts are simulated: one real sshd answers at every address of 127.0.0.0/8. Each session has a mount namespace with
an empty /var/lib/provision, so each host has its own lock and state. All hosts share the ten files, which are as wanted.
The hosts' own work runs on the same processors, so compare processor time and memory, and not seconds.

Some hosts can be made to fail: the folder of one of their files is a file. Some can be made silent: half of these accept the
connection and send nothing, and packets to the other half are dropped, because the queue of the listening socket is full.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pty
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[1]
OURS = (sys.executable, "-c", "from provision.cli import main; main()")
View = Literal["json", "plain", "terminal"]
_SSHD = "/usr/sbin/sshd"
_FILES = 10
_POLL = 0.05  # seconds between two readings of the measured process
_DESCRIPTORS = 16384  # open files of sshd: enough for all sessions

# sshd runs it for each session, with root's login shell. $SSH_ORIGINAL_COMMAND is what the client asked for.
_SESSION = """\
#!/bin/sh
exec unshare --mount --propagation private /bin/sh -c '
mount -t tmpfs -o mode=700,size=1m none /var/lib/provision && exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"'
"""

_PLAYBOOK = '''\
"""Ten files, the same on every host, in {plays} plays."""

from collections.abc import Iterator
from pathlib import Path

from provision.resources import File, Resource
from provision.tasks import Host, play, task

PLAYS = []
for number in range({plays}):

    def function(host: Host, number: int = number) -> Iterator[Resource]:
        """Put the files."""
        for one in range(number, {files}, {plays}):
            yield File(f"{folder}/{{one}}.conf", b"value = %d\\n" % one)
        if "failing" in host.groups:
            yield File("{folder}/0.conf/file", b"its folder is a file")

    function.__name__ = f"files_{{number}}"
    PLAYS.append(play("all", task()(function)))
'''


@dataclass(frozen=True)
class Simulation:
    """Simulated hosts: the folder with `inventory.toml` and the playbook `thousand`, and the number of hosts."""

    folder: Path
    hosts: int


@dataclass(frozen=True)
class Cost:
    """The measurements of one run.

    processor    seconds of the program and its children, user and system; not those of sshd and of what it starts
    memory       bytes: the maximum resident set
    threads      the maximum seen
    descriptors  the maximum number of open files seen
    seconds      wall-clock time
    code         exit code
    load         of the machine before the run: the average of one minute
    """

    program: str
    view: View
    hosts: int
    processor: float
    memory: int
    threads: int
    descriptors: int
    seconds: float
    code: int
    load: float

    @property
    def per_host(self) -> float:
        """Milliseconds of processor time per host, the program's start included."""
        return self.processor / self.hosts * 1000

    def __str__(self) -> str:
        return (
            f"{self.program} --{self.view}: {self.hosts} hosts: {self.per_host:.2f} ms of processor per host,"
            f" {self.memory / 1e6:.0f} MB, {self.threads} threads, {self.descriptors} descriptors,"
            f" {self.seconds:.1f} s, exit code {self.code}, load before {self.load:.2f}"
        )


@contextmanager
def simulation(
    hosts: int, *, failing: int = 0, silent: int = 0, plays: int = 1, pinned: bool = False, timeout: float = 10
) -> Iterator[Simulation]:
    """Starts the simulated hosts, and ends all of their processes afterwards.

    failing  percent of the hosts that have a file which cannot be written
    silent   percent of the hosts that never answer
    plays    in how many plays the ten files are: between two plays, all hosts are connected and wait
    pinned   the inventory has each host's key; otherwise known_hosts has a line for each host
    timeout  connect_timeout in the inventory, in seconds

    Raises SystemExit when it cannot run on this machine.
    """
    if os.geteuid() != 0 or not Path(_SSHD).exists():
        raise SystemExit("the simulated hosts need root and openssh-server: run this with sudo")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="provision-hosts-")))
        port = _start_sshd(folder, stack)
        quiet = [_silent_port(stack, drops=False), _silent_port(stack, drops=True)] if silent else []
        files = folder / "files"
        files.mkdir()
        for number in range(_FILES):
            (files / f"{number}.conf").write_bytes(b"value = %d\n" % number)
            (files / f"{number}.conf").chmod(0o644)
        (folder / "playbooks").mkdir()
        (folder / "playbooks" / "thousand.py").write_text(_PLAYBOOK.format(plays=plays, files=_FILES, folder=files))
        key = " ".join((folder / "host_key.pub").read_text().split()[:2])
        addresses = [f"127.1.{number // 250}.{number % 250 + 1}" for number in range(hosts)]
        (folder / "known_hosts").write_text("".join(f"[{one}]:{port} {key}\n" for one in addresses))
        lines = ["[ssh]", 'user = "root"', "become = false", f"port = {port}", f"connect_timeout = {timeout:g}"]
        lines += [f'identity_file = "{folder}/user_key"', f'known_hosts = "{folder}/known_hosts"']
        for number, address in enumerate(addresses):
            lines += [f"[hosts.h{number:04}]", f'address = "{address}"']
            if pinned:
                lines.append(f'host_key = "{key}"')
            # Spread evenly over the hosts, in the order in which they are worked on.
            if _is_one_of(number, silent):
                lines.append(f"ssh.port = {quiet[(number * silent // 100) % 2]}")
            elif _is_one_of(number + 55, failing):
                lines.append('groups = ["failing"]')
        (folder / "inventory.toml").write_text("\n".join(lines) + "\n")
        yield Simulation(folder, hosts)


def _is_one_of(number: int, percent: int) -> bool:
    return (number + 1) * percent // 100 > number * percent // 100


def _start_sshd(folder: Path, stack: ExitStack) -> int:
    """Starts sshd, which ends with all of its sessions when the stack is closed. Returns its port."""
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    Path("/var/lib/provision").mkdir(mode=0o700, exist_ok=True)  # each session mounts its own there
    for name in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-C", "", "-f", folder / name], check=True)
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    (folder / "session").write_text(_SESSION)
    (folder / "session").chmod(0o755)
    (folder / "home").mkdir()
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        port = int(probe.getsockname()[1])
    lines = [
        f"Port {port}",
        "ListenAddress 0.0.0.0",
        "AllowUsers root@127.0.0.0/8",
        f"HostKey {folder}/host_key",
        f"AuthorizedKeysFile {folder}/authorized_keys",
        f"PidFile {folder}/sshd.pid",
        f"ForceCommand {folder}/session",
        f"SetEnv HOME={folder}/home",
        "StrictModes no",
        "PermitRootLogin yes",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "UsePAM no",
        "UseDNS no",
        "PrintMotd no",
        "MaxStartups 3000",
        "LogLevel ERROR",
    ]
    config = folder / "sshd_config"
    config.write_text("\n".join([*lines, "PerSourcePenalties no"]) + "\n")  # OpenSSH 9.8 and newer
    if subprocess.run([_SSHD, "-t", "-f", config], capture_output=True).returncode != 0:
        config.write_text("\n".join(lines) + "\n")
    log = stack.enter_context((folder / "sshd.log").open("wb"))
    # In a PID namespace, whose processes all end with its first one: sessions would outlive a killed sshd.
    sshd = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", _SSHD, "-D", "-e", "-f", config],
        stderr=log,
        preexec_fn=lambda: _raise_limit(_DESCRIPTORS),
    )
    stack.callback(_end, sshd)
    until = time.monotonic() + 10
    while time.monotonic() < until and sshd.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return port
        time.sleep(0.02)
    raise SystemExit(f"sshd did not start: {(folder / 'sshd.log').read_text()}")


def _end(unshare: subprocess.Popen[bytes]) -> None:
    """Ends the first process of the PID namespace. `unshare` ends after it, when no process of the namespace is left."""
    children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split()
    for pid in children:
        os.kill(int(pid), signal.SIGKILL)
    if not children:
        unshare.kill()
    unshare.wait(30)


def _raise_limit(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def _silent_port(stack: ExitStack, *, drops: bool) -> int:
    """A port at all local addresses that sends nothing. With `drops`, the kernel drops all requests to connect to it."""
    listener = stack.enter_context(socket.socket())
    listener.bind(("0.0.0.0", 0))
    listener.listen(0 if drops else 4096)
    port = int(listener.getsockname()[1])
    while drops:  # a queue of 0 has room for one connection or two
        filler = stack.enter_context(socket.socket())
        filler.settimeout(0.5)
        try:
            filler.connect(("127.0.0.1", port))
        except TimeoutError:
            break
    return port


def measure(
    made: Simulation,
    *,
    program: Sequence[str] = OURS,
    view: View = "json",
    options: Sequence[str] = (),
    name: str = "provision",
    output: Callable[[bytes], object] = len,
) -> Cost:
    """Runs `provision thousand` on all hosts.

    program  argv of the program; by default the one of this checkout
    view     "json": --json; "plain": lines in a pipe; "terminal": the live view in a terminal of 120 columns
    options  more options for the program
    output   receives what it prints
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment |= {"HOME": str(made.folder / "home"), "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
    if tuple(program) == OURS:
        environment["PYTHONPATH"] = str(ROOT)
    argv = [*program, "thousand", "-i", str(made.folder / "inventory.toml"), *options]
    argv += ["--json"] if view == "json" else []
    load, started = os.getloadavg()[0], time.monotonic()
    end, theirs = pty.openpty() if view == "terminal" else os.pipe()
    process = subprocess.Popen(
        argv, cwd=made.folder, env=environment, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    reader = threading.Thread(target=_read, args=(end, output))
    reader.start()
    watch = _Watch(process.pid)
    watch.start()
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        watch.stop()
        reader.join()
        os.close(end)
    process.returncode = os.waitstatus_to_exitcode(status)  # subprocess must not wait for it again
    return Cost(
        name,
        view,
        made.hosts,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss * 1024,
        watch.threads,
        watch.descriptors,
        time.monotonic() - started,
        process.returncode,
        load,
    )


def _read(end: int, output: Callable[[bytes], object]) -> None:
    with contextlib.suppress(OSError):  # a terminal whose program has ended
        while data := os.read(end, 65536):
            output(data)


class _Watch(threading.Thread):
    """Records the maximum number of threads and of open files of a process."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self.threads = 0
        self.descriptors = 0
        self._place = Path("/proc", str(pid))
        self._ended = threading.Event()

    def run(self) -> None:
        """Read the numbers every _POLL seconds until `stop` is called or the process has ended."""
        while not self._ended.wait(_POLL):
            try:
                found = re.search(r"^Threads:\s+(\d+)", (self._place / "status").read_text(), re.MULTILINE)
                opened = sum(1 for _ in (self._place / "fd").iterdir())
            except OSError:
                return
            self.threads = max(self.threads, int(found[1]) if found else 0)
            self.descriptors = max(self.descriptors, opened)

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        self.join()


def main() -> None:
    """Measures and prints a line for each run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.thousand", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--failing", type=int, default=0, metavar="PERCENT", help="hosts with a file that fails")
    parser.add_argument("--silent", type=int, default=0, metavar="PERCENT", help="hosts that never answer")
    parser.add_argument("--plays", type=int, default=1, help="plays that have the ten files")
    parser.add_argument("--pinned", action="store_true", help="host keys in the inventory, not in known_hosts")
    parser.add_argument("--timeout", type=float, default=10, help="connect_timeout, in seconds")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--forks", type=int, help="the program's --forks")
    parser.add_argument("--against", action="append", default=[], metavar="PROGRAM", help="measure this one too")
    parser.add_argument("--figures", type=Path, metavar="FILE", help="append each run's figures as a line of JSON")
    parser.add_argument("--show", action="store_true", help="pass on what the program prints")
    views = parser.add_mutually_exclusive_group()
    for view in ("json", "plain", "terminal"):
        views.add_argument(f"--{view}", dest="view", action="store_const", const=view)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is ended, as on Ctrl-C
    programs = {"this checkout": OURS} | {one: tuple(one.split()) for one in given.against}
    show: Callable[[bytes], object] = sys.stdout.buffer.write if given.show else len
    with simulation(
        given.hosts,
        failing=given.failing,
        silent=given.silent,
        plays=given.plays,
        pinned=given.pinned,
        timeout=given.timeout,
    ) as made:
        for _ in range(given.rounds):
            for name, program in programs.items():
                cost = measure(
                    made,
                    program=program,
                    view=given.view or "json",
                    options=["--forks", str(given.forks)] if given.forks else [],
                    name=name,
                    output=show,
                )
                print(cost, flush=True)
                if given.figures:
                    with given.figures.open("a") as file:
                        file.write(json.dumps(asdict(cost)) + "\n")


if __name__ == "__main__":
    main()
