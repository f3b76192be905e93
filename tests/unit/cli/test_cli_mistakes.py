"""Mistakes of new users: errors in playbooks, misspelt names, the order of words, hints that can be pasted."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from provision.errors import Unreachable
from provision.testing import FakeSession

pytestmark = pytest.mark.slow

RUN = "import sys; from provision.cli import main; main(sys.argv[1:])"
MISTAKES = '''
from provision import File, Resource, task


@task()
def undefined(host):
    """Use a name that is not defined."""
    yield File("/etc/motd", nothing_of_this_name)


@task()
def leaves(host):
    """End the program."""
    raise SystemExit(0)


@task()
def forgets(host):
    """Forget to yield."""
    File("/etc/motd", "hello")


@task()
def types(host):
    """Add a number to a text."""
    yield File("/etc/motd", host.name + 1)
'''


class TestMistakesInPlaybooks:
    """Exit code 2 with file, line, task and error; no host is contacted."""

    @pytest.mark.parametrize(
        ("task", "message"),
        [
            ("undefined", "mine.py:8: task undefined: NameError: name 'nothing_of_this_name' is not defined"),
            ("leaves", "mine.py:14: task leaves: SystemExit: 0"),
            ("forgets", "mine.py:17: task forgets: TypeError: the function returns nothing"),
            ("types", "mine.py:26: task types: TypeError: can only concatenate str"),
        ],
    )
    def test_in_a_task(self, estate: Any, provision: Any, task: str, message: str) -> None:
        """The traceback is printed with -v only."""
        estate.playbook("mine.py", MISTAKES)
        ended = provision(task, "-i", estate.inventory)
        assert (ended.code, message in ended.err, ended.out, estate.targets) == (2, True, "", {})
        assert "Traceback" not in ended.err
        assert "bug in provision" not in ended.err
        verbose = provision(task, "-i", estate.inventory, "-Cv")
        assert verbose.code == 2
        assert "Traceback (most recent call last)" in verbose.err

    def test_in_a_resource_of_the_users_own(self, estate: Any, provision: Any) -> None:
        """What is called before a host is contacted belongs to the task, too."""
        estate.playbook(
            "mine.py",
            "from provision import Resource, task\n"
            "class Mine(Resource):\n"
            "    def probe(self): ...\n"
            "    def plan(self, seen): ...\n"
            "    def claims(self): return 1 / 0\n"
            "@task()\ndef own(host):\n    'Own.'\n    yield Mine()\n",
        )
        ended = provision("own", "-i", estate.inventory)
        assert ended.code == 2
        assert "mine.py:5: task own: ZeroDivisionError: division by zero" in ended.err

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("import nothing_of_this_name\n", "broken.py:1: ModuleNotFoundError: No module named"),
            ("def broken(:\n", "broken.py:1: SyntaxError: invalid syntax"),
            ("import sys\nsys.exit(0)\n", "broken.py:2: SystemExit: 0"),
            ("raise SystemExit\n", "broken.py:1: SystemExit"),
        ],
    )
    def test_a_broken_file_blocks_only_what_needs_it(
        self, estate: Any, provision: Any, text: str, message: str
    ) -> None:
        """Other names run with a warning; every verb works; the name of the file is refused."""
        estate.playbook("broken.py", text)
        for session in estate.sessions:
            estate.sessions[session] = FakeSession({"id -nG": "bob staff"})
        ran = provision("staff", "-i", estate.inventory)
        assert (ran.code, f"warning: not used: {estate.folder}/playbooks/{message}" in ran.err) == (0, True)
        for verb in (["list"], ["schema"], ["explain", "docker"], ["inventory", "-i", estate.inventory]):
            ended = provision(*verb)
            assert (ended.code, message in ended.err) == (0, True), verb
            assert message not in ended.out
        assert "Traceback" in provision("list", "-v").err
        needed = provision("broken", "-i", estate.inventory)
        assert (needed.code, f"error: {estate.folder}/playbooks/{message}" in needed.err) == (2, True)

    def test_a_broken_file_is_not_replaced_by_the_shipped_one(self, estate: Any, provision: Any) -> None:
        """The user has replaced the task docker: the shipped one would do something else."""
        estate.playbook("mine.py", "from provision import task\n@task()\ndef docker(host):\n    yield\n1 / 0\n")
        ended = provision("docker", "-i", estate.inventory, "-e", 'hosts.web1.groups=["runners"]')
        assert ended.code == 2
        assert "mine.py:5: ZeroDivisionError" in ended.err

    def test_its_tables_are_accepted(self, estate: Any, provision: Any) -> None:
        """The inventory of the broken file can still be used for other tasks; misspelt tables are refused."""
        estate.playbook("mine.py", "from provision import Table\nclass NodeExporter(Table):\n    port: int\n1 / 0\n")
        inventory = Path(estate.inventory)
        inventory.write_text(inventory.read_text() + "[node_exporter]\nport = 1\n")
        assert provision("inventory", "-i", estate.inventory).code == 0
        inventory.write_text(inventory.read_text() + "[dokcer]\nx = 1\n")
        ended = provision("inventory", "-i", estate.inventory)
        assert ended.code == 2
        assert 'dokcer: unknown key; did you mean "docker"?' in ended.err
        assert "node_exporter" not in ended.err
        assert "mine.py:4" in ended.err

    def test_what_a_playbook_prints_is_not_on_stdout(self, estate: Any, provision: Any) -> None:
        """Stdout holds events only."""
        estate.playbook(
            "mine.py",
            "from provision import task\nprint('loading')\n@task()\ndef own(host):\n    'Own.'\n    print('here')\n    return ()\n",
        )
        ended = provision("own", "staff", "-i", estate.inventory, "--json")
        assert next(json.loads(line)["type"] for line in ended.out.splitlines()) == "start"
        assert "here" in ended.err


def test_two_records_of_one_task_name_host_and_task(estate: Any, provision: Any) -> None:
    """The message names what the user must look for."""
    estate.playbook(
        "mine.py",
        "from dataclasses import dataclass\n"
        "from provision import Resource, task\n"
        "@dataclass(frozen=True)\nclass Mine(Resource):\n"
        "    name: str\n"
        "    record_key = 'mine'\n"
        "    def probe(self): ...\n"
        "    def plan(self, seen): ...\n"
        "@task()\ndef own(host):\n    'Own.'\n    yield Mine('a')\n    yield Mine('b')\n",
    )
    ended = provision("own", "-i", estate.inventory, "-l", "web1")
    assert ended.code == 2
    assert "web1: task own: Mine b: the task yields two resources that record the same thing" in ended.err


class TestNames:
    """What is suggested, and what is not."""

    @pytest.mark.parametrize("name", ["run", "prun", "prunes", "purne"])
    def test_nothing_destructive_is_suggested(self, estate: Any, provision: Any, name: str) -> None:
        """Whatever was typed."""
        ended = provision(name, "all", "-i", estate.inventory)
        assert ended.code == 2
        assert "prune" not in ended.err.replace(repr(name), "")

    @pytest.mark.parametrize("definition", ["@task(removes=True)\ndef tidy", "@task()\ndef wipe_disks"])
    def test_nor_one_of_the_users_own(self, estate: Any, provision: Any, definition: str) -> None:
        """Marked by the task, or named like it; nor a playbook of it."""
        text = f"from provision import play, task\n{definition}(host):\n    'Remove all.'\n    return ()\n"
        estate.playbook("cleanups.py", f"{text}PLAYS = [play('all', {definition.split()[-1]})]\n")
        for name in ("tidyy", "wipe_disk", "cleanup"):
            ended = provision(name, "-i", estate.inventory)
            assert "did you mean" not in ended.err

    def test_run_all(self, estate: Any, provision: Any) -> None:
        """A word of other tools: the hint is the command without it."""
        ended = provision("run", "all", "-i", estate.inventory)
        assert ended.code == 2
        assert "leave the word out: provision all -i" in ended.err

    @pytest.mark.parametrize(
        ("option", "hint"),
        [("--tags", "name the tasks instead"), ("--dry-run", "--check"), ("--extra-vars", "--set"), ("--nope", "")],
    )
    def test_options_of_other_tools(self, estate: Any, provision: Any, option: str, hint: str) -> None:
        """The message has what is used instead; nothing is suggested only because it looks alike."""
        ended = provision("staff", "-i", estate.inventory, option, "docker")
        assert ended.code == 2
        assert hint in ended.err
        assert "Did you mean" not in ended.err

    def test_lab_down_is_not_suggested(self, provision: Any) -> None:
        """It removes hosts."""
        ended = provision("lab", "dwon")
        assert (ended.code, "Did you mean" in ended.err) == (2, False)
        assert "Did you mean 'status'" in provision("lab", "sttus").err

    def test_a_task_with_the_name_of_a_verb(self, estate: Any, provision: Any) -> None:
        """It is not listed, and a warning names its place. A playbook can still contain it."""
        estate.playbook(
            "mine.py",
            "from provision import GroupMember, play, task\n@task()\ndef logs(host):\n    'Mine.'\n"
            "    yield GroupMember('bob', 'staff')\nPLAYS = [play('web', logs)]\n",
        )
        listed = provision("list")
        assert f"{estate.folder}/playbooks/mine.py:2: the task logs has the name of a verb" in listed.err
        assert "\n  logs " not in listed.out
        assert provision("mine", "-i", estate.inventory, "-C").code == 0


class TestOrderOfWords:
    """Options may come before the verb."""

    @pytest.mark.parametrize(
        ("arguments", "printed"),
        [
            (["-i", "inventory.toml", "list"], "playbooks\n"),
            (["--inventory=inventory.toml", "list"], "playbooks\n"),
            (["-i", "inventory.toml", "-e", "ssh.port=1", "inventory"], "ssh.port = 1"),
            (["-i", "inventory.toml", "explain", "docker"], "task docker"),
            (["list", "-h"], "Usage: provision list"),
            (["-h", "list"], "Usage: provision list"),
            (["help"], "Usage: provision [OPTIONS] NAME"),
            (["help", "list"], "Usage: provision list"),
            (["help", "lab"], "Usage: provision lab"),
            (["help", "docker"], "task docker, on runners"),
            (["-i", "inventory.toml", "help", "staff"], "task staff, on all"),
        ],
    )
    def test_it_works(self, estate: Any, provision: Any, arguments: list[str], printed: str) -> None:
        """And prints the same."""
        assert estate.inventory
        ended = provision(*arguments)
        assert (ended.code, ended.err) == (0, "")
        assert printed in ended.out

    def test_a_value_is_not_a_verb(self, estate: Any, provision: Any) -> None:
        """A file with the name of a verb."""
        (estate.folder / "list").write_text(Path(estate.inventory).read_text())
        assert provision("-i", "list", "staff", "-C").code == 0
        assert provision("-Ci", "list", "staff").code == 0

    def test_a_verb_after_a_name(self, estate: Any, provision: Any) -> None:
        """The message says where it stands."""
        ended = provision("staff", "list", "-i", estate.inventory)
        assert (ended.code, "list is a verb and stands first: provision list" in ended.err) == (2, True)

    @pytest.mark.parametrize("verb", ["list", "schema", "explain", "inventory"])
    def test_an_inventory_that_does_not_exist(self, provision: Any, verb: str) -> None:
        """Exit code 2, for verbs that do not read it, too."""
        ended = provision(verb, "-i", "nope.toml")
        assert (ended.code, ended.out) == (2, "")
        assert "nope.toml: cannot be read: No such file" in ended.err

    def test_an_inventory_that_the_system_does_not_open(self, provision: Any) -> None:
        """For another reason: its name is too long."""
        ended = provision("list", "-i", "x" * 300)
        assert (ended.code, ended.out) == (2, "")
        assert f"error: {'x' * 300}: cannot be read: File name too long" in ended.err


class TestGroups:
    """A group that no host is in."""

    @pytest.mark.parametrize("name", ["docker", "runners", "all"])
    def test_a_misspelt_group(self, estate: Any, provision: Any, name: str) -> None:
        """The message names the group of the tasks and the one of the inventory."""
        Path(estate.inventory).write_text('[hosts.web1]\ngroups = ["runner"]\n[docker]\n')
        ended = provision(name, "-i", estate.inventory)
        assert ended.code == 2
        assert "no host of the inventory is in group 'runners'" in ended.err
        assert "there is a group 'runner': did you mean 'runners'?" in ended.err
        assert 'write groups = ["' in ended.err

    def test_the_rest_of_a_playbook_runs_with_a_warning(self, estate: Any, provision: Any) -> None:
        """The warning names both groups, too."""
        file = Path(estate.inventory)
        file.write_text(file.read_text().replace('groups = ["db"]', 'groups = ["runner"]'))
        ended = provision("staff", "docker", "-i", estate.inventory, "-C")
        assert ended.code == 0
        assert "warning: no host of the inventory is in group 'runners': its tasks are not run (docker)" in ended.err
        assert "there is a group 'runner'" in ended.err


class TestSecrets:
    """All that are missing are reported at once."""

    def test_all_are_named(self, estate: Any, provision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Those of tasks and that of sudo; each once, although several hosts need it."""
        monkeypatch.delenv("NO_SUCH_A", raising=False)
        text = Path(estate.inventory).read_text()
        text += '[ssh]\nbecome_password = { env = "NO_SUCH_A" }\n'
        text += '[gitlab]\nexternal_url = "https://g.example.com"\napi_token = { file = "no-such-file" }\n'
        for number, token in enumerate(('{ command = ["false"] }', '{ env = "NO_SUCH_A" }', '{ prompt = "Token" }')):
            text += f'[[runners]]\nname = "r{number}"\nexecutor = "shell"\ntoken = {token}\n'
        Path(estate.inventory).write_text(text.replace('groups = ["web"]', 'groups = ["runners"]'))
        Path(estate.inventory).chmod(0o600)
        ended = provision("register", "-i", estate.inventory)
        assert ended.code == 2
        assert "error: 4 mistakes:\n" in ended.err
        assert ended.err.count("ssh.become_password: the environment variable NO_SUCH_A is not set") == 1
        assert ended.err.count("runners[1].token: the environment variable NO_SUCH_A is not set") == 1
        assert ended.err.count("runners[0].token: false failed with exit code 1") == 1
        assert ended.err.count("gitlab.api_token: ") == 1
        assert "no terminal" not in ended.err  # a run that cannot start prompts for no secret
        assert estate.targets == {}


class TestHintToRerun:
    """The hint after a failure is a complete command."""

    def test_it_can_be_pasted(self, estate: Any, provision: Any) -> None:
        """All options are in it; it selects the failed hosts."""
        estate.sessions["web2"] = Unreachable("no route")
        (estate.folder / "two words.toml").write_text("[ssh]\nport = 2200\n")
        given = [
            "staff",
            "-i",
            "inventory.toml",
            "-i",
            "two words.toml",
            "-e",
            'ssh.user="ops"',
            "-f",
            "2",
            "-vv",
            "-C",
        ]
        ended = provision(*given, "-l", "web")
        hint = ended.out[ended.out.index("After the fix, rerun only these hosts:\n") :].splitlines()[1]
        assert hint.startswith("  provision staff -i inventory.toml")
        command = shlex.split(hint)
        estate.targets.clear()
        assert provision(*command[1:]).code == 4
        assert set(estate.targets) == {"web2"}
        assert {(one.port, one.user) for one in estate.targets.values()} == {(2200, "ops")}

    def test_when_all_failed_it_is_the_command(self, estate: Any, provision: Any) -> None:
        """Without --limit."""
        estate.sessions["web1"] = Unreachable("no route")
        ended = provision("staff", "-i", "inventory.toml", "-l", "web1")
        assert "After the fix, rerun:\n  provision staff -i inventory.toml\n" in ended.out

    def test_a_secret_is_not_in_it(self, estate: Any, provision: Any) -> None:
        """Then the hint has only the option: a masked command could not be pasted."""
        estate.sessions["web2"] = Unreachable("no route")
        ended = provision("staff", "-i", "inventory.toml", "-e", "ssh.become_password=canary-6120")
        assert "canary-6120" not in ended.out + ended.err
        assert "the same command with\n  --limit web2" in ended.out


def test_a_width_of_zero_prints_everything() -> None:
    """COLUMNS=0 in the environment of a pipe."""
    script = (
        "import sys\nfrom provision.report.console import open_console\n"
        "console = open_console(sys.stdout)\nconsole.print('visible')\n"
    )
    environment = os.environ | {"COLUMNS": "0"}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout == "visible\n"


class TestNothingConfigured:
    """Tasks without settings contact no host."""

    @pytest.mark.parametrize(
        ("name", "table"), [("register", "[[runners]]"), ("verify", "[registry]"), ("certificates", "[registry]")]
    )
    def test_nothing_to_do(self, estate: Any, provision: Any, name: str, table: str) -> None:
        """The message names the tables."""
        Path(estate.inventory).write_text('[hosts.web1]\ngroups = ["runners", "gitlab"]\n')
        ended = provision(name, "-i", estate.inventory)
        assert (ended.code, estate.targets) == (2, {})
        assert f"nothing to do for {name}" in ended.err
        assert table in ended.err

    def test_verify_without_a_login(self, estate: Any, provision: Any) -> None:
        """There is nothing to push with."""
        Path(estate.inventory).write_text(
            '[hosts.web1]\ngroups = ["runners"]\n[registry]\nexternal_url = "https://r.example.com"\n'
        )
        assert provision("verify", "-i", estate.inventory).code == 2
        assert estate.targets == {}

    def test_entries_of_earlier_runs_are_still_removed(self, estate: Any) -> None:
        """`register` runs on hosts that another task contacts, and on those with [runner] settings."""
        from provision.engine.assemble import Options, assemble

        file = Path(estate.inventory)
        file.write_text('[hosts.web1]\ngroups = ["runners"]\n')
        run, _ = assemble(Options(("runner", "register"), (file,)))
        assert [task.name for play in run.plays for task in play.tasks.get("web1", ())] == ["runner", "register"]
        file.write_text('[hosts.web1]\ngroups = ["runners"]\n[runner]\nconcurrent = 2\n')
        run, _ = assemble(Options(("register",), (file,)))
        assert [task.name for play in run.plays for task in play.tasks.get("web1", ())] == ["register"]
