"""Records of labs: names, subnets, processes, kernel settings."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from provision_lab import Lab, LabError, LabHost, kernel, network, processes, state
from provision_lab.harness import changed
from provision_lab.hosts import Server
from provision_lab.image import Image
from provision_lab.state import Record
from tests.support.waiting import wait_for


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVISION_LAB_STATE", str(tmp_path))


def test_a_record_comes_back_as_it_was() -> None:
    """Saved and loaded, a record is equal; a lab that does not exist has none."""
    host = LabHost(
        "gitlab",
        "198.18.3.10",
        ubuntu=True,
        sshd_port=2222,
        sudo="password",
        names=("a", "b"),
        disk_mb=5,
        traits=("bare",),
        prepared="server",
    )
    owner = processes.identify(os.getpid())
    record = Record("x", "198.18.3.0/24", (host,), Image(), Server(), owner, True, False, {"a/b": "1"})
    record.save()
    assert state.load("x") == record
    assert state.load("y") is None
    assert state.names() == ["x"]


def test_a_record_of_another_version_counts_as_none() -> None:
    """No error: the lab is incomplete, and can be taken down by its name."""
    Record("x", "198.18.3.0/24", (), Image(), Server()).save()
    path = state.root() / "x" / "lab.json"
    path.write_text(path.read_text().replace('"subnet"', '"network"'))
    assert state.load("x") is None
    found = Lab.find("x")
    assert found is not None
    assert not found.complete


@pytest.mark.parametrize("name", ["", "Upper", "a/b", "../x", "-x", "a" * 21])
def test_names_that_labs_cannot_have(name: str) -> None:
    """A lab's name becomes part of a folder and an interface."""
    with pytest.raises(LabError, match="cannot be a lab's name"):
        Lab(name, ())


@pytest.mark.parametrize("name", ["", "a_b", "-a", "a-", "a b", "a/b", "x" * 49])
def test_names_that_hosts_cannot_have(name: str) -> None:
    """A host's name is a host name."""
    with pytest.raises(LabError, match="cannot be a lab host's name"):
        LabHost(name)


def test_bridges_have_short_names() -> None:
    """Interface names have at most 15 characters; long lab names still get different ones."""
    assert network.bridge_name("lab") == "pv-lab"
    names = {network.bridge_name(f"a-long-name-of-lab-{n}") for n in range(10)}
    assert len(names) == 10
    assert {len(name) for name in names} == {15}


def test_subnets_are_given_once() -> None:
    """lab has its own; others get the first free one, never lab's."""
    taken = ["198.18.1.0/24", "198.18.3.0/24"]
    free = network.free_subnet("other", taken)
    assert free not in (*taken, "198.18.0.0/24")
    assert network.free_subnet("another", [*taken, free]) not in (*taken, free, "198.18.0.0/24")
    with pytest.raises(LabError, match="in use"):
        network.free_subnet("lab", ["198.18.0.0/24"])


def test_labs_with_ipv6_only_have_subnets_of_their_own_range(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first free /64 for documentation; hosts begin at ::10. The fixed subnet of `lab` is for IPv4."""
    monkeypatch.setattr(network, "_addresses", list)  # labs may be up on this machine
    taken = ["2001:db8::/64", "198.18.1.0/24"]
    assert network.free_subnet("lab", taken, ipv6=True) == "2001:db8:0:1::/64"
    assert list(itertools.islice(network.host_addresses("2001:db8:0:1::/64"), 2)) == [
        "2001:db8:0:1::10",
        "2001:db8:0:1::11",
    ]
    addresses = list(network.host_addresses("198.18.1.0/24"))
    assert (addresses[0], addresses[-1], len(addresses)) == ("198.18.1.10", "198.18.1.254", 245)
    lab = Lab("six", (), ipv6=True, subnet="2001:db8:0:1::/64")
    assert (lab.gateway, lab.s3_url) == ("2001:db8:0:1::1", "http://[2001:db8:0:1::1]:9000")
    with pytest.raises(LabError, match="cannot have internet access"):
        Lab("six", (), ipv6=True, internet=True)


def test_a_process_is_not_mistaken_for_a_later_one() -> None:
    """Alive while it runs; not as a zombie, after its end, or when its id is reused."""
    child = subprocess.Popen(["sleep", "60"])
    identity = processes.identify(child.pid)
    assert identity is not None
    assert identity.is_alive
    assert not processes.Identity(identity.pid, identity.started + 1, identity.boot).is_alive
    assert not processes.Identity(identity.pid, identity.started, "another boot").is_alive
    processes.end([child.pid])
    assert not identity.is_alive
    child.wait()
    assert processes.identify(child.pid) is None


def test_only_the_labs_own_processes_are_its_own(tmp_path: Path) -> None:
    """A service whose last argument is the lab's folder is the lab's; an editor or another lab's service is not."""
    lab, other = tmp_path / "lab", tmp_path / "lab2"
    wait = "import sys; sys.stdin.read()"
    commands = {
        "service": [sys.executable, "-c", wait, "provision_lab.services", "keeper", str(lab)],
        "another lab's": [sys.executable, "-c", wait, "provision_lab.services", "keeper", str(other)],
        "editor": [sys.executable, "-c", wait, str(lab / "overlay.toml")],
        "user": [sys.executable, "-c", wait, "provision_lab.services", "keeper", str(lab), "more"],
    }
    running = {name: subprocess.Popen(argv, stdin=subprocess.PIPE) for name, argv in commands.items()}
    try:
        assert processes.of_lab(lab) == [running["service"].pid]
    finally:
        for child in running.values():
            child.kill()
            child.wait()


@pytest.mark.parametrize(
    ("tree", "ours"),
    [("/s/lab/hosts/a/root", True), ("/s/lab2/hosts/a/root", False), ("/s/lab", True), ("/s", False)],
)
def test_hosts_are_known_by_their_tree(tree: str, ours: bool) -> None:
    """A systemd-nspawn is the lab's when its tree is below the lab's folder."""
    argv = ["/usr/bin/systemd-nspawn", "--quiet", f"--directory={tree}"]
    assert processes.is_nspawn(argv, Path("/s/lab")) is ours
    assert not processes.is_nspawn(["vim", f"--directory={tree}"], Path("/s/lab"))


def test_kernel_settings_are_raised_once_and_put_back_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two labs, the first raises and both record the original value; the last one restores it."""
    monkeypatch.setattr(kernel, "_SYSCTL", tmp_path)
    setting = tmp_path / "low"
    setting.write_text("128\n")
    (tmp_path / "high").write_text("9999\n")
    wanted = {"low": 8192, "high": 8192}
    first = kernel.too_low(wanted, [])
    kernel.apply(wanted, first)
    assert (first, setting.read_text()) == ({"low": "128"}, "8192")
    second = kernel.too_low(wanted, [first])
    assert second == first
    kernel.restore(first, [second])
    assert setting.read_text() == "8192"
    kernel.restore(second, [])
    assert setting.read_text() == "128"
    assert (tmp_path / "high").read_text() == "9999\n"


def test_a_snapshots_difference_names_what_came_went_and_changed() -> None:
    """Equal paths are left out."""
    before, after = {"a": "1", "b": "1", "c": "1"}, {"b": "1", "c": "2", "d": "1"}
    assert changed(before, after) == {"a": ("1", ""), "c": ("1", "2"), "d": ("", "1")}


def test_a_host_is_looked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its systemd-nspawn is remembered while it runs; the next one of the same tree is found."""

    def boot() -> subprocess.Popen[bytes]:
        argv = ["systemd-nspawn", "-c", "import sys; sys.stdin.read()", f"--directory={tmp_path}"]
        return subprocess.Popen(argv, executable=sys.executable, stdin=subprocess.PIPE)

    for _ in range(2):
        with boot() as host:
            wait_for(lambda: processes.nspawn_of(tmp_path) == host.pid, "it is found")
            with monkeypatch.context() as patch:
                patch.setattr(processes, "_all", lambda: pytest.fail("all processes were looked through again"))
                assert processes.nspawn_of(tmp_path) == host.pid
            host.kill()
    assert processes.nspawn_of(tmp_path) is None
