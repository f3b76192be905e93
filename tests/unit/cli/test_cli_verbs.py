"""The verbs, and the help."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from provision.templating import shipped

pytestmark = pytest.mark.slow

HEAVY = (
    "rich",
    "pydantic",
    "paramiko",
    "fabric",
    "jinja2",
    "cryptography",
    "gitlab",
    "tomlkit",
    "tree_sitter",
    "requests",
)
RUN = "import sys; from provision.cli import main; main(sys.argv[1:])"


def test_help_names_everything(provision: Any) -> None:
    """The help names verbs, options and exit codes."""
    ended = provision("--help")
    assert ended.code == 0
    for word in ("lab", "init", "explain", "--limit", "--check", "--fail-on-change", "130 interrupted"):
        assert word in ended.out


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize("verb", ["list", "inventory", "schema", "explain", "init", "lab", "logs"])
def test_each_verb_has_its_help(provision: Any, verb: str, option: str) -> None:
    """The usage has the verb's name."""
    ended = provision(verb, option)
    assert ended.code == 0
    assert f"Usage: provision {verb}" in ended.out


def test_the_lab_that_is_not_installed(provision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names its distribution; `lab up` is not read as names of tasks."""
    monkeypatch.setattr("provision.cli.verbs.added", lambda _: ())
    ended = provision("lab", "up")
    assert ended.code == 2
    assert "the verb lab is in the distribution provision-lab, which is not installed" in ended.err


def test_no_arguments_is_help(provision: Any) -> None:
    """No arguments are bad usage."""
    ended = provision()
    assert ended.code == 2
    assert "Usage: provision" in ended.out + ended.err


def test_the_version(provision: Any) -> None:
    """It prints one line."""
    from provision import __version__

    assert provision("--version").out == f"provision, version {__version__}\n"


def test_help_is_quick() -> None:
    """It imports no heavy library and takes less than 0.2 s of processor time, in the best of several tries."""
    heavy = (
        f"import atexit\natexit.register(lambda: print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr))"
    )
    script = f"{heavy}\n{RUN}"
    spent = []
    for _ in range(10):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        ended = subprocess.run([sys.executable, "-c", script, "--help"], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert ended.stderr.strip() == "[]"
        if spent[-1] < 0.2:
            return
    pytest.fail(f"seconds of processor time: {spent}")


def test_a_reader_that_has_gone_is_no_fault() -> None:
    """`provision list | head -n 1`."""
    ended = subprocess.run(
        ["sh", "-c", '"$0" -c "$1" list | head -n 1', sys.executable, RUN], capture_output=True, text=True, check=True
    )
    assert ended.stdout == "playbooks\n"
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-"])
def test_closed_streams_are_no_fault(closed: str) -> None:
    """Some supervisors start programs with closed streams."""
    ended = subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" --version {closed}', sys.executable, RUN], capture_output=True, check=False
    )
    assert ended.returncode == 0
    assert b"Traceback" not in ended.stderr


class TestList:
    """`provision list`."""

    def test_shipped_ones(self, provision: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """They are printed with headline and group."""
        monkeypatch.chdir(tmp_path)
        out = provision("list").out
        assert "  all " in out
        assert "on runners: firewall, docker, runner, register" in out
        assert " 2 on runners: firewall, docker, runner\n" in out
        assert " 3 on all: accounts (after 1)\n" in out
        assert " 9 on all: deploy (after 7 and 8)\n" in out
        assert (
            "Install Docker Engine and start it; configure its daemon, users and trusted registries. (on runners)"
            in out
        )

    def test_the_users_own(self, estate: Any, provision: Any) -> None:
        """Those beside the inventory are printed, too."""
        out = provision("list", "-i", estate.inventory).out
        assert "Everybody is in the group." in out
        assert "Bob is one of the staff. (on all)" in out


class TestInventory:
    """`provision inventory`."""

    def test_for_people(self, estate: Any, provision: Any) -> None:
        """Hosts and groups."""
        out = provision("inventory", "-i", estate.inventory).out
        for word in ("web1", "db1", "debug"):
            assert word in out

    def test_as_json(self, estate: Any, provision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Settings are resolved and overridden, secrets masked; warnings are on stderr."""
        monkeypatch.setenv("BECOME", "canary-become")
        ended = provision(
            "inventory",
            "-i",
            estate.inventory,
            "--json",
            "-e",
            "ssh.port=2222",
            "-e",
            "ssh.become_password={env='BECOME'}",
        )
        data = json.loads(ended.out)
        assert set(data["hosts"]) == {"web1", "web2", "db1"}
        assert "canary" not in ended.out
        assert "2222" in ended.out

    def test_it_needs_one(self, provision: Any) -> None:
        """Exit code 2."""
        assert provision("inventory").code == 2

    def test_a_wrong_key(self, estate: Any, provision: Any) -> None:
        """Exit code 2, with the nearest key."""
        (estate.folder / "inventory.toml").write_text("[hosts.a]\n[dokcer]\n")
        ended = provision("inventory", "-i", estate.inventory)
        assert ended.code == 2
        assert "docker" in ended.err


def test_the_schema_is_json(provision: Any) -> None:
    """It is valid in the draft that it names."""
    schema = json.loads(provision("schema").out)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "hosts" in schema["properties"]


class TestInit:
    """`provision init`."""

    def test_an_empty_folder(self, provision: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The inventory is valid, and the playbook's task is found."""
        folder = tmp_path / "new" / "estate"
        ended = provision("init", str(folder))
        assert ended.code == 0
        assert (folder / "inventory.toml").read_bytes() == (shipped("inventories") / "example.toml").read_bytes()
        assert tomllib.loads((folder / "inventory.toml").read_text())["hosts"]
        monkeypatch.chdir(folder)
        assert "Greet logins" in provision("list", "-i", "inventory.toml").out
        assert f"provision all -i {folder}/inventory.toml --check --diff" in ended.out

    def test_the_current_folder(self, provision: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without an argument the current folder is used."""
        monkeypatch.chdir(tmp_path)
        assert provision("init").code == 0
        assert Path("inventory.toml").exists()

    def test_what_is_there_is_kept(self, provision: Any, tmp_path: Path) -> None:
        """Missing files are written."""
        (tmp_path / "inventory.toml").write_text("# mine\n")
        ended = provision("init", str(tmp_path))
        assert ended.code == 0
        assert (tmp_path / "inventory.toml").read_text() == "# mine\n"
        assert f"exists   {tmp_path}/inventory.toml" in ended.out
        assert (tmp_path / "playbooks/motd.py").exists()

    def test_a_folder_that_cannot_be_made(self, provision: Any, tmp_path: Path) -> None:
        """Exit code 2 with a message."""
        (tmp_path / "file").write_text("")
        ended = provision("init", str(tmp_path / "file" / "below"))
        assert ended.code == 2
        assert "choose a folder" in ended.err


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["--no-such-option"], 2)])
@pytest.mark.parametrize("busy", [False, True])
def test_the_end_of_the_process(arguments: list[str], code: int, busy: bool) -> None:
    """What was registered for the end happens, the exit code and all output stay; a thread at work is waited for."""
    work = (
        "import threading\nthreading.Thread(target=lambda: (threading.main_thread().join(), print('done'))).start()\n"
    )
    start = f"import atexit\natexit.register(print, 'at the end')\n{work if busy else ''}"
    ended = subprocess.run(
        [sys.executable, "-c", f"{start}{RUN}", *arguments], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == code
    assert ended.stdout.endswith("done\nat the end\n" if busy else "at the end\n")
    assert ("error" in ended.stderr or "Error" in ended.stderr) == bool(code)


@pytest.mark.parametrize(
    ("arguments", "full", "code"),
    [
        (["--help"], "stdout", 1),
        (["explain"], "stdout", 1),
        (["nothing", "-i", "missing.toml"], "stderr", 2),
        (["--no-such-option"], "stderr", 2),
    ],
)
def test_a_full_disk_is_an_error_and_no_traceback(arguments: list[str], full: str, code: int) -> None:
    """stdout: one line on stderr. stderr: nothing can be printed, and the exit code is what it would be."""
    with open("/dev/full", "w") as device:  # noqa: PTH123
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, full: device}
        ended = subprocess.run([sys.executable, "-c", RUN, *arguments], **streams, text=True, timeout=60)
    assert ended.returncode == code
    if full == "stdout":
        assert ended.stderr == "error: cannot write the output: No space left on device\n"
    else:
        assert ended.stdout == ""
