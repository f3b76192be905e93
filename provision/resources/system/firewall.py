"""The firewall: which ports ufw allows.  Read and run on ufw 0.36.2.

ufw's own files have one `### tuple ###` comment for each rule. `ufw show added` prints the same, but starts Python each
time. Adding a rule that exists erases its comment, so an existing rule is left unchanged. ufw ends with code 0 in all
cases: its output shows what happened.

Ports that Docker publishes are reachable whatever ufw allows: Docker rewrites the destination before ufw's chains are
reached. A port that is published on a loopback address is reachable from the host alone, and does not count.

ufw keeps its rules in `user.rules` and `user6.rules`, in the order in which it tries them: the first that matches
decides. A rule from 0.0.0.0/0 is written like one from anywhere, in `user.rules` only; one from ::/0 in `user6.rules`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from provision.errors import ProbeFailed, UsageError
from provision.host.files import BACKUP
from provision.host.releases import ASK_PACKAGES, read_packages
from provision.host.scripts import script
from provision.host.state import strings
from provision.resources.base import Change, Guard, Note, Observation, Probe, Resource, record_only
from provision.shell import sh

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_PORTS: Final = re.compile(r"(\d{1,5})(?::(\d{1,5}))?")
EVERYONE: Final = {4: "0.0.0.0/0", 6: "::/0"}


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
    def families(self) -> frozenset[int]:
        """The address families that it concerns: 4, 6."""
        if self.source == "any":
            return frozenset((4, 6))
        return frozenset((6,) if ":" in self.source else (4,))

    @property
    def written(self) -> Rule:
        """The same rule as ufw's files have it: a source that means everyone in one family is "any"."""
        return replace(self, source="any") if self.source in EVERYONE.values() else self

    def only(self, family: int) -> Rule:
        """A rule for everyone, in one family."""
        return replace(self, source=EVERYONE[family])

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


class Found(NamedTuple):
    """What ufw's files contain.

    rules, rules6  the rules that allow, for IPv4 and IPv6
    limited        the rules that limit: they allow, but only 6 connections in 30 s
    denied         the rules that deny or reject
    enabled, ipv6  whether ufw is on, and whether it filters IPv6
    ssh_port       the port that this connection uses; "" when it is unknown
    client         where this connection comes from
    deciding       the actions of the rules that match this connection, in order, with the rule where it is one of our kind
    armed          an earlier run ended before it confirmed a change, which is still going to be rolled back
    """

    rules: frozenset[Rule]
    rules6: frozenset[Rule]
    limited: frozenset[Rule]
    enabled: bool
    ipv6: bool
    ssh_port: str
    client: str = ""
    deciding: tuple[tuple[str, Rule | None], ...] = ()
    armed: bool = False
    denied: frozenset[Rule] = frozenset()

    @property
    def decision(self) -> str:
        """What ufw does with this connection: allow, limit, deny, reject; "" when no rule matches."""
        return self.deciding[0][0] if self.deciding else ""

    def lets_in(self, without: Collection[Rule] = ()) -> bool:
        """Whether the rules let this connection in, also when some of them are gone."""
        left = [action for action, rule in self.deciding if rule is None or rule not in without]
        return bool(left) and left[0] in ("allow", "limit")

    def allows(self, rule: Rule) -> bool:
        """Whether a rule, or a wider one for all protocols, exists in each address family that it concerns."""
        written = rule.written
        wider = {written, replace(written, protocol="any")} if ":" not in str(rule.port) else {written}
        if wider & self.limited and rule.port == self.ssh_port:
            return True
        families = rule.families - (frozenset() if self.ipv6 else {6})
        return all(wider & (self.rules if family == 4 else self.rules6) for family in families)

    def has(self, rule: Rule) -> bool:
        """Whether this very rule exists, in any address family that it concerns."""
        return any(rule.written in (self.rules if family == 4 else self.rules6) for family in rule.families)


def read_rules(text: str) -> Found:
    """Reads ufw's own files: `### tuple ### ACTION PROTO DPORT DST SPORT SRC DIRECTION [comment=HEX]`."""
    rules: dict[int, set[Rule]] = {4: set(), 6: set()}
    tuples: list[tuple[int, list[str]]] = []
    limited: set[Rule] = set()
    denied: set[Rule] = set()
    values: dict[str, str] = {}
    for line in text.splitlines():
        file, mark, rest = line.partition(" ### tuple ### ")
        if not mark:
            key, _, value = line.partition("=")
            values[key] = value.strip("\"'")
            continue
        tuples.append((6 if file.endswith("user6.rules") else 4, rest.split()))
    for family, fields in tuples:
        if (rule := _rule(family, fields)) is None:
            continue
        if fields[0] == "allow":
            rules[family].add(rule)
        elif fields[0] == "limit":
            limited.add(rule)
        elif fields[0] in ("deny", "reject"):
            denied.add(rule)
    ssh = values.get("SSH", "").split()
    known = len(ssh) == 4
    return Found(
        frozenset(rules[4]),
        frozenset(rules[6]),
        frozenset(limited),
        values.get("ENABLED") == "yes",
        values.get("IPV6", "yes") == "yes",
        ssh[3] if known else "",
        ssh[0] if known else "",
        tuple(_deciding(tuples, ssh)) if known else (),
        values.get("GUARD") == "armed",
        frozenset(denied),
    )


def _rule(family: int, fields: list[str]) -> Rule | None:
    """The rule in a tuple of ufw's files, with any action; None for one that the inventory cannot describe."""
    if len(fields) < 7 or fields[6] != "in" or fields[3] != EVERYONE[family] or fields[4] != "any":
        return None
    try:
        return Rule(fields[2], fields[1], "any" if fields[5] == EVERYONE[family] else fields[5])
    except UsageError:  # a list of ports, written by hand: none of ours is one
        return None


def _deciding(tuples: list[tuple[int, list[str]]], ssh: list[str]) -> Iterator[tuple[str, Rule | None]]:
    """The rules that match this connection, in order: what each does, and the rule itself.

    ssh  $SSH_CONNECTION: the client's address and port, and the host's

    Rules for one network interface are left out: which one this connection uses is not known here.
    """
    try:
        client, server = _address(ssh[0]), _address(ssh[2])
    except ValueError:
        return
    for family, fields in tuples:
        # An application's rule has two more fields before the direction.
        direction = fields[6:7] if fields[6:7] and fields[6].startswith(("in", "out")) else fields[8:9]
        if family != client.version or direction != ["in"] or fields[4] != "any":
            continue
        action, protocol, ports, destination, _, source = fields[:6]
        try:
            if (
                protocol in ("tcp", "any")
                and _contains(ports, int(ssh[3]))
                and client in ipaddress.ip_network(source, strict=False)
                and server in ipaddress.ip_network(destination, strict=False)
            ):
                yield action.partition("_")[0], _rule(family, fields)  # allow_log, allow_log-all
        except ValueError:  # no address, no port: not a rule that ufw writes
            continue


def _contains(ports: str, port: int) -> bool:
    """Whether a port is among those of a rule, as ufw writes them: "22", "20:25", "22,80", "any"."""
    for part in ports.split(","):
        first, _, last = part.partition(":")
        if part == "any" or (first.isdecimal() and int(first) <= port <= int(last or first)):
            return True
    return False


def _address(text: str) -> Address:
    """An address of $SSH_CONNECTION, without the zone of a link-local one."""
    found = ipaddress.ip_address(text.partition("%")[0])
    return (found.version == 6 and found.ipv4_mapped) or found


# Docker is asked only where ufw is on and dockerd runs: with socket activation the question would start it. Its client
# takes 25 ms to start, so containerd's folder of running containers is checked first, if it is where it should be.
ASK_PUBLISHED: Final = sh(
    "if [ -S /run/docker.sock ] && { read -r pid || :; } 2>/dev/null </run/docker.pid && "
    'kill -0 "$pid" 2>/dev/null && '
    'set -- /run/containerd/io.containerd.runtime.*/moby/* && { [ -e "$1" ] || [ ! -d "${1%%%%.runtime.*}.runtime.v2.task" ]; } && '
    "grep -qs '^ENABLED=yes' /etc/ufw/ufw.conf; then timeout 5 docker ps --format '{{.Names}} {{.Ports}}'; fi"
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
_PUBLISHED: Final = re.compile(
    r"(?P<address>\S{1,64}):(?P<port>[0-9]{1,5}(?:-[0-9]{1,5})?)->[0-9-]{1,11}/(?P<protocol>\w+)"
)
_LOOPBACK: Final = ("127.", "[::1]", "::1")


@dataclass(frozen=True)
class Firewall(Resource):
    """ufw has these rules, and first of all one for the port that this SSH connection uses, unless one covers it.

        yield Firewall.allow(9100, source="10.0.0.0/8", comment="node_exporter")
        yield Firewall([Rule(80), Rule(443), Rule("6000:6007", "udp")], enable=True)

    rules   rules of the task; several resources of one task are combined
    enable  switch ufw on. False leaves that unchanged: the rules take effect when ufw is on

    A rule is removed when the task that added it no longer yields it and no other task has it. Rules that were added
    by hand stay. Changes that could lock us out are rolled back unless a new login succeeds.

    Any rule that lets this connection in is enough for SSH, such as one from a network that contains the client. A rule
    that denies SSH's port is not replaced.
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
        before = _parsed(seen.record)
        wanted = list(dict.fromkeys([*self._ssh_rule(found, before), *self.rules]))
        others = {rule for rules in seen.others.values() for rule in _parsed(rules)}
        missing = [rule for rule in wanted if not found.allows(rule)]
        kept = others | {rule for rule in before if _claim(rule) in seen.claimed}
        stale = sorted({rule for rule in before if found.armed or found.has(rule)} - {*wanted, *kept}, key=str)
        # A rule that existed before any task wanted it is somebody else's: it stays when it leaves the inventory.
        recorded = {rule.written for rule in before | others}
        ours = sorted(str(rule) for rule in wanted if rule in missing or rule.written in recorded)
        left = [str(rule) for rule in stale]  # each is recorded until it is removed
        for rule in missing:
            run = script("allow_port", rule.comment or "provision", rule.arguments)
            yield Change(f"allow {rule}", run, "create", record=sorted([*ours, *left]), id=f"allow {rule}")
        changed = bool(missing)
        for rule in stale:
            left.remove(str(rule))
            removed = _without(rule, {*wanted, *kept})
            if removed is None:
                continue
            changed = True
            yield Change(
                f"remove the rule for {rule}",
                script("delete_rule", BACKUP, removed.arguments),
                "delete",
                record=sorted([*ours, *left]) or None,
                guard=Guard(_RESTORE_RULES) if found.enabled else None,
                id=f"remove {rule}",
            )
        if not changed and set(ours) != {str(rule) for rule in before}:
            yield record_only("the firewall rules of this task", ours or None)

    def _ssh_rule(self, found: Found, before: set[Rule]) -> list[Rule]:
        """The rule for SSH's port; none if a rule that is not ours lets this connection in, or would be replaced by it."""
        ssh = Rule(found.ssh_port, comment="provision: ssh")
        ours = found.allows(ssh) or (ssh in before and found.has(ssh))
        removed = {rule.written for rule in before} - {rule.written for rule in self.rules}
        return [ssh] if ours or not (found.lets_in(removed) or ssh in found.denied) else []

    def _plan_enabling(self, found: Found) -> Iterator[Change]:
        if not self.enable or (found.enabled and not found.armed):
            return
        pattern = rf"^ufw (allow|limit) {found.ssh_port}(/tcp)?( |$)"
        if found.lets_in() and not found.allows(Rule(found.ssh_port)):  # a rule in another form, which was just read
            pattern = "^ufw (allow|limit) "
        yield Change(
            "keep ufw on, as an interrupted run left it" if found.enabled else "switch ufw on",
            script("enable_firewall", pattern, found.ssh_port),
            "update",
            guard=Guard(sh("ufw --force disable")),
        )

    def _notes(self, found: Found, seen: Observation) -> Iterator[Note]:
        if not self.enable and not found.enabled:
            yield Note("ufw is off: its rules take effect with `ufw enable`, or with firewall.enable = true")
        if found.decision in ("deny", "reject"):
            where = f"port {found.ssh_port} for {found.client}, where this connection comes from"
            yield Note(f"a rule of ufw denies {where}: it stays")
        if found.decision == "limit" or Rule(found.ssh_port) in found.limited:
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
    return {Rule.parse(text) for text in strings(record)}


def _claim(rule: Rule) -> str:
    return f"ufw {rule}"


def _without(rule: Rule, wanted: set[Rule]) -> Rule | None:
    """What to delete so that a rule is gone and the wanted ones stay; None when nothing must be deleted.

    ufw has one rule for "from anywhere" and "from 0.0.0.0/0" in its file for IPv4.
    """
    if rule.written.source != "any":
        return rule
    held = {family for one in wanted if one.written == rule.written for family in one.families}
    families = sorted(rule.families - held)
    return None if not families else rule if len(families) == len(rule.families) else rule.only(families[0])
