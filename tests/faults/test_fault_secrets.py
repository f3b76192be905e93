"""No secret where it does not belong: planted secrets are searched in processes, files, logs and output, on hosts and here.

Processes are read continuously, every few milliseconds, in this machine's /proc, which shows those of the hosts too. One
secret comes from the environment on purpose. Only the program itself, as typed, may have it, and the programs that it
starts on this machine, which inherit its environment.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from provision_lab import LabHost
from provision_lab.harness import PROVISION, Harness
from tests.support.canaries import Canaries, files, watched
from tests.support.faults import on_host, with_playbooks

HOSTS = ("gitlab", "runner-1")
# Where each belongs; everything else is a leak.
MEANT_FOR_THEM = re.compile(
    r"""
      etc/gitlab/gitlab\.rb
    | var/opt/gitlab/registry/config\.yml
    | etc/gitlab-runner/config\.toml
    | var/lib/provision/(backup|rollback)/.*                    # of those; the folder is 0700
    | etc/gitlab-standin/seed\.json | var/opt/gitlab/standin.*  # the lab's GitLab has its users and tokens from somewhere
    """,
    re.VERBOSE,
)


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """Two bare hosts; one has a sudo password."""
    harness = with_playbooks(harness_factory(LabHost("gitlab"), LabHost("runner-1", sudo="password")))
    settings = harness.inventory["gitlab"]["settings"]
    (harness.folder / "smtp").write_text("canary-smtp-UvXw93-ßecret")
    (harness.folder / "smtp").chmod(0o600)
    settings["gitlab_rails"]["smtp_password"] = {"command": ["cat", str(harness.folder / "smtp")]}
    settings["gitlab_rails"]["incoming_email_password"] = {"env": "MAIL_PASSWORD"}
    return harness


@pytest.fixture(scope="module")
def canaries(harness: Harness) -> Canaries:
    """Everything that is secret in this estate."""
    names = ("api_token", "registry_password", "s3_access_key", "s3_secret_key", "sudo_password")
    texts = {name: harness.lab.secret(name) for name in names}
    return Canaries({**texts, "smtp": "canary-smtp-UvXw93-ßecret", "mail": "canary-mail-77JkQp-from-env"})


def run(
    harness: Harness,
    canaries: Canaries,
    name: str,
    *arguments: str,
    changes: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
) -> int:
    """One watched run; its output is kept under its name, and its own environment may have the mail password."""
    argv = [*PROVISION, *arguments, "-i", str(harness.write(changes))]
    environment = {**os.environ, "MAIL_PASSWORD": canaries.texts["mail"], **(env or {})}
    with watched(harness, canaries):
        process = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, stdin=subprocess.DEVNULL
        )
        stdout, stderr = process.communicate(timeout=400)
    canaries.outputs[name] = stdout + stderr
    own = f"environment of {process.pid}"
    canaries.seen[:] = [one for one in canaries.seen if (one[0], f"{one[2]} of {one[1]}") != ("mail", own)]
    return process.returncode


@pytest.fixture(scope="module")
def done(harness: Harness, canaries: Canaries) -> Canaries:
    """Runs of every kind with full output: all from bare hosts, changes, failures, a crash of the program."""
    report = ("--report", str(harness.folder / "report.html"))
    assert run(harness, canaries, "all", "all", "-vv", "--diff", "--stats", *report) == 0, canaries.outputs["all"][
        -3000:
    ]
    other = {"gitlab": {"settings": {"gitlab_rails": {"smtp_user_name": "canary", "time_zone": "Berlin"}}}}
    runners = {"runners": [*harness.inventory["runners"], {"name": "second", "executor": "shell"}]}
    more = ("--json", "--diff", "-vv")
    assert run(harness, canaries, "check", "all", "--check", *more, changes={**other, **runners}) == 0
    assert run(harness, canaries, "change", "gitlab", "register", *more, changes={**other, **runners}) == 0
    tokens = harness.lab.inside("runner-1", "sed -n 's/^ *token = //p' /etc/gitlab-runner/config.toml").split()
    canaries.texts.update((f"runner_token_{number}", token.strip('"')) for number, token in enumerate(tokens))
    assert len(tokens) == 2
    for name, line in failures(canaries).items():
        spoil = f"printf '%s' {line!r} > /etc/gitlab-standin/fail-next-reconfigure"
        harness.lab.inside("gitlab", spoil)
        assert run(harness, canaries, name, "gitlab", *more) == 1, canaries.outputs[name]
    # GitLab's own log holds what we made it say: that is no leak of anybody's.
    harness.lab.inside(
        "gitlab", "cd /var/log/gitlab/reconfigure && rm $(grep -l 'cannot use storage\\|cannot log in' *)"
    )
    with on_host(harness, "runner-1", "systemctl stop docker.socket docker", "systemctl start docker"):
        assert run(harness, canaries, "docker down", "verify", *more) == 1
    wrong = {"registry": {"login": {"username": "nobody"}}}
    assert run(harness, canaries, "login refused", "verify", "-vv", changes=wrong) == 1
    crash = {"CANARY": canaries.texts["s3_secret_key"], "GREETING": ""}
    assert run(harness, canaries, "crash", "crash", "-vv", env=crash) == 2  # the mistake is in a playbook
    own = [one for one in canaries.seen if one[0] == "s3_secret_key" and one[2] == "environment"]
    canaries.seen[:] = [one for one in canaries.seen if one not in own]  # CANARY, as this test typed it
    return canaries


def failures(canaries: Canaries) -> dict[str, str]:
    """The output of a failing reconfigure, with secrets in it."""
    texts = canaries.texts
    return {
        "reconfigure fails": f"cannot use storage {texts['s3_access_key']}:{texts['s3_secret_key']}",
        "mail fails": f"cannot log in with {texts['mail']} and {texts['smtp']}",
    }


RUNS = ("all", "check", "change", "reconfigure fails", "mail fails", "docker down", "login refused", "crash")


@pytest.mark.parametrize("name", RUNS)
def test_no_output_holds_one(done: Canaries, name: str) -> None:
    """Terminal at -vv, diffs, JSON lines, errors and a traceback: secrets are masked, everything else is not."""
    output = done.outputs[name]
    assert done.inside(output.encode()) == []
    expected = {
        "all": "smtp_password'] = '***'",
        "check": "set gitlab_rails",
        "change": "second",
        "reconfigure fails": "cannot use storage ***:***",
        "mail fails": "cannot log in with *** and ***",
        "docker down": "docker daemon",
        "login refused": "login",
        "crash": "RuntimeError: cannot use ***",
    }
    assert expected[name].replace("'", "") in output.replace("'", "").replace('"', "").replace("\\", ""), output[-3000:]


def test_the_report_holds_none(harness: Harness, done: Canaries) -> None:
    """The report of the first run with its diffs."""
    page = (harness.folder / "report.html").read_bytes()
    assert done.inside(page) == []
    assert b"***" in page


def test_no_process_carried_one(done: Canaries) -> None:
    """No argv or environment of any process, on the hosts and on this machine, at any time."""
    assert done.seen == []
    assert done.samples > 500


def test_the_watch_sees_what_is_there(harness: Harness, canaries: Canaries) -> None:
    """A process with a secret in its argv and another one's environment is detected."""
    other = Canaries(canaries.texts)
    text = canaries.texts["s3_secret_key"]
    with watched(harness, other):
        argv = ["sh", "-c", "sleep 0.3", "sh", f"--password={text}"]
        subprocess.run(argv, env={"PATH": os.environ["PATH"], "A": canaries.texts["mail"]}, check=True)
    assert {(name, what) for name, _, what in other.seen} == {("s3_secret_key", "argv"), ("mail", "environment")}


@pytest.mark.parametrize("host", HOSTS)
def test_no_file_of_a_host_holds_one(harness: Harness, done: Canaries, host: str) -> None:
    """Disk, /run, /tmp, /dev/shm, logs, Docker's files; except the files that are to hold them."""
    machine = harness.lab.machine(host)
    root = Path(f"/proc/{machine.leader}/root")
    trees = [machine.folder / "disk" / name for name in ("upper", "docker", "containerd")]
    trees += [root / name for name in ("run", "tmp", "var/tmp", "dev/shm")]
    held: dict[str, list[str]] = {}
    count = 0
    for tree in trees:
        for path in files(tree):
            count += 1
            if names := done.inside(path.read_bytes()):
                held[str(path.relative_to(tree))] = names
    assert {path: names for path, names in held.items() if not MEANT_FOR_THEM.fullmatch(path)} == {}
    assert count > 100
    assert any(path.startswith("etc/gitlab") for path in held)  # they were planted, and are where they belong
    assert harness.lab.inside(host, "stat -c %a /var/lib/provision /var/lib/provision/backup").split() == ["700", "700"]
    assert done.inside(harness.lab.inside(host, "journalctl -a --no-pager -o export").encode()) == []


def test_no_file_of_this_machine_holds_one(harness: Harness, done: Canaries) -> None:
    """Beside the inventory only the secret's own file; nothing of ours in the temporary folders."""
    held = {path.name: names for path in files(harness.folder) if (names := done.inside(path.read_bytes()))}
    assert held == {"smtp": ["smtp"]}
    for folder in (Path("/dev/shm"), Path("/run")):
        assert [path for path in folder.glob("*provision*") if "lab" not in path.name and path.is_file()] == []


def test_state_holds_none(harness: Harness, done: Canaries) -> None:
    """state.json has the names of keys, never values."""
    for host in HOSTS:
        assert done.inside(harness.lab.inside(host, "cat /var/lib/provision/state.json").encode()) == []
