"""Runs that meet, are interrupted, or lose their connection or stdout: what is reported, and what continues."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable

import pytest

from provision_lab import LabHost
from provision_lab.harness import PROVISION, Harness
from tests.support.faults import GREETING, Gate, Live, fact, greeters, wait_until_free
from tests.support.runs import provision, untouched


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """Two hosts with a greeting."""
    return greeters(harness_factory(LabHost("good"), LabHost("other")))


def test_two_runs_at_once(harness: Harness) -> None:
    """The second is refused on that host and names the holder and its start; the first succeeds, then it is free."""
    gate = Gate(harness, "good")
    first = Live(harness, "hold")
    gate.wait()
    second = provision(harness, "greet", env={"GREETING": "second\n"})
    (error,) = second.of("error")
    assert (second.code, error["host"], error["error"]) == (1, "good", "Locked")
    assert f"process {first.process.pid}" in error["text"]
    assert "since 20" in error["text"]
    assert second.statuses("other") == {"greet": "changed"}
    check = provision(harness, "greet", "--check", env={"GREETING": "looking is free\n"})
    assert (check.code, check.of("error")) == (0, [])
    gate.open()
    assert first.end().code == 0
    assert provision(harness, "greet", env={"GREETING": "second\n"}).code == 0


def test_one_interrupt_finishes_the_step(harness: Harness) -> None:
    """One Ctrl-C: the running step is finished, the next is not started, both are reported; exit code 130."""
    gate = Gate(harness, "good")
    run = Live(harness, "hold", "greet", "--limit", "good", env={"GREETING": "never\n"})
    gate.wait()
    run.send(signal.SIGINT)
    assert "stopping after: pass the gate" in run.until("message", host="good")["text"]
    gate.open()
    outcome = run.end()
    assert outcome.code == 130
    assert "stopped between two steps; the last was: pass the gate" in outcome.messages()
    assert outcome.statuses("good")["greet"] == "skipped"
    assert fact(harness, "good", f"cat /run/passed; grep -c never {GREETING} || true") == "through\n0"
    assert provision(harness, "greet", env={"GREETING": "never\n"}).code == 0


def test_two_interrupts_abandon_the_step(harness: Harness) -> None:
    """Two Ctrl-C: the run ends at once and names the step, which continues on the host and holds the lock."""
    gate = Gate(harness, "good")
    harness.lab.inside("good", "rm -f /run/passed")
    run = Live(harness, "hold", "greet", "--limit", "good", env={"GREETING": "never again\n"})
    gate.wait()
    run.send(signal.SIGINT)
    run.until("message", host="good")
    run.send(signal.SIGINT)
    outcome = run.end()
    assert outcome.code == 130
    assert "abandoned during: pass the gate" in outcome.messages()
    assert provision(harness, "hold", "--limit", "good").of("error")[0]["error"] == "Locked"
    gate.open()
    wait_until_free(harness, "good")
    assert fact(harness, "good", f"cat /run/passed; grep -c again {GREETING} || true") == "through\n0"
    assert provision(harness, "hold", "greet", env={"GREETING": "never again\n"}).code == 0


def test_a_broken_connection(harness: Harness) -> None:
    """sshd's session is killed during a step: unreachable, exit code 4; the host is free when the step has ended."""
    gate = Gate(harness, "good")
    run = Live(harness, "hold", "greet", env={"GREETING": "after all\n"})
    gate.wait()
    harness.lab.inside("good", "pkill -9 -f '^sshd-session: ubuntu'")
    outcome = run.end()
    (error,) = outcome.of("error")
    assert (outcome.code, error["host"], error["error"]) == (4, "good", "ConnectionLost")
    assert error["hint"]
    assert outcome.statuses("other") == {"hold": "ok", "greet": "changed"}
    gate.open()
    wait_until_free(harness, "good")
    assert provision(harness, "greet", env={"GREETING": "after all\n"}).code == 0


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_nobody_reads_the_output(harness: Harness, options: tuple[str, ...]) -> None:
    """`provision … | head -0`: the run continues to its end, with one message on stderr."""
    greeting = f"unseen {options}\n"
    argv = [*PROVISION, "greet", *options, "-i", str(harness.write())]
    gone = subprocess.Popen(["true"], stdin=subprocess.PIPE)
    gone.wait()
    done = subprocess.run(
        argv, stdout=gone.stdin, stderr=subprocess.PIPE, text=True, env=environment(GREETING=greeting), check=False
    )
    assert done.stderr.count("stdout was closed") == 1
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    for host in harness.lab.hosts:
        assert fact(harness, host.name, f"cat {GREETING}") == greeting.strip()


def test_stdout_closed(harness: Harness) -> None:
    """`provision … >&-`: without stdout, the run succeeds."""
    argv = [*PROVISION, "greet", "-i", str(harness.write())]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *argv],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(GREETING="closed\n"),
        check=False,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert fact(harness, "good", f"cat {GREETING}") == "closed"


def test_no_room_for_the_report(harness: Harness) -> None:
    """A report that cannot be written is refused before anything is contacted; exit code 2."""
    with untouched(harness, "good", "/etc", "/var/lib/provision"):
        done = harness.run("greet", "--report", "/proc/no/report.html", env={"GREETING": "no report\n"})
    assert (done.returncode, "/proc/no" in done.stderr) == (2, True), done.stderr


def environment(**more: str) -> dict[str, str]:
    """This process's environment, and more."""
    return {**os.environ, **more}
