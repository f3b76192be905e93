"""`CertificatePair`: real certificates, and a real openssl that reads the keys."""

from __future__ import annotations

import datetime
import ipaddress
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from provision.errors import ProbeFailed, Refused
from provision.formats.x509 import check_chain
from provision.resources import CertificatePair, Result
from provision.testing import NO_FILE, LocalSession, file_is, notes, observe, observe_on, planned

HOST = "gitlab.example.com"
NOW = datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to read keys")


@cache
def key(name: str) -> Key:
    """A key by name; "rsa" is an RSA key."""
    if name == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class Cert:
    """One certificate: whose key, signed by whom, for which names, from when to when."""

    name: str = "leaf"
    issuer: str = "root"
    sans: tuple[str, ...] = (HOST,)
    start: datetime.datetime = NOW - 10 * DAY
    end: datetime.datetime = NOW + 80 * DAY

    @property
    def pem(self) -> bytes:
        """As it stands in a file."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name.from_rfc4514_string(f"CN={self.name}"))
            .issuer_name(x509.Name.from_rfc4514_string(f"CN={self.issuer}"))
            .public_key(key(self.name).public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.start)
            .not_valid_after(self.end)
        )
        if self.sans:
            builder = builder.add_extension(x509.SubjectAlternativeName([general(one) for one in self.sans]), False)
        return builder.sign(key(self.issuer), hashes.SHA256()).public_bytes(Encoding.PEM)


def general(name: str) -> x509.GeneralName:
    """A DNS name, or an address."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def public(name: str = "leaf") -> bytes:
    """The public half, as openssl prints it."""
    return key(name).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def private(name: str = "leaf", protection: KeySerializationEncryption | None = None) -> bytes:
    """The key as it stands in a file."""
    return key(name).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection or NoEncryption())


def check(chain: Sequence[Cert], host: str = HOST, key_of: str = "leaf") -> Refused | datetime.timedelta:
    """The error for a chain, or the time until it expires."""
    return outcome(b"".join(one.pem for one in chain), public(key_of), host)


def outcome(fullchain: bytes, key: bytes, host: str) -> Refused | datetime.timedelta:
    """What check_chain raises or returns."""
    try:
        return check_chain(fullchain, key, host, NOW)
    except Refused as problem:
        return problem


MIDDLE = Cert("middle", "root", ())
ROOT = Cert("root", "root", ())
LEAF = Cert("leaf", "middle")


@pytest.mark.parametrize(
    ("chain", "host"),
    [
        ([LEAF, MIDDLE, ROOT], HOST),
        ([LEAF, MIDDLE], HOST),
        ([Cert("rsa", "root")], HOST),
        ([Cert("leaf", "leaf")], HOST),
        ([LEAF, MIDDLE], HOST.upper()),
        ([Cert(sans=("other.example.com", HOST))], HOST),
        ([Cert(sans=("*.example.com",))], HOST),
        ([Cert(sans=("203.0.113.10",))], "203.0.113.10"),
        ([Cert(sans=("2001:db8::1",))], "2001:0db8::1"),
    ],
    ids=["with the root", "without it", "RSA", "self-signed", "upper case", "second name", "wildcard", "IP", "IPv6"],
)
def test_fit_for_use(chain: list[Cert], host: str) -> None:
    """The result is the time until it expires."""
    assert check(chain, host, chain[0].name) == 80 * DAY


@pytest.mark.parametrize(
    ("chain", "host", "text", "hint"),
    [
        (
            [Cert("other", "root")],
            HOST,
            "the key does not belong to the certificate",
            "that this certificate was issued for",
        ),
        (
            [MIDDLE, LEAF],
            HOST,
            "the chain is out of order: the key belongs to certificate 2 of 2",
            "own certificate first",
        ),
        (
            [LEAF, ROOT, MIDDLE],
            HOST,
            "the chain is out of order: CN=leaf is signed by CN=middle, and CN=root follows",
            "own certificate first",
        ),
        (
            [Cert(sans=("a.example.com", "192.0.2.1"))],
            HOST,
            f"is not for {HOST}: it names a.example.com, 192.0.2.1",
            HOST,
        ),
        ([Cert(sans=())], HOST, f"is not for {HOST}: only its common name (CN) names leaf, and clients look at", HOST),
        (
            [Cert(sans=("*.example.com",))],
            "a.b.example.com",
            "is not for a.b.example.com: it names *.example.com",
            "a.b.",
        ),
        ([Cert(sans=("*.example.com",))], "example.com", "is not for example.com", "example.com"),
        ([Cert(sans=(HOST,))], "203.0.113.10", "is not for 203.0.113.10", "203.0.113.10"),
        ([Cert(sans=("203.0.113.1",))], "203.0.113.10", "is not for 203.0.113.10: it names 203.0.113.1", "203"),
        ([Cert(start=NOW + DAY)], HOST, "is not valid before 2026-06-02 00:00:00 UTC", "check the clocks"),
        ([Cert(end=NOW - DAY)], HOST, "expired on 2026-05-31 (CN=leaf)", "renew it"),
        ([LEAF, Cert("middle", "root", (), end=NOW - DAY)], HOST, "expired on 2026-05-31 (CN=middle)", "renew it"),
    ],
    ids=[
        "wrong pair",
        "reversed",
        "root too early",
        "another host",
        "no names",
        "wildcard two deep",
        "wildcard's own domain",
        "name for an IP",
        "IP that begins alike",
        "not yet valid",
        "expired",
        "expired on the way",
    ],
)
def test_refused(chain: list[Cert], host: str, text: str, hint: str) -> None:
    """The first thing that is wrong, and what to do about it."""
    problem = check(chain, host)
    assert isinstance(problem, Refused)
    assert text in problem.text
    assert hint in problem.hint


@pytest.mark.parametrize(
    "content", [b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_certificate(content: bytes) -> None:
    """DER, an empty file, a cut one."""
    problem = outcome(content, public(), HOST)
    assert isinstance(problem, Refused)
    assert problem.text.startswith("holds no PEM certificate: ")


def test_the_shortest_life_in_the_chain_counts() -> None:
    """An intermediate certificate that ends first ends it all."""
    assert check([LEAF, Cert("middle", "root", (), end=NOW + 3 * DAY)]) == 3 * DAY


class TestOnTheHost:
    """The whole resource, its files read by a real sh and openssl."""

    @pytest.fixture
    def ssl(self, tmp_path: Path) -> Path:
        """What stands for /etc/gitlab/ssl."""
        folder = tmp_path / "ssl"
        folder.mkdir()
        return folder

    @pytest.fixture
    def pair(self) -> CertificatePair:
        """The pair that is asked for."""
        return CertificatePair("/etc/gitlab/ssl/g.crt", "/etc/gitlab/ssl/g.key", HOST)

    @staticmethod
    def put(ssl: Path, certificate: bytes, key_text: bytes, mode: int = 0o600) -> LocalSession:
        """Lays the files, and gives the host that has them."""
        (ssl / "g.crt").write_bytes(certificate)
        (ssl / "g.key").write_bytes(key_text)
        (ssl / "g.key").chmod(mode)
        return LocalSession({"/etc/gitlab/ssl": ssl})

    @staticmethod
    def current(**changes: object) -> Cert:
        """A certificate that is valid on the day of the test."""
        today = datetime.datetime.now(datetime.UTC)
        return Cert(**{"start": today - DAY, "end": today + 90 * DAY, **changes})  # type: ignore[arg-type]

    def test_converged(self, ssl: Path, pair: CertificatePair) -> None:
        """No change and no note."""
        seen = observe_on(self.put(ssl, self.current().pem, private()), pair)
        assert planned(pair, seen) == []
        assert notes(pair, seen) == []

    def test_an_rsa_key_in_the_old_format(self, ssl: Path, pair: CertificatePair) -> None:
        """`BEGIN RSA PRIVATE KEY` is a key as well."""
        old = key("rsa").private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        assert planned(pair, observe_on(self.put(ssl, self.current(name="rsa").pem, old), pair)) == []

    @pytest.mark.parametrize("mode", [0o644, 0o640, 0o660])
    def test_partly_applied_the_key_is_open_to_others(self, ssl: Path, pair: CertificatePair, mode: int) -> None:
        """It is closed, behind a symlink as well; then nothing is left to do."""
        host = self.put(ssl, self.current().pem, private(), mode)
        (ssl / "g.key").rename(ssl / "real.key")
        (ssl / "g.key").symlink_to("real.key")
        (change,) = planned(pair, observe_on(host, pair))
        assert change.summary == f"set /etc/gitlab/ssl/g.key to 0600 (was {mode:04o})"
        assert host.run(change.run, deadline=10).code == 0  # type: ignore[arg-type]
        assert (ssl / "real.key").stat().st_mode & 0o777 == 0o600
        assert planned(pair, observe_on(host, pair)) == []

    @pytest.mark.parametrize("gone", ["g.crt", "g.key"])
    def test_bare(self, ssl: Path, pair: CertificatePair, gone: str) -> None:
        """A missing file is an error that names it, unless a reconfigure writes it."""
        host = self.put(ssl, self.current().pem, private())
        (ssl / gone).unlink()
        seen = observe_on(host, pair)
        with pytest.raises(Refused, match=f"/etc/gitlab/ssl/{gone} is not on the host") as caught:
            planned(pair, seen)
        assert "registry.certificate.local_fullchain" in caught.value.hint
        coming = CertificatePair(pair.fullchain, pair.key, HOST, coming=True)
        assert planned(coming, seen) == []

    @pytest.mark.parametrize(
        "key_text", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
    )
    def test_what_is_no_key(self, ssl: Path, pair: CertificatePair, key_text: bytes) -> None:
        """openssl's last words are passed on."""
        with pytest.raises(Refused, match=r"g\.key is no private key without a passphrase: \S"):
            planned(pair, observe_on(self.put(ssl, self.current().pem, key_text), pair))

    def test_a_key_with_a_passphrase(self, ssl: Path, pair: CertificatePair) -> None:
        """nginx could not ask for it: refused with the command that takes it away."""
        locked = private("leaf", BestAvailableEncryption(b"sesame"))
        with pytest.raises(Refused, match=r"g\.key is no private key without a passphrase") as caught:
            planned(pair, observe_on(self.put(ssl, self.current().pem, locked), pair))
        assert "openssl pkey -in OLD -out NEW" in caught.value.hint

    def test_the_key_of_another(self, ssl: Path, pair: CertificatePair) -> None:
        """The file is named along with what is wrong in it."""
        with pytest.raises(Refused, match=r"ssl/g\.crt: the key does not belong to the certificate"):
            planned(pair, observe_on(self.put(ssl, self.current().pem, private("another")), pair))

    def test_it_ends_soon(self, ssl: Path, pair: CertificatePair) -> None:
        """A note, in time to renew it."""
        soon = self.current(end=datetime.datetime.now(datetime.UTC) + 20 * DAY)
        seen = observe_on(self.put(ssl, soon.pem, private()), pair)
        assert notes(pair, seen) == ["/etc/gitlab/ssl/g.crt expires in 19 days"]

    def test_no_secret_leaves_the_host(self, ssl: Path, pair: CertificatePair) -> None:
        """What is seen of the key is its public half."""
        seen = observe_on(self.put(ssl, self.current().pem, private()), pair)
        assert "PRIVATE" not in seen["key"].text + seen["key"].errors
        assert public().decode() in seen["key"].text


def test_broken_reading() -> None:
    """A certificate that cannot be read is a fault of the host."""
    pair = CertificatePair("/c", "/k", HOST)
    seen = observe(pair, {"fullchain": Result(b"", b"cat: /c: Is a directory", 1), "key": "absent\n"})
    with pytest.raises(ProbeFailed, match="/c cannot be read"):
        planned(pair, seen)


def test_no_openssl_on_the_host() -> None:
    """The pair is checked after the task has installed it; a file that is missing is refused."""
    pair = CertificatePair("/c", "/k", HOST)
    answers = {"fullchain": file_is(LEAF.pem), "key": Result(b"0600 root:root\n", b"sh: 1: openssl: not found\n", 127)}
    (change,) = planned(pair, observe(pair, answers))
    assert (change.verification, change.final) == (True, True)
    with pytest.raises(Refused):
        planned(pair, observe(pair, {"fullchain": NO_FILE, "key": "absent\n"}))
