"""Connecting to an address under another name, by TLS and plain HTTP, against a real server on loopback."""

from __future__ import annotations

import datetime
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from provision.engine.catalogue import load_inventory
from provision.errors import ApiFailed
from provision.gitlab.access import api_at, required_api
from provision.gitlab.api import Api
from provision.secret import Secret
from provision.url import Url

Serve = Callable[..., Any]
TOKEN = Secret("glpat-the-api-token")
NAME = "gitlab.internal.invalid"  # resolved nowhere


class Authority:
    """A private CA, and a server's certificate for NAME."""

    def __init__(self, folder: Path) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name.from_rfc4514_string("CN=own authority")
        self.file = folder / "ca.pem"
        self.file.write_bytes(self._sign(self.name, self.key, None))
        self._folder = folder

    def context(self, name: str) -> ssl.SSLContext:
        """A server's context with a certificate for a name."""
        key = ec.generate_private_key(ec.SECP256R1())
        chain, private = self._folder / "chain.pem", self._folder / "key.pem"
        chain.write_bytes(self._sign(x509.Name.from_rfc4514_string("CN=server"), key, name))
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain, private)
        return context

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, name: str | None) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=name is None, path_length=None), critical=True)
        )
        if name:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)


class TestByAddress:
    """GitLab's name is not resolved here: the client connects to the address of its host in the inventory."""

    @pytest.fixture
    def authority(self, tmp_path: Path) -> Authority:
        """A CA."""
        return Authority(tmp_path)

    def test_plain_http(self, serve: Serve, reply: Any) -> None:
        """The Host header has the name and the port."""
        web = serve(lambda _: reply(200, {"ok": True}))
        api = Api(Url.parse(f"http://{NAME}:{web.port}"), TOKEN, fallback="127.0.0.1")
        assert api.get("/metadata") == {"ok": True}
        assert web.asked[0].headers["host"] == f"{NAME}:{web.port}"

    def test_tls_is_checked_for_the_name(self, serve: Serve, reply: Any, authority: Authority) -> None:
        """With the given CA."""
        web = serve(lambda _: reply(200, {"ok": True}), authority.context(NAME))
        api = Api(Url.parse(f"https://{NAME}:{web.port}"), TOKEN, authority.file, "127.0.0.1")
        assert api.get("/metadata") == {"ok": True}
        assert api.get("/metadata") == {"ok": True}
        assert web.asked[0].headers["host"] == f"{NAME}:{web.port}"

    def test_a_certificate_for_another_name_is_refused(self, serve: Serve, reply: Any, authority: Authority) -> None:
        """The token is not sent."""
        web = serve(lambda _: reply(200, {}), authority.context("other.example.com"))
        with pytest.raises(
            ApiFailed, match=r"cannot be reached from this machine: hostname .* doesn't match 'other\.example\.com'"
        ):
            Api(Url.parse(f"https://{NAME}:{web.port}"), TOKEN, authority.file, "127.0.0.1").get("/metadata")
        assert web.asked == []

    def test_a_certificate_for_the_address_alone_is_refused(
        self, serve: Serve, reply: Any, authority: Authority
    ) -> None:
        """The certificate must be for the name."""
        web = serve(lambda _: reply(200, {}), authority.context("127.0.0.1"))
        with pytest.raises(ApiFailed):
            Api(Url.parse(f"https://{NAME}:{web.port}"), TOKEN, authority.file, "127.0.0.1").get("/metadata")
        assert web.asked == []

    def test_a_ca_that_was_not_given(self, serve: Serve, reply: Any, authority: Authority) -> None:
        """The hint names the setting."""
        web = serve(lambda _: reply(200, {}), authority.context(NAME))
        with pytest.raises(ApiFailed, match="cannot be reached from this machine") as caught:
            Api(Url.parse(f"https://{NAME}:{web.port}"), TOKEN, None, "127.0.0.1").get("/metadata")
        assert "registry.certificate.ca" in caught.value.hint
        assert web.asked == []

    def test_a_name_that_is_resolved_is_used(self, serve: Serve, reply: Any, authority: Authority) -> None:
        """The other address is used only for names that are not resolved."""
        web = serve(lambda _: reply(200, {"ok": True}), authority.context("localhost"))
        api = Api(Url.parse(f"https://localhost:{web.port}"), TOKEN, authority.file, "192.0.2.1")
        assert api.get("/metadata") == {"ok": True}

    def test_a_given_address_wins_over_the_names_own(self, tmp_path: Path, serve: Serve, reply: Any) -> None:
        """gitlab.api_address: the server that the name leads to is not contacted."""
        web = serve(lambda _: reply(200, {"ok": True}), address="127.0.0.2")
        text = f'external_url = "http://localhost:{web.port}"\napi_token = "the-token"\napi_address = "127.0.0.2"'
        (tmp_path / "x.toml").write_text(f"[hosts.git]\n[gitlab]\n{text}")
        (host,) = load_inventory([tmp_path / "x.toml"]).hosts
        with socket.create_server(("127.0.0.1", web.port)) as named:
            named.setblocking(False)
            assert required_api(host, "x").get("/metadata") == {"ok": True}
            with pytest.raises(BlockingIOError):
                named.accept()
        assert web.asked[0].headers["host"] == f"localhost:{web.port}"

    def test_another_servers_api_is_not_asked_at_that_address(self, tmp_path: Path) -> None:
        """It is the address of gitlab.external_url alone."""
        text = 'external_url = "https://git.example.com"\napi_token = "the-token"\napi_address = "127.0.0.2"'
        (tmp_path / "x.toml").write_text(f"[hosts.git]\n[gitlab]\n{text}")
        (host,) = load_inventory([tmp_path / "x.toml"]).hosts
        assert api_at(host, Url.parse("https://git.example.com/x")).address == "127.0.0.2"
        assert api_at(host, Url.parse("https://other.example.com")).address == ""
