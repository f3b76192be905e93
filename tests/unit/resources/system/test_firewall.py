"""`Firewall`: ufw's own files are read; the port of SSH is allowed whatever happens."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provision.errors import ProbeFailed, UsageError
from provision.resources import Firewall, Result, Rule
from provision.resources.base import Change
from provision.resources.system.firewall import published, read_rules
from provision.shell import Command
from provision.testing import LocalSession, notes, observe, packages_are, planned
from tests.support.data import DATA
from tests.support.local import Local

TRANSCRIPT = DATA / "ufw-0.36.2-transcript.txt"
UFW = packages_are({"ufw": "0.36.2-1"})
REGISTRY = Rule(5555, comment="provision: registry")
WALL = Firewall([REGISTRY, Rule(80)])
ON = Firewall(WALL.rules, enable=True)
# As ufw 0.36.2 writes them, with more than the rules between.
USER_RULES = """*filter
### RULES ###

### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in
-A ufw-user-input -p tcp --dport 22 -j ACCEPT

### tuple ### allow tcp 5555 0.0.0.0/0 any 0.0.0.0/0 in comment=7265676973747279
-A ufw-user-input -p tcp --dport 5555 -j ACCEPT

### tuple ### allow any 9100 0.0.0.0/0 any 10.0.0.0/8 in
### tuple ### allow udp 6000:6007 0.0.0.0/0 any 0.0.0.0/0 in
### tuple ### limit tcp 2222 0.0.0.0/0 any 0.0.0.0/0 in
### tuple ### deny tcp 23 0.0.0.0/0 any 0.0.0.0/0 in
### tuple ### route:allow tcp 80 0.0.0.0/0 any 0.0.0.0/0 in
### tuple ### allow tcp 25 0.0.0.0/0 any 0.0.0.0/0 out
### tuple ### allow tcp 81 0.0.0.0/0 any 0.0.0.0/0 in_eth0
### tuple ### allow tcp 82 192.0.2.1 any 0.0.0.0/0 in
### tuple ### allow tcp 83 0.0.0.0/0 1024 0.0.0.0/0 in
### tuple ### allow tcp 80,443 0.0.0.0/0 any 0.0.0.0/0 Nginx%20Full - in
### END RULES ###
COMMIT
"""
ALL6 = "### tuple ### allow tcp 22 ::/0 any ::/0 in\n### tuple ### allow tcp 5555 ::/0 any ::/0 in comment=72\n"


def rules(
    *four: str, six: tuple[str, ...] | None = None, enabled: bool = True, ipv6: bool = True, ssh: str = "22"
) -> str:
    """The probe's answer: `allow tcp 22`, `limit tcp 22`, `allow tcp 9100 10.0.0.0/8`; the same for IPv6 unless given."""
    lines = []
    for file, everyone, wanted in (
        ("user.rules", "0.0.0.0/0", four),
        ("user6.rules", "::/0", four if six is None else six),
    ):
        for one in wanted:
            action, protocol, port, *source = one.split()
            where = source[0] if source else everyone
            lines.append(f"/etc/ufw/{file} ### tuple ### {action} {protocol} {port} {everyone} any {where} in")
    connection = f"198.51.100.7 50022 203.0.113.10 {ssh}" if ssh else ""
    lines += [f"ENABLED={'yes' if enabled else 'no'}", f"IPV6={'yes' if ipv6 else 'no'}", f"SSH={connection}"]
    return "\n".join(lines) + "\n"


def plan(wall: Firewall, found: str, ours: list[str] | None = None, packages: Result = UFW) -> list[Change]:
    """The changes for what ufw's files contain and what is recorded."""
    return planned(wall, seen_of(wall, found, ours, packages))


def seen_of(wall: Firewall, found: str, ours: list[str] | None = None, packages: Result = UFW) -> Any:
    """The observation of it."""
    return observe(wall, {"rules": found, "packages": packages}, record=ours)


def summaries(changes: list[Change]) -> list[str]:
    """Their summaries."""
    return [one.summary for one in changes]


class TestReading:
    """`read_rules` on files as ufw writes them, read with a real sh."""

    @pytest.fixture
    def text(self, tmp_path: Path) -> str:
        """The probe's answer."""
        (tmp_path / "ufw").mkdir()
        (tmp_path / "ufw/user.rules").write_text(USER_RULES)
        (tmp_path / "ufw/user6.rules").write_text(ALL6)
        (tmp_path / "ufw/ufw.conf").write_text("# set to yes\nENABLED=yes\nLOGLEVEL=low\n")
        (tmp_path / "default").mkdir()
        (tmp_path / "default/ufw").write_text('IPV6="yes"\nDEFAULT_INPUT_POLICY="DROP"\n')
        return self.ask(tmp_path, "198.51.100.7 50022 203.0.113.10 2222")

    @staticmethod
    def ask(folder: Path, connection: str | None) -> str:
        """Asks with `/etc` elsewhere."""
        environment = {} if connection is None else {"SSH_CONNECTION": connection}
        question = WALL.probe()["rules"]
        assert isinstance(question, Command)
        script = question.script.replace("/etc/", f"{folder}/")
        (result,) = LocalSession({}, environment).ask([Command(script)], deadline=10)
        assert (result.code, result.errors) == (0, "")
        return result.text

    def test_rules_that_allow(self, text: str) -> None:
        """Denied, routed, outgoing, per interface, per own address, by source port and by application: none of them."""
        found = read_rules(text)
        assert found.rules == {
            Rule("22"),
            Rule("5555"),
            Rule("9100", "any", "10.0.0.0/8"),
            Rule("6000:6007", "udp"),
        }
        assert found.rules6 == {Rule("22"), Rule("5555")}
        assert found.limited == {Rule("2222")}
        assert (found.enabled, found.ipv6, found.ssh_port) == (True, True, "2222")

    def test_no_ufw(self, tmp_path: Path) -> None:
        """No rules, off, and no port of SSH."""
        found = read_rules(self.ask(tmp_path, None))
        assert (found.rules, found.enabled, found.ssh_port) == (frozenset(), False, "")

    @pytest.mark.skipif(not TRANSCRIPT.exists(), reason="needs the recorded ufw session beside the checkout")
    def test_a_recorded_session(self) -> None:
        """user.rules as the real ufw 0.36.2 left it at the end of a session."""
        recorded = TRANSCRIPT.read_text().partition("$ cat /etc/ufw/user.rules\n")[2].partition("[rc=0]")[0]
        tuples = [f"/etc/ufw/user.rules {line}" for line in recorded.splitlines() if line.startswith("### tuple")]
        found = read_rules("\n".join(tuples))
        assert found.rules == {Rule("5555"), Rule("5557"), Rule("5556", "tcp", "10.0.0.0/8")}
        assert found.limited == {Rule("22")}


class TestRule:
    """A rule as text, and in ufw's command line."""

    @pytest.mark.parametrize(
        ("rule", "text", "arguments"),
        [
            (Rule("22"), "22/tcp", ["22/tcp"]),
            (Rule("53", "any"), "53", ["53"]),
            (Rule("6000:6007", "udp"), "6000:6007/udp", ["6000:6007/udp"]),
            (
                Rule("22", "tcp", "10.0.0.0/8"),
                "22/tcp from 10.0.0.0/8",
                ["from", "10.0.0.0/8", "to", "any", "port", "22", "proto", "tcp"],
            ),
            (
                Rule("22", "any", "2001:db8::1"),
                "22 from 2001:db8::1",
                ["from", "2001:db8::1", "to", "any", "port", "22"],
            ),
        ],
    )
    def test_there_and_back(self, rule: Rule, text: str, arguments: list[str]) -> None:
        """What is recorded is read as the same rule."""
        assert str(rule) == text
        assert rule.arguments == arguments
        assert Rule.parse(text) == rule

    @pytest.mark.parametrize(
        ("rule", "same"),
        [
            (Rule(22), Rule("22")),
            (Rule(22, source="10.1.2.3/8"), Rule("22", "tcp", "10.0.0.0/8")),
            (Rule(22, source="192.0.2.1/32"), Rule(22, source="192.0.2.1")),
            (Rule(22, source="2001:DB8::1/128"), Rule(22, source="2001:db8::1")),
            (Rule(22, comment="one"), Rule(22, comment="another")),
        ],
    )
    def test_equal_rules(self, rule: Rule, same: Rule) -> None:
        """As ufw writes them; comments make no difference."""
        assert rule == same
        assert hash(rule) == hash(same)

    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda: Rule("http"), "no port that ufw can allow"),
            (lambda: Rule(0), "no port"),
            (lambda: Rule(70000), "no port"),
            (lambda: Rule("7:6", "udp"), "no port"),
            (lambda: Rule(22, "icmp"), "no port"),
            (lambda: Rule("6:7", "any"), "a range needs a protocol"),
            (lambda: Rule(22, source="10.0.0.0/64"), "10.0.0.0/64"),
            (lambda: Rule(22, source="monitoring"), "monitoring"),
            (lambda: Rule(22, comment="it's"), "in a comment"),
        ],
    )
    def test_what_ufw_would_refuse(self, make: Callable[[], Rule], words: str) -> None:
        """Before any host is contacted."""
        with pytest.raises(UsageError, match=re.escape(words)) as caught:
            make()
        assert caught.value.hint


class TestFirewallOfATask:
    """Constructors, and several owners of rules."""

    def test_allow(self) -> None:
        """One port; from one network, several, or none."""
        assert Firewall.allow(9100) == Firewall([Rule("9100")])
        assert Firewall.allow(53, source=["10.0.0.0/8", "fd00::/8"], protocol="udp", comment="dns") == Firewall(
            [Rule(53, "udp", "10.0.0.0/8"), Rule(53, "udp", "fd00::/8")]
        )
        assert Firewall.allow(53, source=[]) == Firewall([])
        (rule,) = Firewall.allow(9100, source="10.0.0.0/8", comment="exporter").rules
        assert (str(rule), rule.comment) == ("9100/tcp from 10.0.0.0/8", "exporter")

    def test_rules_of_one_task_are_combined(self) -> None:
        """ufw is switched on when one of them wants it."""
        both = Firewall.allow(80).merged(Firewall([Rule(443)], enable=True))
        assert both == Firewall([Rule(80), Rule(443)], enable=True)

    def test_the_rules_of_another_task_stay(self) -> None:
        """Recorded by it or claimed in this run: this task only gives up its own record."""
        standing = rules("allow tcp 22", "allow tcp 5555", "allow tcp 80", "allow tcp 9100", "allow tcp 9101")
        before = ["22/tcp", "5555/tcp", "80/tcp", "9100/tcp", "9101/tcp"]
        seen = observe(
            ON,
            {"rules": standing, "packages": UFW},
            record=before,
            others={"exporter": ["22/tcp", "9100/tcp"]},
            claimed=frozenset({"ufw 9101/tcp"}),
        )
        (change,) = planned(ON, seen)
        assert (change.verification, change.record) == (True, ["22/tcp", "5555/tcp", "80/tcp"])

    def test_a_rule_that_two_tasks_want_is_recorded_for_both(self) -> None:
        """So that neither removes it while the other needs it."""
        wall = Firewall.allow(5555)
        seen = observe(
            wall,
            {"rules": rules("allow tcp 22", "allow tcp 5555"), "packages": UFW},
            others={"firewall": ["5555/tcp"]},
        )
        (change,) = planned(wall, seen)
        assert (change.verification, change.record) == (True, ["5555/tcp"])

    def test_a_rule_added_by_hand_is_not_recorded(self) -> None:
        """It stays when it leaves the inventory."""
        assert plan(Firewall.allow(5555), rules("allow tcp 22", "allow tcp 5555")) == []


class TestPlan:
    """Bare, half done, converged, broken."""

    def test_not_installed_and_not_wanted(self) -> None:
        """A note, no change."""
        seen = seen_of(WALL, rules(enabled=False), packages=packages_are({}))
        assert planned(WALL, seen) == []
        assert notes(WALL, seen) == ["ufw is not installed, and firewall.enable is false: every port is open"]

    def test_bare(self) -> None:
        """Not installed yet, and wanted: SSH's own port first, then the others, then on."""
        changes = plan(ON, rules(enabled=False, ssh="2222"), packages=packages_are({}))
        assert summaries(changes) == ["allow 2222/tcp", "allow 5555/tcp", "allow 80/tcp", "switch ufw on"]
        assert isinstance(changes[0].run, Command)
        assert "# allow_port.sh\nset -- 'provision: ssh' 2222/tcp\n" in changes[0].run.script

    def test_off_and_not_to_be_switched_on(self) -> None:
        """The rules are added, with a note about when they take effect."""
        seen = seen_of(WALL, rules(enabled=False))
        assert summaries(planned(WALL, seen)) == ["allow 22/tcp", "allow 5555/tcp", "allow 80/tcp"]
        assert notes(WALL, seen) == [
            "ufw is off: its rules take effect with `ufw enable`, or with firewall.enable = true"
        ]

    def test_partly_applied(self) -> None:
        """Only missing rules are added: adding an existing one would erase its comment."""
        assert summaries(plan(ON, rules("allow tcp 22", "allow tcp 5555"))) == ["allow 80/tcp"]

    def test_half_done_without_ipv6(self) -> None:
        """A rule that exists for IPv4 alone is added again, unless ufw does not filter IPv6."""
        four = ("allow tcp 22", "allow tcp 5555", "allow tcp 80")
        assert summaries(plan(ON, rules(*four, six=("allow tcp 22",)))) == ["allow 5555/tcp", "allow 80/tcp"]
        assert plan(ON, rules(*four, six=(), ipv6=False)) == []

    def test_converged(self) -> None:
        """All rules exist and ufw is on: no change and no note, whatever other rules there are."""
        seen = seen_of(ON, rules("allow tcp 22", "allow tcp 5555", "allow tcp 80", "allow tcp 9999"))
        assert planned(ON, seen) == []
        assert notes(ON, seen) == []

    def test_a_wider_rule_will_do(self) -> None:
        """`5555` also allows `5555/tcp`."""
        assert plan(ON, rules("allow tcp 22", "allow any 5555", "allow any 80")) == []

    def test_a_rule_with_an_address_belongs_to_its_family(self) -> None:
        """`from 10.0.0.0/8` needs no rule for IPv6, `from 2001:db8::/32` none for IPv4."""
        wall = Firewall([Rule("9", "tcp", "10.0.0.0/8"), Rule("9", "tcp", "2001:db8::/32")], enable=True)
        four, six = ("allow tcp 22", "allow tcp 9 10.0.0.0/8"), ("allow tcp 22", "allow tcp 9 2001:db8::/32")
        assert plan(wall, rules(*four, six=six)) == []
        assert summaries(plan(wall, rules("allow tcp 22"))) == [
            "allow 9/tcp from 10.0.0.0/8",
            "allow 9/tcp from 2001:db8::/32",
        ]

    def test_a_limit_on_ssh_stays_and_is_reported(self) -> None:
        """It allows SSH, with a note that it limits this tool as well."""
        seen = seen_of(ON, rules("limit tcp 22", "allow tcp 5555", "allow tcp 80"))
        assert planned(ON, seen) == []
        assert notes(ON, seen) == ["ufw limits port 22: more than 6 logins in 30 s are refused, ours too"]

    def test_dropped_rules_are_removed(self) -> None:
        """Recorded ones that are no longer wanted; rules that were added by hand stay."""
        standing = rules("allow tcp 22", "allow tcp 5555", "allow tcp 80", "allow tcp 443", "allow tcp 8080")
        changes = plan(ON, standing, ours=["22/tcp", "5555/tcp", "443/tcp"])
        assert summaries(changes) == ["remove the rule for 443/tcp"]
        assert changes[0].action == "delete"
        assert changes[0].record == ["22/tcp", "5555/tcp"]

    def test_a_rule_is_recorded_until_it_is_removed(self) -> None:
        """A run that is killed between two of these changes loses no record."""
        standing = rules("allow tcp 22", "allow tcp 443", "allow tcp 8080", "allow tcp 80")
        changes = plan(ON, standing, ours=["443/tcp", "8080/tcp"])
        assert [(one.summary, one.record) for one in changes] == [
            ("allow 5555/tcp", ["443/tcp", "5555/tcp", "8080/tcp"]),
            ("remove the rule for 443/tcp", ["5555/tcp", "8080/tcp"]),
            ("remove the rule for 8080/tcp", ["5555/tcp"]),
        ]

    def test_a_dropped_rule_that_was_removed_by_hand(self) -> None:
        """It is no longer recorded, and nothing is changed."""
        (change,) = plan(ON, rules("allow tcp 22", "allow tcp 5555", "allow tcp 80"), ours=["443/tcp"])
        assert (change.verification, change.record) == (True, None)

    def test_the_rule_for_ssh_is_always_wanted(self) -> None:
        """Whether it is recorded or not, and whatever the rules of the task are."""
        standing = rules("allow tcp 22", "allow tcp 5555", "allow tcp 80")
        assert plan(ON, standing, ours=["22/tcp", "5555/tcp", "80/tcp"]) == []
        assert plan(Firewall((), enable=True), rules("allow tcp 22"), ours=["22/tcp"]) == []

    @pytest.mark.parametrize("wall", [WALL, ON])
    def test_an_unknown_ssh_port_is_refused(self, wall: Firewall) -> None:
        """Broken: no change that could lock us out."""
        with pytest.raises(ProbeFailed, match=re.escape("$SSH_CONNECTION is empty")):
            plan(wall, rules("allow tcp 22", ssh=""))

    def test_changes_that_could_lock_us_out_are_rolled_back(self) -> None:
        """Switching on, and removing a rule while ufw is on."""
        (switch,) = plan(ON, rules("allow tcp 22", "allow tcp 5555", "allow tcp 80", enabled=False))
        assert switch.guard is not None
        assert switch.guard.undo.script == "ufw --force disable"
        (drop,) = plan(Firewall((), enable=True), rules("allow tcp 22", "allow tcp 80"), ours=["80/tcp"])
        assert drop.guard is not None
        # The files are restored, so that the rule has its old place.
        assert drop.guard.undo.script.startswith("cp -p -- /var/lib/provision/backup/user.rules")
        assert drop.guard.undo.script.endswith("ufw reload")


class TestScripts:
    """The changes' scripts, with a ufw that prints what the real one was recorded to print."""

    @staticmethod
    def run(local: Local, change: Change, folder: Path, output: str, code: int = 0) -> Result:
        """Runs with a `ufw` in the path that prints this."""
        ufw = folder / "ufw"
        ufw.write_text(f"#!/bin/sh\ncat <<'END'\n{output}\nEND\nexit {code}\n")
        ufw.chmod(0o755)
        session = local({}, {"PATH": f"{folder}:/usr/bin:/bin"})
        assert isinstance(change.run, Command)
        return session.run(change.run, deadline=10)

    @pytest.mark.parametrize(
        ("output", "code", "fails"),
        [
            ("Rules updated\nRules updated (v6)", 0, False),
            ("Rule added\nRule added (v6)", 0, False),
            ("Skipping adding existing rule", 0, False),
            ("ERROR: Bad port", 1, True),
            ("WARN: something that ends with 0 all the same", 0, True),
        ],
    )
    def test_adding_is_checked_by_the_output_of_ufw(
        self, local: Local, tmp_path: Path, output: str, code: int, fails: bool
    ) -> None:
        """Its exit code is 0 for some failures."""
        change, *_ = plan(WALL, rules())
        result = self.run(local, change, tmp_path, output, code)
        assert (result.code != 0) == fails
        assert result.errors.strip() == (output if fails else "")

    @pytest.mark.parametrize(
        ("added", "fails"),
        [
            ("ufw allow 22/tcp comment 'provision: ssh'", False),
            ("ufw allow 22", False),
            ("ufw limit 22/tcp", False),
            ("ufw allow 2222/tcp", True),
            ("ufw allow 22/udp", True),
            ("(None)", True),
        ],
    )
    def test_it_is_not_enabled_without_the_ssh_port(
        self, local: Local, tmp_path: Path, added: str, fails: bool
    ) -> None:
        """`ufw show added` is checked immediately before."""
        change = plan(ON, rules("allow tcp 22", "allow tcp 5555", "allow tcp 80", enabled=False))[-1]
        result = self.run(local, change, tmp_path, added)
        assert (result.code != 0) == fails
        assert ("ufw has no rule that allows port 22: it is not enabled" in result.errors) == fails


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("", []),
        ("web 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp\n", ["8080/tcp (container web)"]),
        ("web 0.0.0.0:8080->80/tcp, :::8080->80/tcp\n", ["8080/tcp (container web)"]),
        ("db 127.0.0.1:5432->5432/tcp, [::1]:5432->5432/tcp\n", []),
        ("dns 0.0.0.0:53->53/udp, 0.0.0.0:53->53/tcp\n", ["53/tcp (container dns)", "53/udp (container dns)"]),
        ("many 192.0.2.1:9000-9001->9000-9001/tcp\n", ["9000-9001/tcp (container many)"]),
        ("b 0.0.0.0:443->443/tcp\na 0.0.0.0:80->80/tcp\n", ["80/tcp (container a)", "443/tcp (container b)"]),
        ("inside 80/tcp\n", []),
    ],
)
def test_ports_that_docker_publishes(text: str, ports: list[str]) -> None:
    """Sorted by port; those on loopback do not count."""
    assert published(text) == ports


class TestWhoConnects:
    """The rule for SSH: needed only where no rule lets this connection in. It comes from 198.51.100.7."""

    WALL = Firewall([])

    @pytest.mark.parametrize(
        "allowing",
        [
            ["allow tcp 22 198.51.100.0/24", "deny tcp 22"],
            ["allow any 22 198.51.100.7"],
            ["limit tcp 22 198.51.100.0/24"],
            ["allow any any 198.51.0.0/16", "deny tcp 22"],
            ["deny tcp 22 198.51.100.8", "allow tcp 20:25 198.51.100.0/24"],
            ["allow tcp 22,80"],
            ["allow_log tcp 22 198.51.100.0/24"],
            ["deny udp 22", "allow tcp 22 198.51.100.0/24"],
        ],
        ids=["a network", "an address", "a limit", "all ports", "a range", "a list", "logged", "denied for udp"],
    )
    @pytest.mark.parametrize("enable", [False, True])
    def test_a_rule_that_lets_it_in_is_enough(self, allowing: list[str], enable: bool) -> None:
        """Port 22 is not opened to the world; `deny 22/tcp` stays."""
        wall = Firewall([], enable=enable)
        seen = rules(*allowing, enabled=False)
        assert summaries(plan(wall, seen)) == (["switch ufw on"] if enable else [])
        assert not [one for one in notes(wall, seen_of(wall, seen)) if "denies" in one]

    def test_an_applications_rule(self) -> None:
        """`ufw allow OpenSSH` is written with the name of the application."""
        lines = "/etc/ufw/user.rules ### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 OpenSSH - in comment=78\n"
        assert plan(self.WALL, lines + rules()) == []

    @pytest.mark.parametrize(
        "others",
        [
            [],
            ["allow tcp 22 192.0.2.0/24"],
            ["allow udp 22 198.51.100.0/24"],
            ["allow tcp 2222 198.51.100.0/24"],
            ["deny any any 198.51.100.7", "allow tcp 22 198.51.100.0/24"],
            ["allow tcp http 198.51.100.0/24"],
        ],
        ids=["none", "another network", "udp", "another port", "denied before", "no number"],
    )
    def test_otherwise_it_is_added(self, others: list[str]) -> None:
        """The guard rolls back where that does not help."""
        assert summaries(plan(self.WALL, rules(*others))) == ["allow 22/tcp"]

    def test_a_rule_for_one_interface_does_not_count(self) -> None:
        """Which one this connection uses is not known."""
        line = "/etc/ufw/user.rules ### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in_eth0\n"
        assert summaries(plan(self.WALL, line + rules())) == ["allow 22/tcp"]

    @pytest.mark.parametrize(("own", "changes"), [("203.0.113.10", []), ("203.0.113.11", ["allow 22/tcp"])])
    def test_a_rule_for_the_hosts_own_address(self, own: str, changes: list[str]) -> None:
        """It counts where it is the address that this connection uses."""
        line = f"/etc/ufw/user.rules ### tuple ### allow tcp 22 {own} any 0.0.0.0/0 in\n"
        assert summaries(plan(self.WALL, line + rules())) == changes

    @pytest.mark.parametrize("action", ["deny", "reject"])
    def test_a_rule_that_denies_it_is_not_replaced(self, action: str) -> None:
        """`ufw allow 22/tcp` would replace it. A note says so, and ufw is enabled only if a rule allows the port."""
        wall = Firewall([], enable=True)
        seen = rules(f"{action} tcp 22", enabled=False)
        (change,) = plan(wall, seen)
        assert change.summary == "switch ufw on"
        assert isinstance(change.run, Command)
        assert "22(/tcp)?( |$)" in change.run.script
        assert notes(wall, seen_of(wall, seen)) == [
            "a rule of ufw denies port 22 for 198.51.100.7, where this connection comes from: it stays"
        ]

    @pytest.mark.parametrize(
        ("client", "changes"),
        [("2001:db8::7", []), ("2001:db9::7", ["allow 22/tcp"]), ("::ffff:198.51.100.7", ["allow 22/tcp"])],
    )
    def test_ipv6(self, client: str, changes: list[str]) -> None:
        """The rules of the client's family count."""
        text = rules(six=("allow tcp 22 2001:db8::/32",)).replace(
            "198.51.100.7 50022 203.0.113.10", f"{client} 1 2001:db8::1"
        )
        assert summaries(plan(self.WALL, text)) == changes

    def test_a_link_local_client(self) -> None:
        """$SSH_CONNECTION has the interface in the address."""
        text = rules(six=("allow tcp 22 fe80::/10",)).replace(
            "198.51.100.7 50022 203.0.113.10", "fe80::7%eth0 1 fe80::1%eth0"
        )
        assert plan(self.WALL, text) == []

    def test_our_own_rule_stays(self) -> None:
        """An earlier run added it. It stays complete, for both address families, although another rule lets this connection in."""
        network = "allow tcp 22 198.51.100.0/24"
        assert plan(self.WALL, rules("allow tcp 22", network), ["22/tcp"]) == []
        half = plan(self.WALL, rules("allow tcp 22", network, six=()), ["22/tcp"])
        assert summaries(half) == ["allow 22/tcp"]

    def test_a_rule_that_is_about_to_be_removed_does_not_count(self) -> None:
        """The inventory no longer has it: another one is added before it goes."""
        changes = plan(self.WALL, rules("allow tcp 22 198.51.100.0/24"), ["22/tcp from 198.51.100.0/24"])
        assert summaries(changes) == ["allow 22/tcp", "remove the rule for 22/tcp from 198.51.100.0/24"]

    def test_our_own_rule_that_was_removed_by_hand(self) -> None:
        """An administrator allowed a network instead: it is not opened again, and the record goes."""
        (change,) = plan(self.WALL, rules("allow tcp 22 198.51.100.0/24"), ["22/tcp"])
        assert (change.summary, change.record) == ("record the firewall rules of this task", None)


class TestFromAnywhereInOneFamily:
    """ufw writes a rule from 0.0.0.0/0 as one from anywhere, in its file for IPv4; ::/0 in the one for IPv6."""

    FOUR, SIX, ANY = (Rule(9100, source=source) for source in ("0.0.0.0/0", "::/0", "any"))
    LINE = "allow tcp 9100"

    def changes(self, wanted: list[Rule], four: bool, six: bool, ours: list[str] | None = None) -> list[Change]:
        """What is planned for these rules; `four`, `six`: whether ufw's files have them."""
        files = rules("allow tcp 22", *[self.LINE] * four, six=("allow tcp 22", *[self.LINE] * six))
        return plan(Firewall(wanted), files, ours)

    @pytest.mark.parametrize(
        ("rule", "four", "six"),
        [(FOUR, True, False), (FOUR, True, True), (SIX, False, True), (SIX, True, True), (ANY, True, True)],
    )
    def test_converged(self, rule: Rule, four: bool, six: bool) -> None:
        """As ufw wrote it."""
        assert self.changes([rule], four, six, [str(rule)]) == []

    @pytest.mark.parametrize(
        ("rule", "four", "six"),
        [(FOUR, False, True), (FOUR, False, False), (SIX, True, False), (ANY, True, False), (ANY, False, True)],
    )
    def test_missing(self, rule: Rule, four: bool, six: bool) -> None:
        """The other family's rule does not count."""
        (change,) = self.changes([rule], four, six)
        assert change.summary == f"allow {rule}"
        assert isinstance(change.run, Command)
        if rule.source != "any":
            assert f"from {rule.source} to any port 9100 proto tcp" in change.run.script

    @pytest.mark.parametrize(
        ("wanted", "ours", "deleted"),
        [
            ([], FOUR, "from 0.0.0.0/0 to any port 9100 proto tcp"),
            ([], ANY, "9100/tcp"),
            ([FOUR], ANY, "from ::/0 to any port 9100 proto tcp"),
            ([SIX], ANY, "from 0.0.0.0/0 to any port 9100 proto tcp"),
            ([ANY], FOUR, ""),
            ([FOUR, SIX], ANY, ""),
        ],
    )
    def test_removed(self, wanted: list[Rule], ours: Rule, deleted: str) -> None:
        """What is still wanted stays: ufw has one rule for both."""
        changes = self.changes(wanted, True, True, [str(ours)])
        removals = [one.run.script for one in changes if isinstance(one.run, Command) and one.action == "delete"]
        assert len(removals) == bool(deleted)
        assert all(f" {deleted}\nbackups=" in one for one in removals)
        assert (changes[-1].record or []) == sorted(map(str, wanted))
