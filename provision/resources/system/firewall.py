"""The firewall: which ports ufw allows.  Read and run on ufw 0.36.2.

ufw's own files have one `### tuple ###` comment for each rule. `ufw show added` prints the same, but starts Python each
time. Adding a rule that exists erases its comment, so an existing rule is left unchanged. ufw ends with code 0 in all
cases: its output shows what happened.

Ports that Docker publishes are reachable whatever ufw allows: Docker rewrites the destination before ufw's chains are
reached. A port that is published on a loopback address is reachable from the host alone, and does not count.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from provision.errors import ProbeFailed
from provision.host.files import BACKUP
from provision.host.releases import ASK_PACKAGES, read_packages
from provision.host.scripts import script
from provision.host.state import strings
from provision.resources.base import Change, Guard, Note, Observation, Probe, Resource, record_only
from provision.resources.system.ufw import Found, Rule, read_rules
from provision.shell import sh

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
