"""Host certificates and revoked host keys: a real sshd presents them, and OpenSSH's client is the judge."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from provision.errors import HostKeyError
from provision.ssh.host_certificates import HostCertificate
from tests.unit.ssh.conftest import refusal_of

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.unit.ssh.conftest import Sshd

refusal = partial(refusal_of, HostKeyError)

HOUR = ("-V", "-1h:+1h")


def keygen(*arguments: str | Path) -> None:
    """Run ssh-keygen."""
    subprocess.run(["ssh-keygen", "-q", *arguments], check=True, capture_output=True)


def new_key(file: Path, *, kind: str = "ed25519") -> str:
    """Create a key pair; returns the public key, `TYPE BASE64`."""
    keygen("-t", kind, *(["-b", "2048"] if kind == "rsa" else []), "-N", "", "-C", "", "-f", file)
    return Path(f"{file}.pub").read_text().strip()


Certified = Callable[..., "Sshd"]


@pytest.fixture
def certified(tmp_path: Path, sshd_factory: Callable[..., Sshd]) -> Certified:
    """Starts an sshd whose host key is signed: `certified("-n", "127.0.0.1", authority="rsa", kind="ecdsa")`."""

    def start(*signing: str, authority: str = "ed25519", kind: str = "ed25519") -> Sshd:
        new_key(tmp_path / "ca", kind=authority)
        new_key(tmp_path / f"host_{kind}", kind=kind)
        keygen("-s", tmp_path / "ca", "-h", "-I", "web1", *signing, tmp_path / f"host_{kind}.pub")
        return sshd_factory(f"HostCertificate {tmp_path}/host_{kind}-cert.pub", kind=kind, folder=tmp_path)

    return start


def known(sshd: Sshd, line: str) -> Path:
    """A known_hosts file; {ca} stands for the authority's key, {key} for the host's."""
    (key,) = (file for file in sshd.folder.glob("host_*.pub") if "cert" not in file.name)
    file = sshd.folder / "known"
    text = line.format(ca=(sshd.folder / "ca.pub").read_text().strip(), key=key.read_text().strip(), port=sshd.port)
    file.write_text(text + "\n")
    return file


def openssh_accepts(sshd: Sshd, file: Path, *options: str) -> bool:
    """Whether OpenSSH's client logs in with this known_hosts file."""
    settings = [f"UserKnownHostsFile={file}", "GlobalKnownHostsFile=none", *options, "StrictHostKeyChecking=yes"]
    command = ["ssh", "-F", "none", *(f"-o{one}" for one in settings), "-i", sshd.key, "-p", str(sshd.port)]
    done = subprocess.run([*command, "root@127.0.0.1", "true"], capture_output=True, stdin=subprocess.DEVNULL)
    return done.returncode == 0


TRUSTED = "@cert-authority * {ca}"


@pytest.mark.parametrize(
    ("signing", "line", "reason"),
    [
        (("-n", "127.0.0.1", *HOUR), TRUSTED, ""),
        (("-n", "web9,127.0.0.1", *HOUR), "@cert-authority 127.0.0.* {ca}", ""),
        (HOUR, TRUSTED, ""),
        (("-n", "127.0.0.1", *HOUR), "@cert-authority [127.0.0.1]:{port} {ca}", ""),
        (("-n", "127.0.0.1", *HOUR), "@cert-authority 127.0.0.1 {ca}", ""),
        (("-n", "127.0.0.1", *HOUR), "@cert-authority 192.0.2.1 {ca}", "is not known"),
        (("-n", "127.0.0.1", *HOUR), "@cert-authority 192.0.2.1 {ca}\n127.0.0.1 {key}", ""),
        (("-n", "web1.example.com", *HOUR), TRUSTED, "it is for web1.example.com"),
        (("-n", "127.0.0.*", *HOUR), TRUSTED, "it is for 127.0.0.*"),
        (("-n", "127.0.0.1", "-V", "20200101:20200201"), TRUSTED, "it expired on 2020-0"),
        (("-n", "127.0.0.1", "-V", "20990101:20990201"), TRUSTED, "it is valid only from 20"),
        (("-n", "127.0.0.1", *HOUR, "-O", "critical:x=y"), TRUSTED, "critical options"),
        (("-n", "127.0.0.1", *HOUR), TRUSTED + "\n@revoked * {ca}", "revoked by"),
        (("-n", "127.0.0.1", *HOUR), TRUSTED + "\n@revoked * {key}", "revoked by"),
        (("-n", "web1", *HOUR), TRUSTED + "\n[127.0.0.1]:{port} {key}", ""),
        (("-n", "127.0.0.1", *HOUR), "[127.0.0.1]:{port} {key}", ""),
    ],
)
def test_a_certificate_counts_as_openssh_decides(
    certified: Certified, signing: tuple[str, ...], line: str, reason: str
) -> None:
    """Name, validity, options, authority and revocation; the message says what is wrong with the certificate."""
    sshd = certified(*signing)
    file = known(sshd, line)
    message = refusal(sshd.target(known_hosts=file))
    assert openssh_accepts(sshd, file) is (reason == "")
    assert (reason in message) if reason else message == ""


@pytest.mark.parametrize(
    ("authority", "kind"), [("rsa", "rsa"), ("ecdsa", "ecdsa"), ("ed25519", "rsa"), ("rsa", "ed25519")]
)
def test_every_type_of_key_can_be_certified_and_certify(certified: Certified, authority: str, kind: str) -> None:
    """RSA (with SHA-2), ECDSA and Ed25519."""
    sshd = certified("-n", "127.0.0.1", *HOUR, authority=authority, kind=kind)
    file = known(sshd, TRUSTED)
    assert openssh_accepts(sshd, file)
    assert refusal(sshd.target(known_hosts=file)) == ""


def test_a_signature_of_sha1_is_refused(certified: Certified) -> None:
    """OpenSSH refuses such a certificate too."""
    sshd = certified("-n", "127.0.0.1", *HOUR, "-t", "ssh-rsa", authority="rsa")
    file = known(sshd, TRUSTED)
    assert not openssh_accepts(sshd, file)
    assert "its signature of type ssh-rsa is not secure" in refusal(sshd.target(known_hosts=file))


def test_a_forged_certificate_is_refused(certified: Certified) -> None:
    """One changed byte, wherever it is: not a certificate of the authority, or not a certificate at all."""
    sshd = certified("-n", "127.0.0.1", *HOUR)
    blob = bytes_of(sshd.folder / "host_ed25519-cert.pub")
    good = HostCertificate(blob)
    assert good.refusal("127.0.0.1") == ""
    for place in range(len(blob)):
        forged = blob[:place] + bytes([blob[place] ^ 1]) + blob[place + 1 :]
        try:
            found = HostCertificate(forged)
        except ValueError:
            continue
        assert found.authority != good.authority or found.refusal("127.0.0.1") != "", place


def bytes_of(file: Path) -> bytes:
    """The key or certificate in a public key file."""
    return base64.b64decode(file.read_text().split()[1])


def test_a_pinned_key_needs_no_certificate(certified: Certified) -> None:
    """The pin decides alone; an expired certificate beside it does not count."""
    sshd = certified("-n", "127.0.0.1", "-V", "20200101:20200201")
    assert refusal(sshd.target(known_hosts=known(sshd, TRUSTED), host_key=sshd.public())) == ""


def test_a_bad_certificate_is_like_none(certified: Certified) -> None:
    """With accept-new the plain key in it is recorded, as by OpenSSH: a host without a certificate gets the same."""
    sshd = certified("-n", "web9", *HOUR)
    assert openssh_accepts(sshd, known(sshd, TRUSTED), "StrictHostKeyChecking=accept-new")
    file = known(sshd, TRUSTED)
    assert refusal(sshd.target(known_hosts=file, host_keys="accept-new")) == ""
    assert file.read_text().endswith(f"\n[127.0.0.1]:{sshd.port} {sshd.public()}\n")


@pytest.mark.parametrize("form", ["keys", "krl", "krl of a serial", "missing", "krl of another"])
@pytest.mark.parametrize("signed", [True, False])
def test_revoked_host_keys(certified: Certified, empty_home: Path, form: str, signed: bool) -> None:
    """A list of keys, a KRL, or a file that cannot be read: what OpenSSH refuses is refused, pinned keys too."""
    sshd = certified("-n", "127.0.0.1", "-z", "7", *HOUR)
    file = known(sshd, TRUSTED if signed else "127.0.0.1 {key}")
    revoked = sshd.folder / "revoked"
    new_key(sshd.folder / "other")
    if form == "keys":
        revoked.write_text("# old keys\n" + (sshd.folder / ("ca.pub" if signed else "host_ed25519.pub")).read_text())
    elif form == "krl of a serial":
        (sshd.folder / "spec").write_text("serial: 7\n")
        keygen("-k", "-f", revoked, "-s", sshd.folder / "ca.pub", sshd.folder / "spec")
    elif form.startswith("krl"):
        keygen("-k", "-f", revoked, sshd.folder / ("host_ed25519.pub" if form == "krl" else "other.pub"))
    (empty_home / ".ssh" / "config").write_text(f"RevokedHostKeys {revoked}\n")
    right = openssh_accepts(sshd, file, f"RevokedHostKeys={revoked}")
    message = refusal(sshd.target(known_hosts=file))
    assert (message == "") is right
    assert right is (form == "krl of another")
    if not right:
        assert str(revoked) in message
        key_is_revoked = form in ("krl", "missing") or (form == "keys" and not signed)
        assert (str(revoked) in refusal(sshd.target(known_hosts=file, host_key=sshd.public()))) is key_is_revoked
