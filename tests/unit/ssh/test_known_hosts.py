"""known_hosts files are read as OpenSSH reads them, and only ever appended to."""

from __future__ import annotations

import base64
import subprocess
import threading
from pathlib import Path

import pytest

from provision.errors import HostKeyError, InventoryError
from provision.ssh.host_keys import HostKeyRule, KnownHosts, OtherKeyPinned, check_pin_syntax, fingerprint, host_label
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
    """What is demanded of web1.example.com."""
    return HostKeyRule("web1 (web1.example.com)", "web1.example.com", port, hosts, policy, pin, "web1")


@pytest.mark.parametrize(
    ("names", "host", "port", "speaks"),
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
def test_names(tmp_path: Path, names: str, host: str, port: int, speaks: bool) -> None:
    """Plain names, ports, wildcards, negation."""
    assert bool(known(tmp_path, line(names)).lookup(host, port)) is speaks


@pytest.mark.parametrize("port", [22, 2222])
def test_hashed_names(tmp_path: Path, port: int) -> None:
    """Names hashed by ssh-keygen itself are found, ports included."""
    file = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file], check=True)
    hosts = tmp_path / "known_hosts"
    hosts.write_text(f"{host_label('web1', port)} {Path(f'{file}.pub').read_text()}")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", hosts], check=True, capture_output=True)
    assert hosts.read_text().startswith("|1|")
    (key,) = KnownHosts([hosts]).lookup("web1", port)
    shown = subprocess.run(["ssh-keygen", "-lf", f"{file}.pub"], check=True, capture_output=True, text=True).stdout
    assert fingerprint(key.blob) == shown.split()[1]
    assert not KnownHosts([hosts]).lookup("web2", port)


def test_damaged_lines_are_passed_over(tmp_path: Path) -> None:
    """Comments, blank lines and damaged ones do not hide the good one; its place is told."""
    hosts = known(tmp_path, "# a comment", "", "web1", "web1 ssh-ed25519 !!!", line("web1"))
    (key,) = hosts.lookup("web1", 22)
    assert key.place == f"{tmp_path / 'known_hosts'} line 5"


def test_add_appends_under_a_lock(tmp_path: Path) -> None:
    """Twenty runs note keys at once: nothing is lost, comments stay, a missing end of line is made good."""
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


def test_add_makes_a_private_file(tmp_path: Path) -> None:
    """Where there is no ~/.ssh yet, folder and file are the user's alone."""
    file = tmp_path / "ssh" / "known_hosts"
    KnownHosts([file]).add("web1", 2222, "ssh-ed25519", ED)
    assert file.read_text() == f"[web1]:2222 ssh-ed25519 {base64.b64encode(ED).decode()}\n"
    assert (file.parent.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)


def test_add_does_not_overrule_what_another_run_noted(tmp_path: Path) -> None:
    """Two runs meet a new host and see different keys: the second is told the first's."""
    hosts = known(tmp_path, "# empty")
    assert hosts.add("web1", 22, "ssh-ed25519", ED) == []
    (noted,) = hosts.add("web1", 22, "ssh-ed25519", OTHER_ED)
    assert noted.blob == ED


def test_known_key_passes_and_unknown_is_refused_with_the_way_out(tmp_path: Path) -> None:
    """Strict: the known key passes; an unknown host is refused with fingerprint, file and what to do."""
    rule(known(tmp_path, line("web1.example.com"))).check("ssh-ed25519", ED)
    with pytest.raises(HostKeyError) as refusal:
        rule(known(tmp_path, "# none"), port=2222).check("ssh-ed25519", ED)
    told = str(refusal.value)
    for part in (
        fingerprint(ED),
        str(tmp_path / "known_hosts"),
        "ssh-keyscan -t ed25519 -p 2222 web1.example.com",
        'host_keys = "accept-new"',
        "[hosts.web1]",
    ):
        assert part in told


@pytest.mark.parametrize("policy", ["strict", "accept-new"])
@pytest.mark.parametrize("shown", [("ssh-ed25519", OTHER_ED), ("ssh-rsa", RSA)])
def test_changed_key_is_refused_always(tmp_path: Path, policy: HostKeys, shown: tuple[str, bytes]) -> None:
    """Another key, be it of a type never seen, is refused with both fingerprints, file and line."""
    hosts = known(tmp_path, "# first line", line("web1.example.com"))
    before = hosts.files[0].read_text()
    with pytest.raises(HostKeyError) as refusal:
        rule(hosts, policy).check(*shown)
    for part in (fingerprint(ED), fingerprint(shown[1]), "known_hosts line 2", "ssh-keygen -R 'web1.example.com'"):
        assert part in str(refusal.value)
    assert hosts.files[0].read_text() == before


def test_accept_new_notes_the_key(tmp_path: Path) -> None:
    """A host never seen is noted, and is known from then on."""
    hosts = known(tmp_path, "# none")
    rule(hosts, "accept-new").check("ssh-ed25519", ED)
    rule(hosts).check("ssh-ed25519", ED)


@pytest.mark.parametrize("policy", ["strict", "accept-new"])
def test_revoked_key_is_refused(tmp_path: Path, policy: HostKeys) -> None:
    """@revoked wins over a line that knows the key, over accept-new and over a pin."""
    hosts = known(tmp_path, line("web1.example.com"), line("*", ED, marker="@revoked"))
    for pin in (None, fingerprint(ED)):
        with pytest.raises(HostKeyError, match=r"revoked by .*known_hosts line 2"):
            rule(hosts, policy, pin).check("ssh-ed25519", ED)


def test_authority_lines_are_named(tmp_path: Path) -> None:
    """A host known by an authority alone is unknown, and the message says why."""
    hosts = known(tmp_path, line("*.example.com", marker="@cert-authority"))
    with pytest.raises(HostKeyError, match="line 1 trusts an authority"):
        rule(hosts).check("ssh-ed25519", OTHER_ED)


@pytest.mark.parametrize("pin", [fingerprint(ED), fingerprint(ED) + "=", line("", ED).strip()])
def test_pin(tmp_path: Path, pin: str) -> None:
    """A pin, in either form, is what counts: no known_hosts line is needed, no other key passes."""
    hosts = known(tmp_path, line("web1.example.com", OTHER_ED))
    rule(hosts, pin=pin).check("ssh-ed25519", ED)
    with pytest.raises(OtherKeyPinned) as refusal:
        rule(hosts, pin=pin).check("ssh-ed25519", OTHER_ED)
    assert fingerprint(ED) in str(refusal.value)
    assert fingerprint(OTHER_ED) in str(refusal.value)


def test_what_is_offered(tmp_path: Path) -> None:
    """The types a host is known by come first; a pinned key's type, where it is known, is the only one."""
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
def test_bad_pins_are_refused(pin: str) -> None:
    """What is neither a fingerprint nor a key is told before anything is contacted."""
    with pytest.raises(InventoryError, match="is no key"):
        check_pin_syntax(pin)
