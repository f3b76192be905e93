"""Hosts that cannot be reached, refuse the login, or have no space: one clear message each; other hosts converge."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import pytest

from provision.ssh.host_keys import fingerprint
from provision_lab import LabHost
from provision_lab.harness import Harness
from tests.support.faults import GREETING, fact, greeters, on_host
from tests.support.runs import provision, untouched

Broken = AbstractContextManager[Mapping[str, Any]]
_counter = itertools.count(1)


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A working host, one with a sudo password, one with a small disk; all have their greeting."""
    hosts = (LabHost("good"), LabHost("locked", sudo="password"), LabHost("small", disk_mb=40))
    return greeters(harness_factory(*hosts))


def key_of(harness: Harness, host: str) -> tuple[str, str]:
    """A host's true key, its type and its fingerprint."""
    from base64 import b64decode

    kind, blob = harness.lab.host_keys[host].split()[:2]
    return kind, fingerprint(b64decode(blob))


def known(harness: Harness, **keys: str | None) -> Mapping[str, Any]:
    """Known hosts with wrong keys for these hosts, or without them."""
    lines = [
        f"{one.address} {key}"
        for one in harness.lab.hosts
        if (key := keys.get(one.name, harness.lab.host_keys[one.name])) is not None
    ]
    path = harness.folder / "known"
    path.write_text("\n".join(lines) + "\n")
    return {"ssh": {"known_hosts": str(path)}}


def one_host(name: str, **table: Any) -> Mapping[str, Any]:
    """A change of one host's table."""
    return {"hosts": {name: table}}


def changed_key(harness: Harness) -> Broken:
    """The host was reinstalled, or the connection is intercepted."""
    return nullcontext(known(harness, locked=harness.lab.host_keys["good"]))


def unknown_key(harness: Harness) -> Broken:
    """Its key is unknown."""
    return nullcontext(known(harness, locked=None))


def pinned_otherwise(harness: Harness) -> Broken:
    """The inventory pins another key."""
    return nullcontext(one_host("locked", host_key=key_of(harness, "good")[1]))


def nobody(harness: Harness) -> Broken:  # noqa: ARG001
    """The user has no account on the host."""
    return nullcontext(one_host("locked", ssh={"user": "nobody-here"}))


def wrong_password(harness: Harness) -> Broken:
    """sudo requires another password."""
    path = harness.folder / "wrong"
    path.write_text("not-the-password-at-all")
    path.chmod(0o600)
    return nullcontext(one_host("locked", ssh={"become_password": {"file": str(path)}}))


@contextmanager
def no_password(harness: Harness) -> Iterator[Mapping[str, Any]]:
    """sudo requires a password, and none is given."""
    table = harness.inventory["hosts"]["locked"].pop("ssh")
    yield {}
    harness.inventory["hosts"]["locked"]["ssh"] = table


def refusing(harness: Harness) -> Broken:  # noqa: ARG001
    """No sshd listens on that port."""
    return nullcontext(one_host("locked", ssh={"port": 2}))


def silent(harness: Harness) -> Broken:
    """A firewall drops packets to sshd."""
    rule = "nft add table ip faults && nft 'add chain ip faults in { type filter hook input priority 0; }'"
    drop = f"{rule} && nft add rule ip faults in tcp dport 22 drop"
    leader = str(harness.lab.machine("locked").leader)

    @contextmanager
    def dropped() -> Iterator[Mapping[str, Any]]:
        # With this machine's nft: the host has none.
        subprocess.run(["nsenter", "-t", leader, "-n", "sh", "-c", drop], check=True)
        try:
            yield {"ssh": {"connect_timeout": 1}}
        finally:
            subprocess.run(["nsenter", "-t", leader, "-n", "nft", "delete", "table", "ip", "faults"], check=True)

    return dropped()


def nameless(harness: Harness) -> Broken:  # noqa: ARG001
    """Its name is in no DNS."""
    return nullcontext(one_host("locked", address="no-such-host.invalid"))


@contextmanager
def full(harness: Harness) -> Iterator[Mapping[str, Any]]:
    """Its disk is full."""
    with on_host(harness, "small", "cat /dev/zero > /filling 2>/dev/null || true", "rm /filling"):
        yield {}


@contextmanager
def read_only(harness: Harness) -> Iterator[Mapping[str, Any]]:
    """The file system is read-only, as after a disk error."""
    with on_host(harness, "small", "mount --bind /etc /etc && mount -o remount,ro,bind /etc", "umount /etc"):
        yield {}


@contextmanager
def immutable(harness: Harness) -> Iterator[Mapping[str, Any]]:
    """The file's path cannot be written."""
    with on_host(harness, "small", f"mv {GREETING} /old && mkdir {GREETING}", f"rmdir {GREETING}; mv /old {GREETING}"):
        yield {}


@dataclass(frozen=True)
class Fault:
    """How a host is broken, and the text of the error. `{…}` is replaced with values of the harness."""

    name: str
    host: str
    broken: Callable[[Harness], Broken]
    code: int
    error: str
    words: tuple[str, ...]


FAULTS = [
    Fault(
        "changed host key",
        "locked",
        changed_key,
        4,
        "HostKeyError",
        ("the host key has changed", "{good_key}", "{locked_key}", "{address}", "ssh-keygen -R"),
    ),
    Fault(
        "unknown host key",
        "locked",
        unknown_key,
        4,
        "HostKeyError",
        ("{locked_key} is not known", "known", "host_key =", "ssh-keyscan", "accept-new"),
    ),
    Fault(
        "pinned key is another",
        "locked",
        pinned_otherwise,
        4,
        "HostKeyError",
        ("{locked_key}", "the inventory pins {good_key}", "[hosts.locked]"),
    ),
    Fault(
        "login refused",
        "locked",
        nobody,
        4,
        "LoginRefused",
        ("refused the login of nobody-here", "id_ed25519", "authorized_keys"),
    ),
    Fault("port refused", "locked", refusing, 4, "Unreachable", ("port 2 of {address} refused the connection", "sshd")),
    Fault(
        "black hole", "locked", silent, 4, "Unreachable", ("no answer from {address} port 22 within 1 s", "firewall")
    ),
    Fault(
        "name not resolved", "locked", nameless, 4, "Unreachable", ("no-such-host.invalid does not resolve", "address")
    ),
    Fault(
        "wrong sudo password",
        "locked",
        wrong_password,
        1,
        "BecomeError",
        ("sudo refused the password for ubuntu", "become_password", "NOPASSWD"),
    ),
    Fault("no sudo password", "locked", no_password, 1, "BecomeError", ("sudo", "password", "-K")),
    Fault("full disk", "small", full, 1, "ChangeFailed", ("No space left on device", "df -h", "rerun the command")),
    Fault("read-only disk", "small", read_only, 1, "ChangeFailed", ("Read-only file system", "dmesg")),
    Fault("a folder in the way", "small", immutable, 1, "ProbeFailed", ("/etc/greeting", "directory", "ls -ld")),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_fault(harness: Harness, fault: Fault) -> None:
    """The message has what, where and the next step; the host is unchanged, others converge; once fixed, it converges."""
    greeting = {"GREETING": f"good day {next(_counter)}\n", "TIMES": "200"}
    names = {f"{name}_key": " ".join(key_of(harness, name)) for name in ("good", "locked")}
    names["good_key"] = names["good_key"].split()[1] if "pinned" in fault.name else names["good_key"]
    words = [one.format(address=harness.lab.machine(fault.host).host.address, **names) for one in fault.words]
    with fault.broken(harness) as changes, untouched(harness, fault.host, "/etc", "/var/lib/provision"):
        outcome = provision(harness, "greet", changes=changes, env=greeting)
        (error,) = outcome.of("error")
        assert (outcome.code, error["host"], error["error"]) == (fault.code, fault.host, fault.error), error
        assert [one for one in words if one not in f"{error['text']} → {error['hint']}"] == []
        assert error["hint"]
    unreachable = fault.code == 4
    assert outcome.statuses(fault.host) == {"greet": "unreachable" if unreachable else "failed"}
    assert outcome.summary["hosts"][fault.host]["unreachable"] is unreachable
    others = {one.name for one in harness.lab.hosts} - {fault.host}
    assert {outcome.statuses(name)["greet"] for name in others} == {"changed"}
    assert fact(harness, "good", f"tail -n 1 {GREETING}") == greeting["GREETING"].strip()
    again = provision(harness, "greet", env=greeting)
    assert (again.code, {one["host"] for one in again.of("change")}) == (0, {fault.host})


def test_unreachable_and_failed_together(harness: Harness) -> None:
    """A failed host takes precedence over an unreachable one: exit code 1; the third host converges."""
    greeting = {"GREETING": "both\n", "TIMES": "200"}
    with full(harness):
        outcome = provision(harness, "greet", changes=one_host("locked", ssh={"port": 2}), env=greeting)
    assert outcome.code == 1
    assert {one["host"]: one["error"] for one in outcome.of("error")} == {
        "locked": "Unreachable",
        "small": "ChangeFailed",
    }
    assert outcome.statuses("good") == {"greet": "changed"}
    assert provision(harness, "greet", env=greeting).code == 0
