"""ufw's rules: as they are given, and as its own files have them.  Read and run on ufw 0.36.2.

ufw keeps its rules in `user.rules` and `user6.rules`, in the order in which it tries them: the first that matches
decides. A rule from 0.0.0.0/0 is written like one from anywhere, in `user.rules` only; one from ::/0 in `user6.rules`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from provision.errors import UsageError

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
