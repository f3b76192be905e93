"""Our check of chains, compared with what OpenSSL reads and what a TLS client accepts."""

from __future__ import annotations

import datetime
import ssl
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from provision.errors import Refused
from provision.formats.x509 import check_certificates, check_pair, read_chain
from provision.secret import Secret

HOST = "gitlab.example.com"
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
BEGIN, END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


class Owner:
    """A subject with a key."""

    def __init__(self, name: str) -> None:
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.key = ec.generate_private_key(ec.SECP256R1())

    @property
    def secret(self) -> Secret:
        """Its key in PEM."""
        return Secret(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())

    def certify(
        self,
        owner: Owner,
        names: Sequence[str] = (),
        usages: Sequence[ObjectIdentifier] = (),
        days: int = 30,
    ) -> str:
        """A certificate that this owner signs: an authority's, unless it names hosts."""
        ca = not names and owner is not LEAF
        builder = (
            x509.CertificateBuilder()
            .subject_name(owner.name)
            .issuer_name(self.name)
            .public_key(owner.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - 60 * DAY)
            .not_valid_after(NOW + days * DAY)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if names:
            alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
            builder = builder.add_extension(alternatives, critical=False)
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


LEAF, MIDDLE, ROOT_A, ROOT_B = Owner(HOST), Owner("middle"), Owner("root A"), Owner("root B")
ROOTS = {"A": ROOT_A.certify(ROOT_A), "B": ROOT_B.certify(ROOT_B)}
LEAF_PEM = MIDDLE.certify(LEAF, [HOST], [SERVER])
BY_A, BY_B = ROOT_A.certify(MIDDLE), ROOT_B.certify(MIDDLE)
GOOD = LEAF_PEM + BY_A


def indented(pem: str) -> str:
    """Every line with two spaces before it."""
    return "".join(f"  {line}\n" for line in pem.splitlines())


def sent(chain: str, folder: Path) -> int:
    """How many certificates a server sends that reads this file as nginx does, by OpenSSL. Raises SSLError."""
    (folder / "chain.pem").write_text(chain)
    (folder / "key.pem").write_text(LEAF.secret.reveal())
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "chain.pem", folder / "key.pem")
    collect = ("openssl", "crl2pkcs7", "-nocrl", "-certfile", str(folder / "chain.pem"))
    found = subprocess.run(collect, capture_output=True, check=True).stdout
    listing = ("openssl", "pkcs7", "-print_certs", "-noout")
    return subprocess.run(listing, input=found, capture_output=True, check=True).stdout.count(b"subject=")


def accepted(chain: str, root: str, folder: Path) -> bool:
    """Whether a TLS client that trusts `root` takes what such a server sends: a real handshake in memory."""
    sent(chain, folder)
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.load_cert_chain(folder / "chain.pem", folder / "key.pem")
    client.load_verify_locations(cadata=root)
    client.hostname_checks_common_name = False  # as in Docker and gitlab-runner (Go), and in browsers
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=HOST),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    done = set()
    while len(done) < 2:
        for end in ends:
            try:
                end.do_handshake()
                done.add(end)
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
    return True


def check(chain: str) -> datetime.timedelta:
    """What provision says about the pair."""
    return check_pair(chain.encode(), LEAF.secret, HOST)


READABLE = {
    "as written": GOOD,
    "without the last line break": GOOD.rstrip("\n"),
    "Windows line ends": GOOD.replace("\n", "\r\n"),
    "spaces at line ends": GOOD.replace("\n", "  \n"),
    "text between": f"subject=/CN={HOST}\n\n{LEAF_PEM}issuer: Größe\n{BY_A}",
    "the key in the same file": LEAF.secret.reveal() + GOOD,
}
UNREADABLE = {
    "glued": LEAF_PEM.rstrip("\n") + BY_A,
    "the last one cut 100 bytes short": GOOD[:-100],
    "cut inside": GOOD.replace(BY_A.splitlines()[3] + "\n", ""),
    "indented": indented(GOOD),
    "the second one indented": LEAF_PEM + indented(BY_A),
    "text behind an end": GOOD.replace(END, f"{END} x", 1),
    "four dashes": LEAF_PEM + BY_A.replace(BEGIN, BEGIN[1:]),
    "an empty line inside": GOOD.replace(f"{BEGIN}\n", f"{BEGIN}\n\n\n", 1),
}


class TestAsOpensslReadsIt:
    """A chain that cryptography reads generously is of no use if nginx cannot read it."""

    @pytest.mark.parametrize("chain", READABLE.values(), ids=READABLE)
    def test_readable(self, chain: str, tmp_path: Path) -> None:
        """OpenSSL sends both certificates, and clients take them."""
        assert sent(chain, tmp_path) == 2
        assert accepted(chain, ROOTS["A"], tmp_path)
        assert check(chain).days == 29

    @pytest.mark.parametrize("chain", UNREADABLE.values(), ids=UNREADABLE)
    def test_unreadable(self, chain: str, tmp_path: Path) -> None:
        """OpenSSL refuses it, or reads only a part."""
        with suppress(ssl.SSLError, subprocess.CalledProcessError):
            assert sent(chain, tmp_path) < 2
        with pytest.raises(Refused, match=r"OpenSSL (cannot read it|reads 1 of its 2)|holds no PEM certificate"):
            check(chain)

    def test_the_reason_and_what_to_do(self) -> None:
        """What `cat` leaves behind."""
        with pytest.raises(Refused, match=r"^OpenSSL cannot read it, and so nginx cannot") as caught:
            check(UNREADABLE["glued"])
        assert "`cat` joins files without a line break" in caught.value.hint

    def test_a_byte_order_mark(self, tmp_path: Path) -> None:
        """OpenSSL 3 skips it."""
        assert accepted(f"\ufeff{GOOD}", ROOTS["A"], tmp_path)
        assert check(f"\ufeff{GOOD}").days == 29


class TestAuthorities:
    """The file of a CA: what programs trust."""

    def test_der(self) -> None:
        """Windows' .cer: how to convert it."""
        with pytest.raises(Refused, match="holds no PEM certificate, but one in DER") as caught:
            check_certificates(ssl.PEM_cert_to_DER_cert(ROOTS["A"]))
        assert "openssl x509 -inform der" in caught.value.hint

    @pytest.mark.parametrize("content", ["", "a CA", LEAF.secret.reveal(), ROOTS["A"].rstrip() + ROOTS["B"]])
    def test_no_certificate_or_no_readable_one(self, content: str) -> None:
        """Nothing would be trusted, without an error."""
        with pytest.raises(Refused):
            check_certificates(content.encode())

    def test_a_readable_file_needs_openssl_alone(self) -> None:
        """cryptography's X.509 takes 20 ms to import: only a fault is explained with it."""
        code = "import sys; from provision.formats.x509 import check_certificates\n"
        code += "check_certificates(sys.stdin.buffer.read()); sys.exit('cryptography' in sys.modules)"
        subprocess.run([sys.executable, "-c", code], input=ROOTS["A"].encode(), check=True)

    def test_several(self) -> None:
        """With text between them."""
        check_certificates(f"# A\n{ROOTS['A']}# B\n{ROOTS['B']}".encode())
        assert len(read_chain(f"{ROOTS['A']}{ROOTS['B']}".encode())) == 2


class TestCrossSigned:
    """TLS clients sort certificates that follow the leaf."""

    @pytest.mark.parametrize(
        ("chain", "root"),
        [
            (LEAF_PEM + BY_A + BY_B, "A"),
            (LEAF_PEM + BY_B + BY_A, "B"),
            (LEAF_PEM + BY_A + BY_B + ROOTS["A"] + ROOTS["B"], "A"),
            (LEAF_PEM + LEAF_PEM + BY_A, "A"),
            (LEAF_PEM + BY_A + BY_A, "A"),
            (LEAF_PEM + ROOT_A.certify(MIDDLE, days=-1) + BY_B, "B"),
        ],
        ids=["A and B", "B and A", "with both roots", "leaf twice", "signer twice", "one of them expired"],
    )
    def test_taken(self, chain: str, root: str, tmp_path: Path) -> None:
        """OpenSSL uses the first version of the signer; Go (Docker, gitlab-runner) and we accept any that is trusted."""
        assert accepted(chain, ROOTS[root], tmp_path)
        assert check(chain).days == 29

    def test_all_of_them_expired(self, tmp_path: Path) -> None:
        """Then no client takes it."""
        chain = LEAF_PEM + ROOT_A.certify(MIDDLE, days=-1) + ROOT_B.certify(MIDDLE, days=-2)
        assert not any(accepted(chain, root, tmp_path) for root in ROOTS.values())
        with pytest.raises(Refused, match=r"expired on .* \(CN=middle\)"):
            check(chain)

    def test_one_that_signed_nothing(self) -> None:
        """It belongs to another chain."""
        with pytest.raises(Refused, match=r"the chain is out of order: .* and CN=root B follows"):
            check(LEAF_PEM + BY_A + ROOTS["B"])


class TestUsage:
    """Extended key usages, RFC 5280 section 4.2.1.12."""

    @pytest.mark.parametrize(
        ("usages", "fit"),
        [((), True), ((SERVER,), True), ((SERVER, CLIENT), True), ((CLIENT,), False)],
        ids=["none", "server", "both", "client alone"],
    )
    @pytest.mark.parametrize("signer", [False, True], ids=["leaf", "signer"])
    def test_for_servers(self, usages: Sequence[ObjectIdentifier], fit: bool, signer: bool, tmp_path: Path) -> None:
        """A client refuses a server's certificate, and a signer's, that is for other purposes alone."""
        chain = GOOD if signer else MIDDLE.certify(LEAF, [HOST], usages) + BY_A
        chain = LEAF_PEM + ROOT_A.certify(MIDDLE, usages=usages) if signer else chain
        assert accepted(chain, ROOTS["A"], tmp_path) == fit
        if fit:
            assert check(chain).days == 29
            return
        name = "middle" if signer else HOST
        with pytest.raises(
            Refused, match=f"the extended key usage of CN={name} is clientAuth, .*incompatible key usage"
        ):
            check(chain)


class TestCommonName:
    """A certificate without subjectAltName."""

    def test_only_the_common_name(self, tmp_path: Path) -> None:
        """Clients refuse it, and the message says why."""
        chain = MIDDLE.certify(LEAF) + BY_A
        assert not accepted(chain, ROOTS["A"], tmp_path)
        text = rf"^is not for {HOST}: only its common name \(CN\) names {HOST}, and clients look at the subjectAltName alone"
        with pytest.raises(Refused, match=text):
            check(chain)
