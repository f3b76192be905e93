"""Programs in forked processes: what they get, how they end. A playbook of the user's runs whatever a test needs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from provision_lab.forked import Program

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def program() -> Program:
    """One process that imports, for all tests."""
    return Program()


@pytest.fixture
def run(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `provision list` in an empty folder, with this code in a playbook."""
    monkeypatch.chdir(tmp_path)

    def run(
        code: str, *, stdin: str | None = None, deadline: float = 60, **env: str
    ) -> subprocess.CompletedProcess[str]:
        (tmp_path / "playbooks").mkdir(exist_ok=True)
        (tmp_path / "playbooks/own.py").write_text(f"import os, signal, sys, time\n{code}\n")
        return program.run(["list"], stdin=stdin, env={"PATH": os.environ["PATH"], **env}, deadline=deadline)

    return run


def test_it_answers_as_a_started_program_does(program: Program) -> None:
    """Exit code and both outputs."""
    for arguments in (["--version"], ["list"], ["nonsense", "-i", "none.toml"], ["docker"]):
        start = [sys.executable, "-c", "from provision.cli import main; main()", *arguments]
        started = subprocess.run(
            start, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False
        )
        forked = program.run(arguments, stdin=None, env=os.environ, deadline=60)
        assert (forked.returncode, forked.stdout, forked.stderr) == (started.returncode, started.stdout, started.stderr)


def test_it_has_an_environment_a_folder_a_umask_and_input_of_its_own(run: Run, tmp_path: Path) -> None:
    """Those of the caller at this moment."""
    before = os.umask(0o027)
    try:
        done = run("print(dict(os.environ), sys.stdin.read(), file=open('seen', 'w'))", stdin="typed", GREETING="hello")
    finally:
        os.umask(before)
    assert done.returncode == 0, done.stderr
    seen = tmp_path / "seen"
    assert seen.read_text().startswith(str({"PATH": os.environ["PATH"], "GREETING": "hello"})[:-1])
    assert seen.read_text().endswith("typed\n")
    assert seen.stat().st_mode & 0o777 == 0o640
    run("print(os.environ.get('GREETING'), repr(sys.stdin.read()), file=open('seen', 'w'))")
    assert seen.read_text() == "None ''\n"


def test_a_signal_is_its_exit_code(run: Run) -> None:
    """As subprocess reports it."""
    assert run("os.kill(os.getpid(), signal.SIGKILL)").returncode == -9


def test_it_is_killed_when_its_time_is_up(run: Run, tmp_path: Path) -> None:
    """And the next one runs."""
    with pytest.raises(subprocess.TimeoutExpired):
        run("print(os.getpid(), file=open('pid', 'w', 1)); signal.pause()", deadline=3)
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()
    assert run("").returncode == 0


def test_several_run_at_once(run: Run, tmp_path: Path) -> None:
    """Each waits until the other has begun."""
    os.mkfifo(tmp_path / "pipe")  # opening it waits for the other side
    code = "name = sys.stdin.read()\nopen(name, 'w').close()\nopen('pipe', {'a': 'r', 'b': 'w'}[name]).close()"
    codes: list[int] = []
    threads = [
        threading.Thread(target=lambda name=name: codes.append(run(code, stdin=name).returncode)) for name in "ab"
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert codes == [0, 0]
    assert (tmp_path / "a").exists()


def test_it_ends_with_the_process_that_uses_it() -> None:
    """Nothing is left, however that process ends."""
    code = "import os; from provision_lab.forked import Program; done = Program().run(['--version'], stdin=None, env=os.environ, deadline=60)"
    code += "; print(done.stdout, flush=True); os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.startswith("provision")) == (-9, True), done.stderr
