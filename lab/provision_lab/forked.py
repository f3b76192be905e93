"""Runs the program in processes that are forked from one that has imported it.

Tests run the program a thousand times, and each start imports for half a second of processor time. A forked process
has its own memory, environment, folder, signals and streams, and ends as a started one does.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from provision_lab.run import LabError

_IMPORTED: Final = (
    *("provision.cli.run", "provision.engine.assemble", "provision.report.jsonlines", "provision.report.final"),
    *("provision.ssh.connection", "provision.ssh.shell_session", "provision.gitlab.session", "provision.resources"),
    *("provision.editing.ruby", "provision.editing.toml", "cryptography.x509", "jinja2", "tomlkit"),
)
_MAX_REQUEST: Final = 160 << 10  # bytes of one message; Linux allows 208 KiB


class Program:
    """Starts the process that imports, with the first run; it ends with this process."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def run(
        self, arguments: Sequence[str], *, stdin: str | None, env: Mapping[str, str], deadline: float
    ) -> subprocess.CompletedProcess[str]:
        """Runs `provision ARGUMENTS` to its end. Raises subprocess.TimeoutExpired after `deadline` seconds."""
        request = {"arguments": [*arguments], "env": dict(env), "folder": str(Path.cwd()), "umask": _umask()}
        with (
            tempfile.TemporaryFile("w+") as given,
            tempfile.TemporaryFile("w+") as out,
            tempfile.TemporaryFile("w+") as err,
        ):
            given.write(stdin or "")
            given.seek(0)
            code = self._ask(json.dumps(request).encode(), [given.fileno(), out.fileno(), err.fileno()], deadline)
            texts = []
            for stream in (out, err):
                stream.seek(0)
                texts.append(stream.read())
        if code is None:
            raise subprocess.TimeoutExpired(["provision", *arguments], deadline, *texts)
        return subprocess.CompletedProcess(["provision", *arguments], code, *texts)

    def _ask(self, request: bytes, streams: Sequence[int], deadline: float) -> int | None:
        """The exit code, negative for a signal; None if the process was killed after `deadline` seconds."""
        if len(request) > _MAX_REQUEST:
            raise LabError(f"arguments and environment have {len(request)} bytes, more than {_MAX_REQUEST}")
        mine, theirs = socket.socketpair()
        with mine, theirs:
            socket.send_fds(self._connected(), [request], [*streams, theirs.fileno()])
            theirs.close()
            answer, ends, late = b"", time.monotonic() + deadline, False
            while True:
                mine.settimeout(max(ends - time.monotonic(), 0.01) if not late else None)
                try:
                    received = mine.recv(64)
                except TimeoutError:
                    if not answer:
                        raise LabError(f"the program was not started within {deadline:g} s") from None
                    late = True
                    os.kill(int(answer.split()[0]), signal.SIGKILL)
                    continue
                if not received:
                    break
                answer += received
        if late:
            return None
        if answer.count(b"\n") != 2:
            raise LabError("the process that runs the program has ended")
        return int(answer.split()[1])

    def _connected(self) -> socket.socket:
        with self._starting:
            if self._control is None:
                self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with theirs:
                    argv = [sys.executable, "-m", "provision_lab.forked", str(theirs.fileno())]
                    # In a session of its own: a signal to the group of this process is not for it.
                    self._process = subprocess.Popen(
                        argv, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
                    )
            return self._control


def _umask() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    raise LabError("/proc/self/status has no umask")


def serve(control: socket.socket) -> None:
    """Forks a process for each request, until the other end is closed. In the forked process, it runs the program."""
    for name in _IMPORTED:
        import_module(name)
    # What was imported stays: without this, each forked process would look through it for garbage, and copy its pages.
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes that supervise
    while True:
        request, files, _, _ = socket.recv_fds(control, _MAX_REQUEST, 4)
        if not request:
            return
        if os.fork() == 0:
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            *streams, reply = files
            if child := os.fork():
                _supervise(child, reply)
            os.close(reply)
            _run(json.loads(request), streams)
            return
        for file in files:
            os.close(file)


def _supervise(child: int, reply: int) -> None:
    """Reports the child's id at once and its exit code at the end, then ends this process."""
    try:
        os.write(reply, f"{child}\n".encode())
        _, status = os.waitpid(child, 0)
        os.write(reply, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    finally:
        os._exit(0)


def _run(request: Mapping[str, Any], streams: Sequence[int]) -> None:
    for number, file in enumerate(streams):
        os.dup2(file, number)
        os.close(file)
    os.setsid()
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    os.chdir(request["folder"])
    os.umask(request["umask"])
    sys.stdin = os.fdopen(0, "r")
    sys.stdout = os.fdopen(1, "w")
    sys.stderr = os.fdopen(2, "w", errors="backslashreplace", buffering=1)
    sys.argv = ["provision", *request["arguments"]]
    from provision.cli import main

    main()


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
