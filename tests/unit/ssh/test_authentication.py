"""Login keys: files, agents and certificates, as OpenSSH's client uses them; a real sshd is the judge."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from provision.errors import LoginRefused
from provision.ssh.authentication import load_key
from tests.unit.ssh.conftest import refusal_of, ssh_agent

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.unit.ssh.conftest import Sshd

refusal = partial(refusal_of, LoginRefused)


def openssh_logs_in(sshd: Sshd, home: Path, **environment: str) -> bool:
    """Whether OpenSSH's client logs in with ~/.ssh/config."""
    settings = [f"UserKnownHostsFile={sshd.known()}", "GlobalKnownHostsFile=none", "BatchMode=yes"]
    command = ["ssh", "-F", home / ".ssh" / "config", *(f"-o{one}" for one in settings), "-p", str(sshd.port)]
    done = subprocess.run(
        [*command, "root@127.0.0.1", "true"],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )
    return done.returncode == 0


@pytest.mark.parametrize("named", ["hw.pub", "hw"])
def test_the_private_half_of_a_public_key_is_in_the_agent(
    sshd: Sshd, empty_home: Path, tmp_path: Path, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """IdentityFile names a public key, or a key of which only the public half is there: the agent's key is offered."""
    (empty_home / ".ssh" / "hw.pub").write_bytes(sshd.key.with_suffix(".pub").read_bytes())
    file = empty_home / ".ssh" / named
    (empty_home / ".ssh" / "config").write_text(f"IdentityFile {file}\nIdentitiesOnly yes\n")
    with ssh_agent(tmp_path, sshd.folder / "host_rsa", sshd.key) as socket:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        assert openssh_logs_in(sshd, empty_home)
        assert refusal(sshd.target(identity_file=None)) == ""
        assert refusal(sshd.target(identity_file=file)) == "", "the inventory may name it too"
    with ssh_agent(tmp_path, sshd.folder / "host_rsa"):
        assert not openssh_logs_in(sshd, empty_home)
        message = refusal(sshd.target(identity_file=None))
        assert "no key to try" in message
        assert named == "hw" or f"{file} (a public key, whose private key is not in the agent)" in message


def test_identityagent_names_the_agent(
    sshd: Sshd, empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """IdentityAgent counts without SSH_AUTH_SOCK; `none` asks no agent, although SSH_AUTH_SOCK is set."""
    config = empty_home / ".ssh" / "config"
    with ssh_agent(tmp_path, sshd.key) as socket:
        config.write_text(f"IdentityAgent {socket}\n")
        assert openssh_logs_in(sshd, empty_home)
        assert refusal(sshd.target(identity_file=None)) == ""
        for setting, works in (("none", False), ("SSH_AUTH_SOCK", True), ("$OTHER_SOCKET", True), ("/nowhere", False)):
            monkeypatch.setenv("OTHER_SOCKET", str(socket))
            monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
            config.write_text(f"IdentityAgent {setting}\n")
            assert openssh_logs_in(sshd, empty_home) is works
            assert (refusal(sshd.target(identity_file=None)) == "") is works, setting


@pytest.mark.parametrize(
    ("kind", "style"),
    # ssh-keygen writes Ed25519 keys in OpenSSH's form only.
    [("ed25519", "RFC4716"), *product(("ecdsa", "rsa"), ("RFC4716", "PEM", "PKCS8"))],
)
def test_keys_of_every_form_are_read(tmp_path: Path, kind: str, style: str) -> None:
    """OpenSSH's own form and the older ones. Without a comment, some ECDSA keys end without padding."""
    for number in range(12 if kind == "ecdsa" else 1):
        file = tmp_path / f"key{number}"
        bits = ["-b", "2048"] if kind == "rsa" else []
        command = ["ssh-keygen", "-q", "-t", kind, *bits, "-N", "", "-C", "", "-m", style, "-f", file]
        subprocess.run(command, check=True, capture_output=True)
        public = Path(f"{file}.pub").read_text().split()
        key = load_key(file)
        assert (key.get_name(), key.get_base64()) == (public[0], public[1])
        assert key.can_sign()


@pytest.fixture
def certificate_sshd(tmp_path: Path, sshd_factory: Callable[..., Sshd]) -> Sshd:
    """An sshd that accepts root's logins by a certificate of `user_ca` only, and no plain key."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "user_ca"], check=True)
    started = sshd_factory(f"TrustedUserCAKeys {tmp_path}/user_ca.pub")
    (started.folder / "authorized_keys").write_text("")
    return started


def sign(sshd: Sshd, out: Path, *options: str) -> None:
    """Sign the user's key and move the certificate to `out`."""
    authority = sshd.folder.parent / "user_ca"
    subprocess.run(["ssh-keygen", "-q", "-s", authority, "-I", "me", *options, sshd.key], check=True)
    (sshd.folder / "user_key-cert.pub").rename(out)


@pytest.mark.parametrize("place", ["beside", "CertificateFile"])
@pytest.mark.parametrize("source", ["file", "agent"])
def test_a_login_certificate_is_offered(
    certificate_sshd: Sshd,
    empty_home: Path,
    tmp_path: Path,
    place: str,
    source: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """FILE-cert.pub beside the key, or CertificateFile; the private key is in the file or in the agent."""
    sshd, config = certificate_sshd, empty_home / ".ssh" / "config"
    key = empty_home / ".ssh" / "mine"
    if source == "file":
        key.write_bytes(sshd.key.read_bytes())
        key.chmod(0o600)
    Path(f"{key}.pub").write_bytes(sshd.key.with_suffix(".pub").read_bytes())
    config.write_text(f"IdentityFile {key}\n")
    with ssh_agent(tmp_path, *([sshd.key] if source == "agent" else [])) as socket:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        assert not openssh_logs_in(sshd, empty_home)
        assert "refused the login of root" in refusal(sshd.target(identity_file=None))
        certificate = Path(f"{key}-cert.pub") if place == "beside" else tmp_path / "other name"
        sign(sshd, certificate, "-n", "root")
        if place == "CertificateFile":
            config.write_text(f'IdentityFile {key}\nCertificateFile "{certificate}"\n')
        assert openssh_logs_in(sshd, empty_home)
        assert refusal(sshd.target(identity_file=None)) == ""


def test_the_plain_key_is_offered_after_its_certificate(sshd: Sshd, empty_home: Path, tmp_path: Path) -> None:
    """A certificate that the host does not accept does not hide the key; files that are no certificates are named."""
    key = empty_home / ".ssh" / "mine"
    key.write_bytes(sshd.key.read_bytes())
    key.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "ca"], check=True)
    command = ["ssh-keygen", "-q", "-s", tmp_path / "ca", "-I", "me", "-n", "root", sshd.key]
    subprocess.run(command, check=True)
    (sshd.folder / "user_key-cert.pub").rename(f"{key}-cert.pub")
    (empty_home / ".ssh" / "config").write_text(f"IdentityFile {key}\nCertificateFile {sshd.key}.pub\n")
    assert openssh_logs_in(sshd, empty_home)
    assert refusal(sshd.target(identity_file=None)) == ""
    (empty_home / ".ssh" / "config").write_text(f"IdentityFile {key}\nCertificateFile {sshd.key}.pub\nUser nobody\n")
    message = refusal(sshd.target(identity_file=None, user="no-such-user"))
    assert f"tried {key}-cert.pub for {key}, {key};" in message
    assert "user_key.pub (it is not a certificate)" in message
