"""`provision NAME…`: exit codes, options, and the use of stdout and stderr."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from provision.engine.events import Bus
from provision.engine.run import Run
from provision.errors import Locked, Unreachable
from provision.secret import Secret
from provision.shell import Result
from provision.testing import FakeSession


def converged(estate: Any) -> None:
    """Bob is one of the staff everywhere."""
    for name in estate.sessions:
        estate.sessions[name] = FakeSession({"id -nG": "bob staff"})


class TestExitCodes:
    """Users' scripts depend on these exit codes."""

    def test_0_nothing_to_do(self, estate: Any, provision: Any) -> None:
        """0 when nothing is to be changed."""
        converged(estate)
        assert provision("staff", "-i", estate.inventory).code == 0

    def test_0_changed(self, estate: Any, provision: Any) -> None:
        """0 when all changes were applied."""
        ended = provision("staff", "-i", estate.inventory)
        assert ended.code == 0
        assert all(any("usermod" in one.script for one in session.ran) for session in estate.sessions.values())

    def test_1_a_host_failed(self, estate: Any, provision: Any) -> None:
        """1 when a host failed, even if others are unreachable."""
        estate.sessions["web1"] = FakeSession({"usermod": Result(b"", b"no such group\n", 6), "id -nG": "bob"})
        estate.sessions["web2"] = Unreachable("no route")
        ended = provision("staff", "-i", estate.inventory)
        assert ended.code == 1
        assert "no such group" in ended.out

    def test_1_a_locked_host_was_reached(self, estate: Any, provision: Any) -> None:
        """1 when another run holds the host."""
        estate.sessions["web1"] = Locked("web1: another run holds the host")
        assert provision("staff", "-i", estate.inventory).code == 1

    def test_3_changes_are_pending(self, estate: Any, provision: Any) -> None:
        """3 with --fail-on-change: nothing is changed and no lock is taken."""
        ended = provision("staff", "-i", estate.inventory, "--check", "--fail-on-change")
        assert ended.code == 3
        assert all(session.ran == [] for session in estate.sessions.values())
        assert set(estate.locked.values()) == {False}

    def test_0_no_drift(self, estate: Any, provision: Any) -> None:
        """0 with --fail-on-change when nothing is pending."""
        converged(estate)
        assert provision("staff", "-i", estate.inventory, "-C", "--fail-on-change").code == 0

    def test_0_check_without_it(self, estate: Any, provision: Any) -> None:
        """0 for a plan with changes."""
        assert provision("staff", "-i", estate.inventory, "-C").code == 0

    def test_a_plan_of_several_plays_shows_them(self, estate: Any, provision: Any) -> None:
        """The plays of a later name wait for those of earlier names. A single play is not shown."""
        converged(estate)
        hosts = "web[1:2], db1"
        plan = f"plays\n  1  {hosts}: staff\n  2  {hosts}: again (after 1)\n\nNothing to change on 3 hosts"
        (estate.folder / "playbooks" / "again.py").write_text(
            "from provision.resources import GroupMember\nfrom provision.tasks import task\n"
            "@task()\ndef again(host):\n    yield GroupMember('bob', 'staff')\n"
        )
        assert plan in provision("staff", "again", "-i", estate.inventory, "-C").out
        assert "plays" not in provision("staff", "-i", estate.inventory, "-C").out
        assert "plays" not in provision("staff", "again", "-i", estate.inventory).out

    def test_4_unreachable(self, estate: Any, provision: Any) -> None:
        """4 when hosts are unreachable and none failed."""
        estate.sessions["web1"] = Unreachable("no route")
        ended = provision("staff", "-i", estate.inventory)
        assert ended.code == 4
        assert "no route" in ended.out

    def test_4_before_3(self, estate: Any, provision: Any) -> None:
        """4, not 3: the unreachable host may have changes, too."""
        estate.sessions["web1"] = Unreachable("no route")
        assert provision("staff", "-i", estate.inventory, "-C", "--fail-on-change").code == 4

    def test_130_interrupted(self, estate: Any, provision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ctrl-C during a step: 130, and a message about that step."""
        stopped, stop = threading.Event(), Run._stop

        def stop_and_tell(run: Run, bus: Bus) -> None:
            stop(run, bus)
            stopped.set()

        monkeypatch.setattr(Run, "_stop", stop_and_tell)

        def usermod(_: Any) -> int:
            os.kill(os.getpid(), signal.SIGINT)
            assert stopped.wait(5)
            return 0

        estate.sessions["web1"] = FakeSession({"usermod": usermod, "id -nG": ["bob", "bob staff"]})
        ended = provision("staff", "-i", estate.inventory, "-l", "web1")
        assert ended.code == 130
        assert "stopping after: add bob to group staff" in ended.out
        assert "stopped between two steps; the last was: add bob to group staff" in ended.out


class TestBadUsage:
    """Exit code 2: no host is contacted, and the message has a hint."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["staf", "-i", "inventory.toml"], "did you mean 'staff'?"),
            (["staff"], "--inventory"),
            (["staff", "-i", "nowhere.toml"], "nowhere.toml"),
            (["staff", "-i", "inventory.toml", "--bogus"], "--bogus"),
            (["staff", "-i", "inventory.toml", "--chek"], "--check"),
            (["staff", "-i", "inventory.toml", "--fail-on-change"], "--fail-on-change needs --check"),
            (["staff", "-i", "inventory.toml", "-f", "0"], "-f"),
            (["staff", "-i", "inventory.toml", "-f", "many"], "many"),
            (["staff", "-i", "inventory.toml", "-l", "nobody"], "nobody"),
            (["staff", "-i", "inventory.toml", "-l", "!all"], "!all"),
            (["everybody", "-i", "inventory.toml", "-l", "db1"], "none of the selected hosts is in 'web'"),
            (["gitlab", "-i", "inventory.toml"], "no host of the inventory is in group 'gitlab'"),
            (["staff", "-i", "inventory.toml", "-e", "docker.deamon.debug=true"], "daemon"),
            (["staff", "-i", "inventory.toml", "-e", "nonsense"], "nonsense"),
            (["staff", "-i", "inventory.toml", "--report", "nowhere/at/all.html"], "nowhere/at/all.html"),
        ],
    )
    def test_it_is_told(self, estate: Any, provision: Any, arguments: list[str], message: str) -> None:
        """The message is on stderr and fits on one screen."""
        ended = provision(*arguments)
        assert ended.code == 2
        assert message in ended.err
        assert ended.out == ""
        assert estate.targets == {}
        assert "Traceback" not in ended.err

    def test_a_broken_inventory(self, estate: Any, provision: Any) -> None:
        """The message has file, line and key."""
        Path("inventory.toml").write_text('[hosts.web1]\ngruops = ["web"]\n')
        ended = provision("staff", "-i", "inventory.toml")
        assert ended.code == 2
        assert "inventory.toml" in ended.err
        assert "groups" in ended.err
        assert estate.targets == {}

    def test_a_secret_that_is_missing(self, estate: Any, provision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is reported before a host is contacted."""
        monkeypatch.delenv("NO_SUCH_PASSWORD", raising=False)
        Path("inventory.toml").write_text('[hosts.web1]\n[ssh]\nbecome_password = { env = "NO_SUCH_PASSWORD" }\n')
        ended = provision("staff", "-i", "inventory.toml")
        assert ended.code == 2
        assert "NO_SUCH_PASSWORD" in ended.err
        assert estate.targets == {}


class TestOptions:
    """The effect of each option."""

    def test_json_alone_is_on_stdout(self, estate: Any, provision: Any) -> None:
        """One object per line on stdout; warnings on stderr."""
        Path("inventory.toml").write_text(
            Path("inventory.toml").read_text() + '[registry]\nexternal_url = "https://r:1"\n'
        )
        ended = provision("staff", "docker", "-i", estate.inventory, "--json", "-l", "web1,web2")
        lines = [json.loads(line) for line in ended.out.splitlines()]
        assert [lines[0]["type"], lines[0]["schema"], lines[0]["names"]] == ["start", 1, ["staff", "docker"]]
        assert lines[-1]["type"] == "summary"
        assert {"changed", "failed", "unreachable", "seconds", "hosts", "check"} <= set(lines[-1])
        assert set(lines[-1]["hosts"]) == {"web1", "web2"}
        assert "no host of the inventory is in group 'runners'" in ended.err

    def test_json_says_what_was_changed(self, estate: Any, provision: Any) -> None:
        """The documented fields."""
        ended = provision("staff", "-i", estate.inventory, "--json", "-l", "web1")
        (change,) = [one for one in map(json.loads, ended.out.splitlines()) if one["type"] == "change"]
        assert change == {
            "type": "change",
            "host": "web1",
            "task": "staff",
            "resource": "GroupMember bob in staff",
            "action": "update",
            "summary": "add bob to group staff",
            "diff": "",
            "applied": True,
            "predicted": False,
            "requires": "",
        }

    def test_limit(self, estate: Any, provision: Any) -> None:
        """Only those hosts are contacted."""
        assert provision("staff", "-i", estate.inventory, "--limit", "web,!web2").code == 0
        assert set(estate.targets) == {"web1"}

    def test_a_playbook_runs_on_its_group(self, estate: Any, provision: Any) -> None:
        """A task can be named, too."""
        provision("everybody", "-i", estate.inventory)
        assert set(estate.targets) == {"web1", "web2"}

    def test_several_names_run_in_order_over_one_connection(self, estate: Any, provision: Any) -> None:
        """Each host is connected to once."""
        converged(estate)
        ended = provision("everybody", "staff", "-i", estate.inventory, "--json")
        tasks = [
            one for one in map(json.loads, ended.out.splitlines()) if one["type"] == "task" and one["host"] == "web1"
        ]
        assert [one["task"] for one in tasks] == ["staff", "staff"]
        assert len(estate.sessions["web1"].batches) == 1

    def test_the_run_holds_the_lock(self, estate: Any, provision: Any) -> None:
        """Outside of check mode the lock is taken."""
        provision("staff", "-i", estate.inventory)
        assert set(estate.locked.values()) == {True}

    def test_asking_for_the_sudo_password(self, estate: Any, provision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """The password is asked for once, for all hosts, and wins over the inventory's."""
        asked: list[str] = []

        def getpass(prompt: str) -> str:
            asked.append(prompt)
            return "open sesame"

        monkeypatch.setattr("getpass.getpass", getpass)
        ended = provision("staff", "-i", estate.inventory, "-K", "-vv", "--stats")
        assert asked == ["sudo password: "]
        passwords = {target.become_password().reveal() for target in estate.targets.values()}
        assert passwords == {"open sesame"}
        assert "open sesame" not in ended.out + ended.err

    def test_settings_are_overridden(self, estate: Any, provision: Any) -> None:
        """`--set` changes the settings of hosts."""
        provision("staff", "-i", estate.inventory, "-e", "ssh.port=2222", "--set", "ssh.user=ops")
        assert {(one.port, one.user) for one in estate.targets.values()} == {(2222, "ops")}

    def test_later_inventories_win(self, estate: Any, provision: Any) -> None:
        """Later files win over earlier ones."""
        Path("more.toml").write_text("[ssh]\nport = 2200\n")
        provision("staff", "-i", estate.inventory, "-i", "more.toml")
        assert {one.port for one in estate.targets.values()} == {2200}

    def test_the_page(self, estate: Any, provision: Any) -> None:
        """The page is written in addition to the usual output."""
        ended = provision("staff", "-i", estate.inventory, "--report", "run.html")
        page = Path("run.html").read_text()
        assert ended.code == 0
        assert "web1" in page
        assert "add bob to group staff" in page

    def test_statistics(self, estate: Any, provision: Any) -> None:
        """The figures are printed for each host."""
        ended = provision("staff", "-i", estate.inventory, "--stats")
        assert "round trips" in ended.out

    def test_diffs_are_masked(self, estate: Any, provision: Any) -> None:
        """A secret inside a file shows as ***; without -D no diff is shown."""
        estate.playbook(
            "secret.py",
            "from provision.resources.base import *\nfrom provision.editing.diff import masked_diff\n"
            "from provision.secret import Secret\nfrom provision.shell import sh\nfrom provision.tasks import task\n"
            "class Thing(Resource):\n"
            "    label = 'Thing'\n"
            "    def probe(self): return Probe.of(sh('thing'))\n"
            "    def plan(self, seen):\n"
            "        Secret('canary-7f3a')\n"
            "        yield Change('write', sh('write'), diff=masked_diff('/x', 'a\\n', 'a\\nkey = canary-7f3a\\n'))\n"
            "@task()\ndef secret(host):\n    'A thing is written.'\n    yield Thing()\n",
        )
        shown = provision("secret", "-i", estate.inventory, "-C", "-D", "-l", "web1")
        assert "+key = ***" in shown.out
        assert "canary" not in shown.out + shown.err
        assert "key =" not in provision("secret", "-i", estate.inventory, "-C", "-l", "web1").out

    def test_templates_beside_the_inventory_win(self, estate: Any, provision: Any) -> None:
        """The user's template replaces the shipped one of the same name."""
        (estate.folder / "templates").mkdir()
        (estate.folder / "templates" / "hello.j2").write_text("hello {{ name }}")
        estate.playbook(
            "hello.py",
            "from provision.resources.base import *\nfrom provision.shell import sh\nfrom provision.tasks import task\n"
            "from provision.templating import render\n"
            "class Greeting(Resource):\n"
            "    label = 'Greeting'\n"
            "    def probe(self): return Probe.of(sh('thing'))\n"
            "    def plan(self, seen): yield Note(render('hello.j2', name='bob'))\n"
            "@task()\ndef hello(host):\n    'Greet.'\n    yield Greeting()\n",
        )
        assert "hello bob" in provision("hello", "-i", estate.inventory).out


class TestWhere:
    """Tasks with `where`, and serial tasks."""

    PICKY = """
from provision.resources import GroupMember
from provision.tasks import task
from provision.inventory.tables.docker import Docker


@task(on="all", where=lambda host: host.settings[Docker].users != (), serial=True)
def picky(host):
    \"\"\"Bob is one of the staff where the inventory has users.\"\"\"
    yield GroupMember("bob", "staff")
"""

    def test_only_hosts_that_it_concerns_are_contacted(self, estate: Any, provision: Any) -> None:
        """Other hosts are not connected to."""
        (estate.folder / "playbooks" / "picky.py").write_text(self.PICKY)
        file = Path(estate.inventory)
        file.write_text(file.read_text() + '[hosts.web2.docker]\nusers = ["bob"]\n')
        assert provision("picky", "-i", estate.inventory).code == 0
        assert set(estate.targets) == {"web2"}

    def test_none_at_all(self, estate: Any, provision: Any) -> None:
        """Exit code 2 with a message when no host has settings for the task."""
        (estate.folder / "playbooks" / "picky.py").write_text(self.PICKY)
        ended = provision("picky", "-i", estate.inventory)
        assert ended.code == 2
        assert "nothing to do for picky" in ended.err

    def test_named_alone_a_serial_task_stops_at_the_first_failure(self, estate: Any, provision: Any) -> None:
        """web1 fails, so web2 is skipped."""
        (estate.folder / "playbooks" / "picky.py").write_text(self.PICKY)
        file = Path(estate.inventory)
        file.write_text(
            file.read_text().replace("[docker.daemon]", '[groups.web.docker]\nusers = ["bob"]\n[docker.daemon]')
        )
        estate.sessions["web1"] = FakeSession({"usermod": 1})
        ended = provision("picky", "-i", estate.inventory)
        assert ended.code == 1
        assert "skipped: web1 failed earlier" in ended.out
        assert [one.script for one in estate.sessions["web2"].ran] == []


def test_a_bug_of_provision_is_reported_as_one(estate: Any, provision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 1, the traceback masked, and what to do with it."""

    def broken(*_: Any) -> None:
        Secret("canary-91")
        raise KeyError("canary-91")

    monkeypatch.setattr("provision.engine.run.Run.execute", broken)
    ended = provision("staff", "-i", estate.inventory)
    assert ended.code == 1
    assert "KeyError: '***'" in ended.err
    assert "this is a bug in provision" in ended.err
    assert "canary" not in ended.err


def test_an_error_in_a_task_of_the_users_own_is_not_a_bug_of_provision(estate: Any, provision: Any) -> None:
    """Exit 2 with the file's name and line, masked: no host was contacted."""
    estate.playbook(
        "buggy.py",
        "from provision import Secret, task\n"
        "@task()\ndef buggy(host):\n    'Never.'\n    Secret('canary-91')\n    raise KeyError('canary-91')\n    yield\n",
    )
    ended = provision("buggy", "-i", estate.inventory)
    assert ended.code == 2
    assert "buggy.py:6: task buggy: KeyError: '***'\n  → fix the playbook file" in ended.err
    assert "Traceback" not in ended.err
