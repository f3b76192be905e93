"""Host key rules; known_hosts files are read as OpenSSH reads them, and only appended to."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.errors import HostKeyError, InventoryError
from provision.ssh.host_keys import HostKeyRule, KnownHosts, OtherKeyPinned, fingerprint, known_hosts_name
from provision.ssh.session import HostKeys

ED, OTHER_ED, RSA = b"an ed25519 key", b"another ed25519 key", b"an rsa key"


def line(names: str, blob: bytes = ED, kind: str = "ssh-ed25519", marker: str = "") -> str:
    """One line of a file."""
    return f"{marker} {names} {kind} {base64.b64encode(blob).decode()} a comment".strip()


def known(folder: Path, *lines: str) -> KnownHosts:
    """A file of these lines."""
    file = folder / "known_hosts"
    file.write_text("\n".join(lines) + "\n")
    return KnownHosts([file])


def rule(hosts: KnownHosts, policy: HostKeys = "strict", pin: str | None = None, port: int = 22) -> HostKeyRule:
    """The rule for web1.example.com."""
    return HostKeyRule("web1 (web1.example.com)", "web1.example.com", port, hosts, policy, pin, "web1")


@pytest.mark.parametrize(
    ("names", "host", "port", "matches"),
    [
        ("web1", "web1", 22, True),
        ("web1", "WEB1", 22, True),
        ("WEB1", "web1", 22, True),
        ("web2,web1,10.0.0.1", "web1", 22, True),
        ("web1", "web1", 2222, False),
        ("[web1]:2222", "web1", 2222, True),
        ("[web1]:2222", "web1", 22, False),
        ("*.example.com", "a.example.com", 22, True),
        ("*.example.com", "example.com", 22, False),
        ("web?", "web1", 22, True),
        ("[*.example.com]:2222", "a.example.com", 2222, True),
        ("web*,!web1", "web1", 22, False),
        ("!web1,web*", "web1", 22, False),
        ("web*,!web1", "web2", 22, True),
        ("2001:db8::1", "2001:db8::1", 22, True),
        ("|1|broken", "web1", 22, False),
    ],
)
def test_names_ports_wildcards_and_negation(tmp_path: Path, names: str, host: str, port: int, matches: bool) -> None:
    """The name field of a line matches as sshd(8) describes it."""
    assert bool(known(tmp_path, line(names)).lookup(host, port)) is matches


@pytest.mark.parametrize("port", [22, 2222])
def test_hashed_names_match(tmp_path: Path, port: int) -> None:
    """Names that ssh-keygen has hashed are found, with and without a port."""
    file = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file], check=True)
    hosts = tmp_path / "known_hosts"
    hosts.write_text(f"{known_hosts_name('web1', port)} {Path(f'{file}.pub').read_text()}")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", hosts], check=True, capture_output=True)
    assert hosts.read_text().startswith("|1|")
    (key,) = KnownHosts([hosts]).lookup("web1", port)
    shown = subprocess.run(["ssh-keygen", "-lf", f"{file}.pub"], check=True, capture_output=True, text=True).stdout
    assert fingerprint(key.blob) == shown.split()[1]
    assert not KnownHosts([hosts]).lookup("web2", port)


def test_a_file_is_read_once_for_all_hosts_and_its_order_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines that match by name, by a pattern and by a hashed name are returned in the order of the file."""
    hosts = known(tmp_path, line("web1,web2"), line("web*", OTHER_ED), line("web1", RSA, "ssh-rsa"), line("web2", RSA))
    subprocess.run(["ssh-keygen", "-H", "-f", hosts.files[0]], check=True, capture_output=True)
    with hosts.files[0].open("a") as file:  # -H leaves patterns as they are
        file.write(line("WEB1", b"a key under a plain name") + "\n")
    reads = []
    read = Path.read_text

    def counted(file: Path, *arguments: str, **options: str) -> str:
        reads.append(file)
        return read(file, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", counted)
    assert [one.blob for one in hosts.lookup("web1", 22)] == [ED, OTHER_ED, RSA, b"a key under a plain name"]
    assert [one.blob for one in hosts.lookup("web2", 22)] == [ED, OTHER_ED, RSA]
    assert [one.blob for one in hosts.lookup("web3", 22)] == [OTHER_ED]
    assert len(reads) == 1


def test_damaged_lines_are_skipped(tmp_path: Path) -> None:
    """Comments, blank lines and damaged lines do not hide a valid one; its line number is kept."""
    hosts = known(tmp_path, "# a comment", "", "web1", "web1 ssh-ed25519 !!!", line("web1"))
    (key,) = hosts.lookup("web1", 22)
    assert key.location == f"{tmp_path / 'known_hosts'} line 5"


def test_add_appends_under_a_lock(tmp_path: Path) -> None:
    """Twenty runs record keys at once: none is lost, comments stay, a missing end of line is added."""
    file = tmp_path / "ssh" / "known_hosts"
    file.parent.mkdir()
    file.write_text("# mine\nold ssh-ed25519 AAAA")
    hosts = KnownHosts([file])
    threads = [threading.Thread(target=hosts.add, args=(f"web{n}", 22, "ssh-ed25519", ED)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = file.read_text().splitlines()
    assert lines[:2] == ["# mine", "old ssh-ed25519 AAAA"]
    assert len(lines) == 22
    assert all(len(hosts.lookup(f"web{n}", 22)) == 1 for n in range(20))


def test_add_creates_a_private_file(tmp_path: Path) -> None:
    """If ~/.ssh does not exist, the folder and the file are created for the user only."""
    file = tmp_path / "ssh" / "known_hosts"
    KnownHosts([file]).add("web1", 2222, "ssh-ed25519", ED)
    assert file.read_text() == f"[web1]:2222 ssh-ed25519 {base64.b64encode(ED).decode()}\n"
    assert (file.parent.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)


def test_add_returns_the_key_that_another_run_has_recorded(tmp_path: Path) -> None:
    """Two runs see different keys of a new host: the second receives the key of the first."""
    hosts = known(tmp_path, "# empty")
    assert hosts.add("web1", 22, "ssh-ed25519", ED) == []
    (recorded,) = hosts.add("web1", 22, "ssh-ed25519", OTHER_ED)
    assert recorded.blob == ED


def test_a_known_key_is_accepted_and_an_unknown_host_is_refused_with_instructions(tmp_path: Path) -> None:
    """Strict: the recorded key is accepted; an unknown host is refused, naming fingerprint, file and what to do."""
    rule(known(tmp_path, line("web1.example.com"))).check("ssh-ed25519", ED)
    with pytest.raises(HostKeyError) as refusal:
        rule(known(tmp_path, "# none"), port=2222).check("ssh-ed25519", ED)
    message = str(refusal.value)
    for part in (
        fingerprint(ED),
        str(tmp_path / "known_hosts"),
        "ssh-keyscan -t ed25519 -p 2222 web1.example.com",
        'host_keys = "accept-new"',
        "[hosts.web1]",
    ):
        assert part in message


@pytest.mark.parametrize("policy", ["strict", "accept-new"])
@pytest.mark.parametrize("shown", [("ssh-ed25519", OTHER_ED), ("ssh-rsa", RSA)])
def test_a_changed_key_is_always_refused(tmp_path: Path, policy: HostKeys, shown: tuple[str, bytes]) -> None:
    """Another key, even of a type that is not recorded, is refused, naming both fingerprints, file and line."""
    hosts = known(tmp_path, "# first line", line("web1.example.com"))
    before = hosts.files[0].read_text()
    with pytest.raises(HostKeyError) as refusal:
        rule(hosts, policy).check(*shown)
    for part in (fingerprint(ED), fingerprint(shown[1]), "known_hosts line 2", "ssh-keygen -R 'web1.example.com'"):
        assert part in str(refusal.value)
    assert hosts.files[0].read_text() == before


def test_accept_new_records_the_key(tmp_path: Path) -> None:
    """The key of a new host is recorded and then accepted by the strict policy."""
    hosts = known(tmp_path, "# none")
    rule(hosts, "accept-new").check("ssh-ed25519", ED)
    rule(hosts).check("ssh-ed25519", ED)


@pytest.mark.parametrize("policy", ["strict", "accept-new"])
def test_a_revoked_key_is_refused(tmp_path: Path, policy: HostKeys) -> None:
    """@revoked wins over a line with the key, over accept-new and over a pin."""
    hosts = known(tmp_path, line("web1.example.com"), line("*", ED, marker="@revoked"))
    for pin in (None, fingerprint(ED)):
        with pytest.raises(HostKeyError, match=r"revoked by .*known_hosts line 2"):
            rule(hosts, policy, pin).check("ssh-ed25519", ED)


def test_a_certificate_authority_is_named_and_not_used(tmp_path: Path) -> None:
    """A host with an authority only is unknown; the message names the line, and that the host presented no certificate of it."""
    hosts = known(tmp_path, line("*.example.com", marker="@cert-authority"))
    with pytest.raises(HostKeyError, match="line 1 trusts an authority"):
        rule(hosts).check("ssh-ed25519", OTHER_ED)


@pytest.mark.parametrize("pin", [fingerprint(ED), fingerprint(ED) + "=", line("", ED).strip()])
def test_a_pin_accepts_one_key_only(tmp_path: Path, pin: str) -> None:
    """A pin, in either form, needs no known_hosts line, and no other key is accepted."""
    hosts = known(tmp_path, line("web1.example.com", OTHER_ED))
    rule(hosts, pin=pin).check("ssh-ed25519", ED)
    with pytest.raises(OtherKeyPinned) as refusal:
        rule(hosts, pin=pin).check("ssh-ed25519", OTHER_ED)
    assert fingerprint(ED) in str(refusal.value)
    assert fingerprint(OTHER_ED) in str(refusal.value)


def test_recorded_and_pinned_key_types_are_requested_first(tmp_path: Path) -> None:
    """The recorded types come first; the type of a pinned key, if known, is the only one."""
    rsa = line("web1.example.com", RSA, "ssh-rsa")
    assert rule(known(tmp_path, "# none")).algorithms()[0] == "ssh-ed25519"
    assert rule(known(tmp_path, rsa)).algorithms()[:3] == ("rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519")
    assert rule(known(tmp_path, "# none"), pin=f"ssh-rsa {base64.b64encode(RSA).decode()}").algorithms() == (
        "rsa-sha2-512",
        "rsa-sha2-256",
    )
    assert rule(known(tmp_path, rsa), pin=fingerprint(RSA)).algorithms() == ("rsa-sha2-512", "rsa-sha2-256")
    unknown = rule(known(tmp_path, "# none"), pin=fingerprint(RSA))
    assert "ssh-ed25519" not in unknown.algorithms(frozenset({"ssh-ed25519"}))


@pytest.mark.parametrize("pin", ["", "SHA256:short", "ssh-ed25519", "ssh-ed25519 !!!", "MD5:00:11"])
def test_a_malformed_pin_accepts_no_key(tmp_path: Path, pin: str) -> None:
    """A pin that is neither a fingerprint nor a public key matches nothing."""
    with pytest.raises((HostKeyError, InventoryError)):
        rule(known(tmp_path, line("web1.example.com")), pin=pin).check("ssh-ed25519", ED)


def test_a_host_that_is_known_by_its_bare_name_is_accepted_at_another_port(tmp_path: Path) -> None:
    """OpenSSH asks for [host]:port, then for host: the bare name can accept a key, but not refuse one."""
    hosts = known(tmp_path, line("web1.example.com", RSA, "ssh-rsa"))
    rule(hosts, port=2222).check("ssh-rsa", RSA)
    assert rule(hosts, port=2222).algorithms()[0] == "rsa-sha2-512"
    with pytest.raises(HostKeyError, match="is not known"):
        rule(hosts, port=2222).check("ssh-ed25519", ED)
    rule(hosts, "accept-new", port=2222).check("ssh-ed25519", ED)
    assert hosts.files[0].read_text().count("[web1.example.com]:2222") == 1
    with pytest.raises(HostKeyError, match="has changed"):
        rule(hosts, port=2222).check("ssh-rsa", RSA)


@pytest.fixture
def terminal() -> Iterator[Path]:
    """A terminal: a character device, like /dev/null, that a test without root can have for itself."""
    ends = os.openpty()
    yield Path(os.ttyname(ends[1]))
    for end in ends:
        os.close(end)


@pytest.mark.parametrize("kind", ["device", "link", "fifo"])
def test_accept_new_leaves_what_is_not_a_file(tmp_path: Path, terminal: Path, kind: str) -> None:
    """UserKnownHostsFile /dev/null, which users set on purpose: nothing is recorded, and its mode stays."""
    device = tmp_path / "null"
    if kind == "fifo":
        os.mkfifo(device)
    else:
        device = terminal
    device.chmod(0o666)
    file = device
    if kind == "link":
        file = tmp_path / "link"
        file.symlink_to(device)
    hosts = KnownHosts([file])
    rule(hosts, "accept-new").check("ssh-ed25519", ED)
    rule(hosts, "accept-new").check("ssh-ed25519", OTHER_ED)
    assert device.stat().st_mode & 0o777 == 0o666


def test_add_keeps_the_mode_of_an_empty_file(tmp_path: Path) -> None:
    """The mode is set when the file is created, and never changed."""
    file = tmp_path / "known_hosts"
    file.touch()
    file.chmod(0o644)
    KnownHosts([file]).add("web1", 22, "ssh-ed25519", ED)
    assert file.stat().st_mode & 0o777 == 0o644


def test_a_key_that_cannot_be_recorded_is_refused(tmp_path: Path) -> None:
    """The message names the file."""
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(HostKeyError, match=r"cannot be recorded in .*file/known_hosts"):
        rule(KnownHosts([file / "known_hosts"]), "accept-new").check("ssh-ed25519", ED)
