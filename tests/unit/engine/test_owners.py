"""Two tasks that manage parts of one thing: neither removes the other's, in either order, and a second run changes nothing."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from provision.errors import UsageError
from provision.resources import Absent, Directory, File, Firewall, JsonSettings, Packages, RubySettings
from provision.testing import LocalSession

pytestmark = pytest.mark.slow  # `make test` runs it as root: files are given to root

# ufw's command line on its files, as far as the resource uses it.
UFW = """#!/bin/sh
etc=ETC/ufw
tuple() { echo "### tuple ### allow ${1#*/} ${1%/*} $2 any $2 in"; }
case "$*" in
  "allow "*) tuple "$2" 0.0.0.0/0 >> $etc/user.rules; tuple "$2" ::/0 >> $etc/user6.rules; echo "Rule added" ;;
  "delete allow "*)
    grep -vxF "$(tuple "$3" 0.0.0.0/0)" $etc/user.rules > $etc/new; mv $etc/new $etc/user.rules
    grep -vxF "$(tuple "$3" ::/0)" $etc/user6.rules > $etc/new; mv $etc/new $etc/user6.rules ;;
esac
"""
PACKAGES = "#!/bin/sh\nprintf 'ufw\\t0.36\\tii \\ngitlab-ce\\t19.3.0-ce.0\\tii \\n'\n"
ORDERS = list(itertools.permutations(("one", "two")))


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """The host's /etc, with ufw's files and a gitlab.rb."""
    etc = tmp_path / "etc"
    (etc / "ufw").mkdir(parents=True)
    (etc / "gitlab").mkdir()
    (etc / "gitlab/gitlab.rb").write_text("external_url 'https://gitlab.example.com'\n")
    for name in ("user.rules", "user6.rules"):
        (etc / "ufw" / name).write_text("")
    return etc


@pytest.fixture
def host(etc: Path, tmp_path: Path) -> LocalSession:
    """This machine, with a ufw and a dpkg-query of its own."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {"ufw": UFW.replace("ETC", str(etc)), "dpkg-query": PACKAGES}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "SSH_CONNECTION": "198.51.100.7 50022 203.0.113.10 22"}
    return LocalSession({"/var/lib/provision": tmp_path / "home", "/etc": etc}, environment)


def run(engine: Any, toys: Any, host: LocalSession, wanted: dict[str, Any], *names: str) -> list[str]:
    """Runs tasks that yield one resource each; the changes."""
    report = engine({"web1": host}, [toys.task(name, wanted[name]) for name in names])
    assert report.errors == []
    return [one.partition(": ")[2] for one in report.changes]


def ports(etc: Path) -> list[str]:
    """The ports that ufw allows."""
    return sorted(line.split()[5] for line in (etc / "ufw/user.rules").read_text().splitlines())


def allowing(port: int) -> Firewall:
    """A firewall that allows one port."""
    return Firewall.allow(port, comment="test")


class TestFirewall:
    """Two sets of rules."""

    ONE, TWO = allowing(5555), allowing(9100)

    @pytest.mark.parametrize("order", ORDERS)
    def test_both_stand(self, engine: Any, toys: Any, host: LocalSession, etc: Path, order: tuple[str, ...]) -> None:
        """In either order, in one run and alone."""
        wanted = {"one": self.ONE, "two": self.TWO}
        run(engine, toys, host, wanted, *order)
        assert ports(etc) == ["22", "5555", "9100"]
        assert run(engine, toys, host, wanted, *order) == []
        assert [run(engine, toys, host, wanted, name) for name in order] == [[], []]
        assert run(engine, toys, host, wanted, *reversed(order)) == []

    def test_a_dropped_rule_that_the_other_wants_too(
        self, engine: Any, toys: Any, host: LocalSession, etc: Path
    ) -> None:
        """It stays while one of them wants it, also in a run without the other; the last one removes it."""
        both = allowing(443)
        run(engine, toys, host, {"one": both, "two": both}, "one", "two")
        assert run(engine, toys, host, {"one": self.ONE}, "one") == ["allow 5555/tcp"]
        assert ports(etc) == ["22", "443", "5555"]
        assert run(engine, toys, host, {"two": self.TWO}, "two") == ["allow 9100/tcp", "remove the rule for 443/tcp"]
        assert ports(etc) == ["22", "5555", "9100"]

    def test_a_dropped_rule_of_its_own_goes(self, engine: Any, toys: Any, host: LocalSession, etc: Path) -> None:
        """The other's stays."""
        run(engine, toys, host, {"one": self.ONE, "two": self.TWO}, "one", "two")
        assert run(engine, toys, host, {"one": Firewall(())}, "one") == ["remove the rule for 5555/tcp"]
        assert ports(etc) == ["22", "9100"]


class TestJsonSettings:
    """Two sets of keys of one file."""

    ONE, TWO = {"log-driver": "local"}, {"metrics-addr": "127.0.0.1:9323"}

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        """The file: under its own path, since the path is also the record key."""
        return tmp_path / "daemon.json"

    @staticmethod
    def keys(file: Path) -> list[str]:
        """Those in the file."""
        return sorted(json.loads(file.read_text()))

    @pytest.mark.parametrize("order", ORDERS)
    def test_both_stand(self, engine: Any, toys: Any, host: LocalSession, file: Path, order: tuple[str, ...]) -> None:
        """In either order, in one run and alone."""
        wanted = {"one": JsonSettings(str(file), self.ONE), "two": JsonSettings(str(file), self.TWO)}
        run(engine, toys, host, wanted, *order)
        assert self.keys(file) == ["log-driver", "metrics-addr"]
        assert run(engine, toys, host, wanted, *order) == []
        assert [run(engine, toys, host, wanted, name) for name in order] == [[], []]

    def test_what_is_dropped(self, engine: Any, toys: Any, host: LocalSession, file: Path) -> None:
        """Its own keys go; a key that the other set too stays until that one drops it, too."""
        both, two = JsonSettings(str(file), {**self.ONE, **self.TWO}), JsonSettings(str(file), self.TWO)
        run(engine, toys, host, {"one": both, "two": two}, "one", "two")
        none = JsonSettings(str(file), {})
        assert run(engine, toys, host, {"one": none}, "one") == [f"update {file}"]
        assert self.keys(file) == ["metrics-addr"]
        assert run(engine, toys, host, {"two": none}, "two") == [f"update {file}"]
        assert self.keys(file) == []


class TestRubySettings:
    """Two sets of settings of gitlab.rb."""

    ONE = RubySettings({("gitlab_rails", "time_zone"): "UTC"})
    TWO = RubySettings({("registry_external_url",): "https://gitlab.example.com:5555"})

    @pytest.mark.parametrize("order", ORDERS)
    def test_both_stand(self, engine: Any, toys: Any, host: LocalSession, etc: Path, order: tuple[str, ...]) -> None:
        """In either order, in one run and alone."""
        wanted = {"one": self.ONE, "two": self.TWO}
        run(engine, toys, host, wanted, *order)
        text = (etc / "gitlab/gitlab.rb").read_text()
        assert "time_zone" in text
        assert "registry_external_url" in text
        assert run(engine, toys, host, wanted, *order) == []
        assert [run(engine, toys, host, wanted, name) for name in order] == [[], []]

    def test_what_is_dropped(self, engine: Any, toys: Any, host: LocalSession, etc: Path) -> None:
        """A setting that the other set too stays; the last one removes it."""
        run(engine, toys, host, {"one": self.ONE, "two": self.ONE}, "one", "two")
        assert run(engine, toys, host, {"one": RubySettings({})}, "one") == []
        assert "time_zone" in (etc / "gitlab/gitlab.rb").read_text()
        assert run(engine, toys, host, {"two": RubySettings({})}, "two") != []
        assert "time_zone" not in (etc / "gitlab/gitlab.rb").read_text()


class TestConflicts:
    """Two tasks want different values for one key: refused before the host is contacted."""

    CASES = (
        (JsonSettings("/x.json", {"a": 1}), JsonSettings("/x.json", {"a": 2}), "/x.json a"),
        (RubySettings({("a", "b"): 1}), RubySettings({("a", "b"): True}), "gitlab.rb a['b']"),
        (File("/etc/motd", "a"), File("/etc/motd", "b"), "/etc/motd"),
        (File("/etc/motd", "a"), File("/etc/motd", "a", mode="0600"), "/etc/motd"),
        (Packages(("a",), version="1.*"), Packages(("a",), version="2.*"), "version of package a"),
    )

    @pytest.mark.parametrize(("one", "two", "key"), CASES)
    def test_they_are_refused(self, engine: Any, toys: Any, one: Any, two: Any, key: str) -> None:
        """Both tasks and the key are named."""
        host = toys.Host()
        with pytest.raises(UsageError) as caught:
            engine({"web1": host}, [toys.task("first", one)], [toys.task("second", two)])
        assert caught.value.text == f"web1: the tasks first and second want different values for {key}"
        assert host.batches == []

    @pytest.mark.parametrize("two", [File("/etc/motd", "b"), Absent("/etc/motd"), Directory("/etc/motd")])
    def test_one_task_with_two_values_is_refused(self, engine: Any, toys: Any, two: Any) -> None:
        """It would change the same thing twice in every run."""
        host = toys.Host()
        with pytest.raises(UsageError, match=r"^web1: the task one wants two different values for /etc/motd\n"):
            engine({"web1": host}, [toys.task("one", File("/etc/motd", "a"), two)])
        assert host.batches == []

    @pytest.mark.parametrize(("one", "two", "key"), CASES)
    def test_equal_values_are_accepted(self, engine: Any, toys: Any, one: Any, two: Any, key: str) -> None:
        """And two hosts may differ."""
        del key
        tasks = [toys.task("first", one), toys.task("second", one)]
        engine(
            {"web1": toys.Host(), "web2": toys.Host()},
            (["web1"], tasks),
            (["web2"], [toys.task("first", two)]),
            check=True,
        )

    def test_rules_of_a_firewall_agree(self, engine: Any, toys: Any) -> None:
        """Two rules are never in conflict."""
        tasks = [
            toys.task("first", Firewall.allow(1, comment="a")),
            toys.task("second", Firewall.allow(1, comment="b")),
        ]
        engine({"web1": toys.Host()}, tasks, check=True)
