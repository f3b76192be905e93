"""The firewall: which ports ufw allows.  Read and run on ufw 0.36.2.

ufw keeps its rules in `user.rules` and `user6.rules`, with one `### tuple ###` comment for each rule. `ufw show added`
prints the same, but starts Python each time. Adding a rule that exists erases its comment, so an existing rule is left
unchanged. ufw ends with code 0 in all cases: its output shows what happened.

Ports that Docker publishes are reachable whatever ufw allows: Docker rewrites the destination before ufw's chains are
reached. A port that is published on a loopback address is reachable from the host alone, and does not count.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from provision.errors import ProbeFailed, UsageError
from provision.host.facts import ASK_PACKAGES, read_packages
from provision.host.files import BACKUP
from provision.host.scripts import script
from provision.resources.base import Change, Guard, Note, Observation, Probe, Resource, record_only
from provision.shell import sh

# Docker is asked only where ufw is on and dockerd runs: with socket activation the question would start it. Its client
# takes 25 ms to start, so containerd's folder of running containers is checked first, if it is where it should be.
ASK_PUBLISHED: Final = sh(
    "if grep -qs '^ENABLED=yes' /etc/ufw/ufw.conf && [ -S /run/docker.sock ] && "
    'kill -0 "$(cat /run/docker.pid 2>/dev/null)" 2>/dev/null && '
    'set -- /run/containerd/io.containerd.runtime.*/moby/* && { [ -e "$1" ] || [ ! -d "${1%%%%.runtime.*}.runtime.v2.task" ]; }; '
    "then timeout 5 docker ps --format '{{.Names}} {{.Ports}}'; fi"
)
_ASK_RULES: Final = sh(
    "set --; for file in /etc/ufw/user.rules /etc/ufw/user6.rules /etc/ufw/ufw.conf /etc/default/ufw; do "
    '[ ! -e $file ] || set -- "$@" $file; done; '
    "[ $# = 0 ] || awk '/^### tuple ### / { print FILENAME, $0 } /^(ENABLED|IPV6)=/' \"$@\"; "
    'echo "SSH=${SSH_CONNECTION-}"; '
    "[ ! -e /run/systemd/transient/%s.timer ] || echo GUARD=armed",
    Guard.UNIT,
)
# A rule that is added again comes after the others, where it may have no effect: the files are restored instead.
_RESTORE_RULES: Final = sh("cp -p -- %s/user.rules %s/user6.rules /etc/ufw && ufw reload", BACKUP, BACKUP)
# 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp (:::8080 before Docker 28), 127.0.0.1:9000-9001->9000-9001/udp
_PUBLISHED: Final = re.compile(r"(?P<address>\S+):(?P<port>[\d-]+)->[\d-]+/(?P<protocol>\w+)")
_LOOPBACK: Final = ("127.", "[::1]", "::1")
_PORTS: Final = re.compile(r"(\d{1,5})(?::(\d{1,5}))?")


@dataclass(frozen=True)
class Rule:
    """Allows one port, or a range of ports.

    port      9100, "9100", or a range "6000:6007"
    protocol  "tcp", "udp" or "any"
    source    an IP address or network, or "any"
    comment   shown by `ufw status`; two rules that differ in it alone are equal

    Raises UsageError for values that ufw would refuse.
    """

    port: str | int
    protocol: str = "tcp"
    source: str = "any"
    comment: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "port", _port(str(self.port), self.protocol))
        object.__setattr__(self, "source", _source(self.source))
        if "'" in self.comment:
            raise UsageError(f"firewall rule {self}: ufw allows no ' in a comment: {self.comment}", hint="remove it")

    def __str__(self) -> str:
        port = str(self.port) if self.protocol == "any" else f"{self.port}/{self.protocol}"
        return port if self.source == "any" else f"{port} from {self.source}"

    @property
    def arguments(self) -> list[str]:
        """The rule in ufw's command line."""
        if self.source == "any":
            return [str(self)]
        protocol = [] if self.protocol == "any" else ["proto", self.protocol]
        return ["from", self.source, "to", "any", "port", str(self.port), *protocol]

    @classmethod
    def parse(cls, text: str) -> Rule:
        """The rule that `str` wrote."""
        port, _, source = text.partition(" from ")
        number, _, protocol = port.partition("/")
        return cls(number, protocol or "any", source or "any")


def _port(text: str, protocol: str) -> str:
    found = _PORTS.fullmatch(text)
    numbers = [int(one) for one in found.groups() if one is not None] if found else []
    if not numbers or not 1 <= numbers[0] <= numbers[-1] <= 65535 or protocol not in ("tcp", "udp", "any"):
        raise UsageError(
            f"firewall rule {text}/{protocol}: no port that ufw can allow",
            hint='give a port from 1 to 65535 or a range such as "6000:6007", and protocol tcp, udp or any',
        )
    if len(numbers) > 1 and protocol == "any":
        raise UsageError(f"firewall rule {text}: a range needs a protocol", hint="give protocol tcp or udp")
    return text


def _source(text: str) -> str:
    """The source as ufw writes it: a network without host bits, and an address without a prefix length."""
    if text == "any":
        return text
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise UsageError(
            f"firewall rule from {text}: {error}", hint='give an IP address, a network, or "any"'
        ) from error
    return str(network.network_address if network.num_addresses == 1 else network)


@dataclass(frozen=True)
class Found:
    """What ufw's files contain.

    rules, rules6  the rules that allow, for IPv4 and IPv6
    limited        the rules that limit: they allow, but only 6 connections in 30 s
    enabled, ipv6  whether ufw is on, and whether it filters IPv6
    ssh_port       the port that this connection uses; "" when it is unknown
    armed          an earlier run ended before it confirmed a change, which is still going to be rolled back
    """

    rules: frozenset[Rule]
    rules6: frozenset[Rule]
    limited: frozenset[Rule]
    enabled: bool
    ipv6: bool
    ssh_port: str
    armed: bool = False

    def allows(self, rule: Rule) -> bool:
        """Whether a rule, or a wider one for all protocols, exists in each address family that it concerns."""
        wider = {rule, Rule(rule.port, "any", rule.source)} if ":" not in str(rule.port) else {rule}
        if wider & self.limited and rule.port == self.ssh_port:
            return True
        four = ":" in rule.source or bool(wider & self.rules)
        six = not self.ipv6 or (rule.source != "any" and ":" not in rule.source) or bool(wider & self.rules6)
        return four and six


@dataclass(frozen=True)
class Firewall(Resource):
    """ufw has these rules, and first of all one for the port that this SSH connection uses.

        yield Firewall.allow(9100, source="10.0.0.0/8", comment="node_exporter")
        yield Firewall([Rule(80), Rule(443), Rule("6000:6007", "udp")], enable=True)

    rules   rules of the task; several resources of one task are combined
    enable  switch ufw on. False leaves that unchanged: the rules take effect when ufw is on

    A rule is removed when the task that added it no longer yields it and no other task has it. Rules that were added
    by hand stay. Changes that could lock us out are rolled back unless a new login succeeds.
    """

    rules: Sequence[Rule]
    enable: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", tuple(self.rules))

    @classmethod
    def allow(
        cls, port: int | str, *, source: str | Sequence[str] = "any", protocol: str = "tcp", comment: str = ""
    ) -> Firewall:
        """Allows one port, from one source or several: addresses or networks. No source at all: nothing is allowed."""
        sources = [source] if isinstance(source, str) else source
        return cls([Rule(port, protocol, one, comment) for one in sources])

    @property
    def label(self) -> str:
        return "Firewall ufw"

    @property
    def record_key(self) -> str:
        return "ufw"

    def merged(self, other: Any) -> Firewall:
        return Firewall((*self.rules, *other.rules), self.enable or other.enable)

    def claims(self) -> Mapping[str, Hashable]:
        return {_claim(rule): True for rule in self.rules}

    def probe(self) -> Probe:
        return Probe({"rules": _ASK_RULES, "packages": ASK_PACKAGES, "published": ASK_PUBLISHED})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        found = read_rules(seen["rules"].text)
        if "ufw" not in read_packages(seen["packages"]):
            if not self.enable:
                yield Note("ufw is not installed, and firewall.enable is false: every port is open")
                return
            found = Found(frozenset(), frozenset(), frozenset(), False, True, found.ssh_port)
        if not found.ssh_port:
            raise ProbeFailed(
                "the port of this SSH connection is unknown ($SSH_CONNECTION is empty)",
                hint="without it a firewall could lock you out: let the login shell keep SSH_CONNECTION",
            )
        yield from self._plan_rules(found, seen)
        yield from self._plan_enabling(found)
        yield from self._notes(found, seen)

    def _plan_rules(self, found: Found, seen: Observation) -> Iterator[Change]:
        ssh = Rule(found.ssh_port, comment="provision: ssh")
        wanted = list(dict.fromkeys([ssh, *self.rules]))
        before = _parsed(seen.record)
        others = {rule for rules in seen.others.values() for rule in _parsed(rules)}
        missing = [rule for rule in wanted if not found.allows(rule)]
        existing = before if found.armed else found.rules | found.rules6
        kept = others | {rule for rule in before if _claim(rule) in seen.claimed}
        stale = sorted((before & existing) - {*wanted, *kept}, key=str)
        # A rule that existed before any task wanted it is somebody else's: it stays when it leaves the inventory.
        ours = sorted(str(rule) for rule in wanted if rule in missing or rule in before | others)
        left = [str(rule) for rule in stale]  # each is recorded until it is removed
        for rule in missing:
            run = script("allow_port", rule.comment or "provision", rule.arguments)
            yield Change(f"allow {rule}", run, "create", record=sorted([*ours, *left]), id=f"allow {rule}")
        for rule in stale:
            left.remove(str(rule))
            yield Change(
                f"remove the rule for {rule}",
                script("delete_rule", BACKUP, rule.arguments),
                "delete",
                record=sorted([*ours, *left]) or None,
                guard=Guard(_RESTORE_RULES) if found.enabled else None,
                id=f"remove {rule}",
            )
        if not missing and not stale and set(ours) != {str(rule) for rule in before}:
            yield record_only("the firewall rules of this task", ours or None)

    def _plan_enabling(self, found: Found) -> Iterator[Change]:
        if not self.enable or (found.enabled and not found.armed):
            return
        pattern = rf"^ufw (allow|limit) {found.ssh_port}(/tcp)?( |$)"
        yield Change(
            "keep ufw on, as an interrupted run left it" if found.enabled else "switch ufw on",
            script("enable_firewall", pattern, found.ssh_port),
            "update",
            guard=Guard(sh("ufw --force disable")),
        )

    def _notes(self, found: Found, seen: Observation) -> Iterator[Note]:
        if not self.enable and not found.enabled:
            yield Note("ufw is off: its rules take effect with `ufw enable`, or with firewall.enable = true")
        if Rule(found.ssh_port) in found.limited:
            yield Note(f"ufw limits port {found.ssh_port}: more than 6 logins in 30 s are refused, ours too")
        if ports := published(seen["published"].text):
            yield Note(
                f"Docker publishes ports that ufw does not filter: {', '.join(ports)}; "
                "bind them to 127.0.0.1, or filter them in the chain DOCKER-USER"
            )
        elif seen["published"].code != 0:
            yield Note(
                f"the ports that Docker publishes are unknown; ufw does not filter them: {seen['published'].errors.strip()}"
            )


def published(text: str) -> list[str]:
    """The ports reachable from outside, sorted, such as `8080/tcp (container web)`; `text` is ASK_PUBLISHED's answer."""
    found: dict[tuple[int, str], str] = {}
    for line in text.splitlines():
        container, _, ports = line.partition(" ")
        for one in _PUBLISHED.finditer(ports):
            if not one["address"].startswith(_LOOPBACK):
                start = int(one["port"].partition("-")[0])
                found[start, f"{one['port']}/{one['protocol']}"] = container
    return [f"{port} (container {found[start, port]})" for start, port in sorted(found)]


def _parsed(record: Sequence[str] | None) -> set[Rule]:
    return {Rule.parse(text) for text in record or ()}


def _claim(rule: Rule) -> str:
    return f"ufw {rule}"


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
        try:
            rule = Rule(port, protocol, "any" if source in ("0.0.0.0/0", "::/0") else source)
        except UsageError:  # a list of ports, written by hand: none of ours is one
            continue
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
