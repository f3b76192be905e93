"""Ports that Docker publishes: they are reached whatever ufw says.

Docker rewrites the destination before ufw's chains are asked, so that a published port is open though no rule lets it in,
or one denies it. A port that is bound to a loopback address is reached from the host alone, and does not count.

ufw lets these ports in.  Read and run on ufw 0.36.2.

ufw keeps its rules in `user.rules` and `user6.rules`, one `### tuple ###` comment a rule; `ufw show added` prints
the same, but costs a Python start on every look. Adding a rule that is there erases its comment, so what
is there is left alone. Everything exits 0: the text says what became of it.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from provision.errors import ProbeFailed
from provision.host.facts import ASK_PACKAGES, read_packages
from provision.host.files import BACKUP
from provision.host.scripts import script
from provision.resources.base import Change, Guard, Note, Observation, Probe, Resource, record_only
from provision.shell import Command, sh

# Asked only where ufw is on and dockerd runs: with socket activation the question would start it. Docker's client
# takes 25 ms to start, so containerd's folder of running containers is looked at first, where it is in its place.
ASK_PUBLISHED: Final = sh(
    "if grep -qs '^ENABLED=yes' /etc/ufw/ufw.conf && [ -S /run/docker.sock ] && "
    'kill -0 "$(cat /run/docker.pid 2>/dev/null)" 2>/dev/null && '
    'set -- /run/containerd/io.containerd.runtime.*/moby/* && { [ -e "$1" ] || [ ! -d "${1%%%%.runtime.*}.runtime.v2.task" ]; }; '
    "then timeout 5 docker ps --format '{{.Names}} {{.Ports}}'; fi"
)
# 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp (:::8080 before Docker 28), 127.0.0.1:9000-9001->9000-9001/udp
_PORT: Final = re.compile(r"(?P<address>\S+):(?P<port>[\d-]+)->[\d-]+/(?P<protocol>\w+)")
_LOOPBACK: Final = ("127.", "[::1]", "::1")


def published(text: str) -> list[str]:
    """What is reached from outside, by port, each as `8080/tcp (container web)`; `text` is what ASK_PUBLISHED prints."""
    found: dict[tuple[int, str], str] = {}
    for line in text.splitlines():
        container, _, ports = line.partition(" ")
        for one in _PORT.finditer(ports):
            if not one["address"].startswith(_LOOPBACK):
                start = int(one["port"].partition("-")[0])
                found[start, f"{one['port']}/{one['protocol']}"] = container
    return [f"{port} (container {found[start, port]})" for start, port in sorted(found)]


_ASK_RULES = sh(
    "set --; for file in /etc/ufw/user.rules /etc/ufw/user6.rules /etc/ufw/ufw.conf /etc/default/ufw; do "
    '[ ! -e $file ] || set -- "$@" $file; done; '
    "[ $# = 0 ] || awk '/^### tuple ### / { print FILENAME, $0 } /^(ENABLED|IPV6)=/' \"$@\"; "
    'echo "SSH=${SSH_CONNECTION-}"; '
    "[ ! -e /run/systemd/transient/%s.timer ] || echo GUARD=armed",
    Guard.UNIT,
)
_PUT_BACK = sh("cp -p -- %s/user.rules %s/user6.rules /etc/ufw && ufw reload", BACKUP, BACKUP)


@dataclass(frozen=True)
class Rule:
    """Lets one port (or range `a:b`) in; `protocol` tcp, udp or any; `source` an address, a network or any."""

    port: str
    protocol: str = "tcp"
    source: str = "any"

    def __str__(self) -> str:
        port = self.port if self.protocol == "any" else f"{self.port}/{self.protocol}"
        return port if self.source == "any" else f"{port} from {self.source}"

    @property
    def arguments(self) -> list[str]:
        """As ufw's own command line has it."""
        if self.source == "any":
            return [str(self)]
        protocol = [] if self.protocol == "any" else ["proto", self.protocol]
        return ["from", self.source, "to", "any", "port", self.port, *protocol]

    @classmethod
    def parse(cls, text: str) -> Rule:
        """From what `str` makes of one."""
        port, _, source = text.partition(" from ")
        number, _, protocol = port.partition("/")
        return cls(number, protocol or "any", source or "any")


@dataclass(frozen=True)
class Found:
    """What the host's files say: IPv4 rules that let in, the IPv6 ones, whether ufw is on, SSH's own port.

    armed  a run was broken off before it confirmed its change, which is still going to be taken back
    """

    rules: frozenset[Rule]
    rules6: frozenset[Rule]
    limited: frozenset[Rule]
    enabled: bool
    ipv6: bool
    ssh_port: str
    armed: bool = False


@dataclass(frozen=True)
class Firewall(Resource):
    """These rules stand, and before any of them one for the port that this very connection uses.

    enable    switch ufw on when it is off; never done silently otherwise
    comments  what a rule is for, by its text
    """

    allow: tuple[tuple[Rule, str], ...]
    enable: bool = False

    @property
    def label(self) -> str:
        return "Firewall ufw"

    @property
    def record_key(self) -> str:
        return "ufw"

    def claims(self) -> Mapping[str, Hashable]:
        return {_claim(rule): True for rule, _ in self.allow}

    def probe(self) -> Probe:
        return Probe({"rules": _ASK_RULES, "packages": ASK_PACKAGES, "published": ASK_PUBLISHED})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        if "ufw" not in read_packages(seen["packages"]):
            if not self.enable:
                yield Note("ufw is not installed, and firewall.enable is false: every port is open")
                return
            found = Found(frozenset(), frozenset(), frozenset(), False, True, read_rules(seen["rules"].text).ssh_port)
        else:
            found = read_rules(seen["rules"].text)
        if not found.ssh_port:
            raise ProbeFailed(
                "the port of this SSH connection cannot be told ($SSH_CONNECTION is empty)",
                hint="without it a firewall could lock you out: let the login shell keep SSH_CONNECTION",
            )
        ssh = Rule(found.ssh_port)
        wanted = {ssh: "provision: ssh"} | {rule: comment for rule, comment in self.allow if rule != ssh}
        before = _rules(seen.record)
        others = {rule for rules in seen.others.values() for rule in _rules(rules)}
        missing = [rule for rule in wanted if not self._stands(rule, found)]
        there = before if found.armed else found.rules | found.rules6
        kept = others | {rule for rule in before if _claim(rule) in seen.claimed}
        stale = sorted((rule for rule in before if rule not in wanted and rule in there and rule not in kept), key=str)
        # A rule that was there before any task allowed it is somebody else's, and stays when it leaves the inventory.
        ours = sorted(str(rule) for rule in wanted if rule in missing or rule in before | others)
        left = [str(rule) for rule in stale]  # each is recorded until it is removed
        for rule in missing:
            record = sorted([*ours, *left])
            yield Change(f"allow {rule}", _allow(rule, wanted[rule]), "create", record=record, id=f"allow {rule}")
        for rule in stale:
            left.remove(str(rule))
            yield Change(
                f"remove the rule for {rule}",
                script("delete_rule", BACKUP, rule.arguments),
                "delete",
                record=sorted([*ours, *left]) or None,
                guard=Guard(_PUT_BACK) if found.enabled else None,
                id=f"remove {rule}",
            )
        if not missing and not stale and set(ours) != {str(rule) for rule in before}:
            yield record_only("the firewall rules of this task", ours or None)
        if self.enable and (not found.enabled or found.armed):
            pattern = rf"^ufw (allow|limit) {ssh.port}(/tcp)?( |$)"
            back = Guard(sh("ufw --force disable"))
            summary = "keep ufw on, as an interrupted run left it" if found.enabled else "switch ufw on"
            yield Change(summary, script("enable_firewall", pattern, ssh.port), "update", guard=back)
        if not self.enable and not found.enabled:
            yield Note("ufw is switched off: its rules hold from `ufw enable` on, or with firewall.enable = true")
        if ssh in found.limited:
            yield Note(f"ufw limits port {ssh.port}: more than 6 logins in 30 s are refused, this tool's too")
        if past := published(seen["published"].text):
            yield Note(
                f"Docker publishes ports past ufw, which does not govern them: {', '.join(past)}; "
                "bind them to 127.0.0.1, or filter them in the chain DOCKER-USER"
            )
        elif seen["published"].code != 0:
            yield Note(f"Docker does not say which ports it publishes past ufw: {seen['published'].errors.strip()}")

    @staticmethod
    def _stands(rule: Rule, found: Found) -> bool:
        twins = {rule, Rule(rule.port, "any", rule.source)}
        if twins & found.limited and rule.port == found.ssh_port:
            return True
        four = ":" in rule.source or bool(twins & found.rules)
        six = not found.ipv6 or (rule.source != "any" and ":" not in rule.source) or bool(twins & found.rules6)
        return four and six


def _rules(record: Sequence[str] | None) -> set[Rule]:
    return {Rule.parse(text) for text in record or ()}


def _claim(rule: Rule) -> str:
    return f"ufw {rule}"


def _allow(rule: Rule, comment: str) -> Command:
    return script("allow_port", comment, rule.arguments)


def read_rules(text: str) -> Found:
    """Reads ufw's own files: `### tuple ### ACTION PROTO DPORT DST SPORT SRC DIRECTION [comment=HEX]`."""
    rules: dict[str, set[Rule]] = {"user.rules": set(), "user6.rules": set()}
    limited: set[Rule] = set()
    values: dict[str, str] = {}
    for line in text.splitlines():
        file, mark, rest = line.partition(" ### tuple ### ")
        if not mark:
            key, _, value = line.partition("=")
            values[key] = value.strip("\"'")
            continue
        fields = rest.split()
        if len(fields) < 7 or fields[6] != "in" or fields[3] not in ("0.0.0.0/0", "::/0") or fields[4] != "any":
            continue
        action, protocol, port, _, _, source = fields[:6]
        rule = Rule(port, protocol, "any" if source in ("0.0.0.0/0", "::/0") else source)
        if action == "allow":
            rules[file.rpartition("/")[2]].add(rule)
        elif action == "limit":
            limited.add(rule)
    ssh = values.get("SSH", "").split()
    return Found(
        frozenset(rules["user.rules"]),
        frozenset(rules["user6.rules"]),
        frozenset(limited),
        values.get("ENABLED") == "yes",
        values.get("IPV6", "yes") == "yes",
        ssh[3] if len(ssh) == 4 else "",
        values.get("GUARD") == "armed",
    )
