"""`Firewall`: ufw's own files read as they are, the SSH port kept whatever happens."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from provision.errors import ProbeFailed
from provision.resources import Firewall, Result, Rule
from provision.resources.base import Change
from provision.resources.system.firewall import read_rules
from provision.shell import Command
from provision.testing import LocalSession, notes, observe, packages_are, planned
from tests.support.data import DATA
from tests.unit.conftest import Local

TRANSCRIPT = DATA / "ufw-0.36.2-transcript.txt"
UFW = packages_are({"ufw": "0.36.2-1"})
REGISTRY = Rule("5555")
WALL = Firewall(((REGISTRY, "provision: registry"), (Rule("80"), "provision")))
ON = Firewall(WALL.allow, enable=True)
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
    """What the probe says: `allow tcp 22`, `limit tcp 22`, `allow tcp 9100 10.0.0.0/8`; the same for IPv6 unless given."""
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
    """The changes for what ufw's files say and what is on record as ours."""
    return planned(wall, seen_of(wall, found, ours, packages))


def seen_of(wall: Firewall, found: str, ours: list[str] | None = None, packages: Result = UFW) -> Any:
    """The observation of it."""
    return observe(wall, {"rules": found, "packages": packages}, record=ours)


def summaries(changes: list[Change]) -> list[str]:
    """In words."""
    return [one.summary for one in changes]


class TestReading:
    """`read_rules`, over what a real sh and grep find in files as ufw writes them."""

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

    def test_rules_that_let_in(self, text: str) -> None:
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

    def test_nothing_is_there(self, tmp_path: Path) -> None:
        """No ufw, no SSH: no rules, off."""
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
    """A rule in ufw's words and in ours."""

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
        """What is on record is read back as the same rule."""
        assert str(rule) == text
        assert rule.arguments == arguments
        assert Rule.parse(text) == rule


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
        """The rules are laid all the same, and a note says that they hold later."""
        seen = seen_of(WALL, rules(enabled=False))
        assert summaries(planned(WALL, seen)) == ["allow 22/tcp", "allow 5555/tcp", "allow 80/tcp"]
        assert notes(WALL, seen) == [
            "ufw is switched off: its rules hold from `ufw enable` on, or with firewall.enable = true"
        ]

    def test_half_done(self) -> None:
        """Only what is missing; what is there keeps its comment."""
        assert summaries(plan(ON, rules("allow tcp 22", "allow tcp 5555"))) == ["allow 80/tcp"]

    def test_half_done_without_ipv6(self) -> None:
        """A rule that stands for IPv4 alone is laid again, unless the host has no IPv6."""
        four = ("allow tcp 22", "allow tcp 5555", "allow tcp 80")
        assert summaries(plan(ON, rules(*four, six=("allow tcp 22",)))) == ["allow 5555/tcp", "allow 80/tcp"]
        assert plan(ON, rules(*four, six=(), ipv6=False)) == []

    def test_converged(self) -> None:
        """All there, and on: nothing to do or to say, whatever else stands there."""
        seen = seen_of(ON, rules("allow tcp 22", "allow tcp 5555", "allow tcp 80", "allow tcp 9999"))
        assert planned(ON, seen) == []
        assert notes(ON, seen) == []

    def test_a_wider_rule_will_do(self) -> None:
        """`5555` lets `5555/tcp` in."""
        assert plan(ON, rules("allow tcp 22", "allow any 5555", "allow any 80")) == []

    def test_a_rule_with_an_address_stands_in_its_own_family(self) -> None:
        """No IPv6 twin is asked of `from 10.0.0.0/8`, no IPv4 twin of `from 2001:db8::/32`."""
        wall = Firewall(((Rule("9", "tcp", "10.0.0.0/8"), "x"), (Rule("9", "tcp", "2001:db8::/32"), "x")), enable=True)
        four, six = ("allow tcp 22", "allow tcp 9 10.0.0.0/8"), ("allow tcp 22", "allow tcp 9 2001:db8::/32")
        assert plan(wall, rules(*four, six=six)) == []
        assert summaries(plan(wall, rules("allow tcp 22"))) == [
            "allow 9/tcp from 10.0.0.0/8",
            "allow 9/tcp from 2001:db8::/32",
        ]

    def test_limited_ssh_is_left_so_and_told(self) -> None:
        """It lets SSH in; that it limits this tool as well is worth a note."""
        seen = seen_of(ON, rules("limit tcp 22", "allow tcp 5555", "allow tcp 80"))
        assert planned(ON, seen) == []
        assert notes(ON, seen) == ["ufw limits port 22: more than 6 logins in 30 s are refused, this tool's too"]

    def test_rules_of_ours_that_are_dropped_go(self) -> None:
        """Those on record and no longer wanted; the same rule of somebody else's stays."""
        standing = rules("allow tcp 22", "allow tcp 5555", "allow tcp 80", "allow tcp 443", "allow tcp 8080")
        changes = plan(ON, standing, ours=["22/tcp", "5555/tcp", "443/tcp"])
        assert summaries(changes) == ["remove the rule for 443/tcp"]
        assert changes[0].action == "delete"
        assert changes[0].record == ["22/tcp", "5555/tcp"]

    def test_what_is_to_go_is_on_record_until_it_is_gone(self) -> None:
        """A run that is killed between two of these steps forgets nothing."""
        standing = rules("allow tcp 22", "allow tcp 443", "allow tcp 8080", "allow tcp 80")
        changes = plan(ON, standing, ours=["443/tcp", "8080/tcp"])
        assert [(one.summary, one.record) for one in changes] == [
            ("allow 5555/tcp", ["443/tcp", "5555/tcp", "8080/tcp"]),
            ("remove the rule for 443/tcp", ["5555/tcp", "8080/tcp"]),
            ("remove the rule for 8080/tcp", ["5555/tcp"]),
        ]

    def test_a_dropped_rule_that_is_gone_already(self) -> None:
        """Somebody was quicker: the rule is no longer recorded as ours, and nothing is changed."""
        (change,) = plan(ON, rules("allow tcp 22", "allow tcp 5555", "allow tcp 80"), ours=["443/tcp"])
        assert (change.verification, change.record) == (True, None)

    def test_the_ssh_rule_is_not_dropped_by_the_inventory(self) -> None:
        """On record as ours or not: it is always wanted."""
        standing = rules("allow tcp 22", "allow tcp 5555", "allow tcp 80")
        assert plan(ON, standing, ours=["22/tcp", "5555/tcp", "80/tcp"]) == []
        assert plan(Firewall((), enable=True), rules("allow tcp 22"), ours=["22/tcp"]) == []

    @pytest.mark.parametrize("wall", [WALL, ON])
    def test_an_unknown_ssh_port_is_refused(self, wall: Firewall) -> None:
        """Broken: nothing is done that could lock us out."""
        with pytest.raises(ProbeFailed, match=re.escape("$SSH_CONNECTION is empty")):
            plan(wall, rules("allow tcp 22", ssh=""))

    def test_what_could_lock_us_out_takes_itself_back(self) -> None:
        """Switching on, and dropping a rule while it is on."""
        (switch,) = plan(ON, rules("allow tcp 22", "allow tcp 5555", "allow tcp 80", enabled=False))
        assert switch.guard is not None
        assert switch.guard.undo.script == "ufw --force disable"
        (drop,) = plan(Firewall((), enable=True), rules("allow tcp 22", "allow tcp 80"), ours=["80/tcp"])
        assert drop.guard is not None
        # As it was before, its place among the rules included.
        assert drop.guard.undo.script.startswith("cp -p -- /var/lib/provision/backup/user.rules")
        assert drop.guard.undo.script.endswith("ufw reload")


class TestScripts:
    """The changes' scripts, with a ufw that answers as the real one was recorded."""

    @staticmethod
    def run(local: Local, change: Change, folder: Path, said: str, code: int = 0) -> Result:
        """Runs with a `ufw` in the path that says this."""
        ufw = folder / "ufw"
        ufw.write_text(f"#!/bin/sh\ncat <<'END'\n{said}\nEND\nexit {code}\n")
        ufw.chmod(0o755)
        session = local({}, {"PATH": f"{folder}:/usr/bin:/bin"})
        assert isinstance(change.run, Command)
        return session.run(change.run, deadline=10)

    @pytest.mark.parametrize(
        ("said", "code", "fails"),
        [
            ("Rules updated\nRules updated (v6)", 0, False),
            ("Rule added\nRule added (v6)", 0, False),
            ("Skipping adding existing rule", 0, False),
            ("ERROR: Bad port", 1, True),
            ("WARN: something that ends with 0 all the same", 0, True),
        ],
    )
    def test_adding_is_checked_by_the_output_of_ufw(
        self, local: Local, tmp_path: Path, said: str, code: int, fails: bool
    ) -> None:
        """Its exit code tells little."""
        change, *_ = plan(WALL, rules())
        result = self.run(local, change, tmp_path, said, code)
        assert (result.code != 0) == fails
        assert result.errors.strip() == (said if fails else "")

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
        """`ufw show added` is asked right before."""
        change = plan(ON, rules("allow tcp 22", "allow tcp 5555", "allow tcp 80", enabled=False))[-1]
        result = self.run(local, change, tmp_path, added)
        assert (result.code != 0) == fails
        assert ("ufw has no rule that allows port 22: it is not enabled" in result.errors) == fails
