"""What the registry's answer may make root's curl fetch, whom it trusts, and which proxy it uses: real curl and servers."""

from __future__ import annotations

import base64
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provision.host.scripts import NOT_READY, script
from provision.shell import Result
from provision_lab.certificates import Authority
from tests.support.http_proxy import HttpProxy
from tests.support.local import Local, one_shell
from tests.support.programs import Docker
from tests.support.web import tls

pytestmark = pytest.mark.slow

Serve = Callable[..., Any]
PASSWORD = "the-registry-password"
LOGIN = "Basic " + base64.b64encode(f"sammy:{PASSWORD}".encode()).decode()
DIGEST = "sha256:" + "1" * 64


class Estate:
    """A registry on 127.0.0.1 and a host. `realm` is where the registry sends clients to for a token."""

    def __init__(self, folder: Path, serve: Serve, reply: Any, local: Local) -> None:
        self.folder, self.serve, self.reply = folder, serve, reply
        self.docker = Docker(folder / "host")
        (self.docker.folder / "images").write_text(f"r/a@{DIGEST}\n")
        self.realm = ""
        self.registry: Any = None
        for name in ("certs.d", "roots"):
            (folder / name).mkdir()
        self.environment: dict[str, str] = {"PATH": self.docker.path}
        self._local = local

    def start(self, context: ssl.SSLContext | None = None) -> str:
        """Starts the registry; its URL."""
        self.registry = self.serve(self._answer, context)
        self.realm = self.realm or f"{self.registry.url}/token"
        return str(self.registry.url)

    def token_server(self, context: ssl.SSLContext | None = None, body: bytes = b'{"token":"the-token"}') -> Any:
        """A server on another host that gives tokens."""
        return self.serve(lambda _: self.reply(200, body), context, "127.0.0.2")

    def digest(self, hosts: str = "", direct: str = "yes") -> str:
        """What find_digest.sh prints."""
        return str(self.ask(hosts, direct).text.rstrip("\n"))

    def ask(self, hosts: str = "", direct: str = "yes") -> Result:
        """Runs find_digest.sh."""
        command = script("find_digest", self.registry.url, "sammy/hello", "1.0", "sammy", hosts, direct)
        return self.run(command.reading(f"{PASSWORD}\n"))

    def check(self, hosts: str = "") -> Result:
        """Runs check_registry.sh."""
        where = ("127.0.0.1", self.registry.port, self.registry.url, "r", "sammy", "sammy/hello", self.ca, hosts)
        return self.run(script("check_registry", *where).reading(f"{PASSWORD}\n"))

    @property
    def ca(self) -> str:
        """The file of the registry's CA, which may not exist."""
        return f"/etc/docker/certs.d/127.0.0.1:{self.registry.port}/ca.crt"

    def run(self, command: Any) -> Result:
        """Runs a script on the host."""
        folders = {"/etc/docker/certs.d": self.folder / "certs.d", "/etc/ssl/certs": self.folder / "roots"}
        result: Result = self._local(folders, self.environment).run(command, deadline=60)
        return result

    def secure(self, authority: Authority, address: str) -> ssl.SSLContext:
        """A server's TLS with a certificate of an authority."""
        return tls(authority.issue([], [address]), self.folder)

    def _answer(self, asked: Any) -> Any:
        if asked.path.startswith("/token"):
            return self.reply(200, b'{\n "token" : "the-token"\n}')
        if not asked.headers.get("authorization", "").startswith("Bearer "):
            return self.reply(401, b"", {"WWW-Authenticate": f'Bearer realm="{self.realm}",service="r"'})
        if asked.headers["authorization"] != "Bearer the-token":
            return self.reply(403)
        return self.reply(202 if asked.method == "DELETE" else 200, b"", {"Docker-Content-Digest": DIGEST})

    def sent(self) -> str:
        """All headers that the registry received."""
        return str([one.headers for one in self.registry.asked])


@pytest.fixture
def estate(tmp_path: Path, serve: Serve, reply: Any, local: Local) -> Estate:
    """The registry and the host."""
    return Estate(tmp_path, serve, reply, local)


class TestRealm:
    """The address for tokens that the registry names."""

    def test_of_the_registry_itself(self, estate: Estate) -> None:
        """The registry's own host gets the login."""
        estate.start()
        assert estate.digest() == DIGEST
        assert LOGIN in estate.sent()

    def test_of_an_expected_host(self, estate: Estate) -> None:
        """GitLab's, or Docker Hub's."""
        other = estate.token_server()
        estate.realm = f"{other.url}/jwt/auth"
        estate.start()
        assert estate.digest("gitlab.example.com 127.0.0.2") == DIGEST
        assert other.asked[0].headers["authorization"] == LOGIN
        assert "service=r" in other.asked[0].path

    @one_shell
    @pytest.mark.parametrize(("status", "code"), [(502, NOT_READY), (503, NOT_READY), (500, 0), (401, 0)])
    def test_gitlab_starts(self, estate: Estate, status: int, code: int) -> None:
        """Its 502 is no refused login: the question may be asked again."""
        other = estate.serve(
            lambda _: estate.reply(status, b"<html>GitLab is not responding</html>"), None, "127.0.0.2"
        )
        estate.realm = f"{other.url}/jwt/auth"
        estate.start()
        result = estate.ask("127.0.0.2")
        answer = f"? GitLab is not ready: {estate.realm}" if code else "? the login is refused"
        assert (result.code, result.text) == (code, f"{answer}\n")
        assert result.errors == (f"{estate.realm} answers {status}\n" if code else "")

    @one_shell
    @pytest.mark.parametrize(("status", "code"), [(502, NOT_READY), (503, NOT_READY), (500, 0)])
    def test_the_registry_starts(self, estate: Estate, status: int, code: int) -> None:
        """The reason is printed in both places."""
        estate.registry = estate.serve(lambda _: estate.reply(status))
        result = estate.ask()
        assert (result.code, result.text.startswith(f"? the registry answers HTTP/1.1 {status}")) == (code, True)
        assert result.errors.startswith(f"{estate.registry.url}: the registry answers") == bool(code)

    def test_a_file_is_not_read(self, estate: Estate) -> None:
        """It was read by root and sent to the registry."""
        canary = estate.folder / "canary"
        canary.write_text('{"token":"canary"}')
        estate.realm = f"file://{canary}"
        estate.start()
        assert "which is no address with TLS: it was not asked" in estate.digest()
        result = estate.check()
        assert (result.code, result.errors.splitlines()[0][:5]) == (1, "/v2/:")
        assert "canary" not in estate.sent()

    @one_shell
    @pytest.mark.parametrize(
        "realm",
        [
            "http://127.0.0.2:{port}/token",
            "http://127.0.0.1@127.0.0.2:{port}/token",
            "http://127.0.0.1:80@127.0.0.2:{port}/token",
            "http://127.0.0.1\\@127.0.0.2:{port}/token",
            "http://[127.0.0.1]@127.0.0.2:{port}/token",
            "http://{{127.0.0.1,127.0.0.2}}:{port}/token",
            "http://127.0.0.[1-2]:{port}/token",
            "http:127.0.0.2:{port}/token",
            "HTTP://127.0.0.2:{port}/token",
            "dict://127.0.0.2:{port}/token",
            "gopher://127.0.0.2:{port}/_token",
            "-o/tmp/x http://127.0.0.2:{port}/token",
        ],
    )
    def test_another_server_is_not_asked(self, estate: Estate, realm: str) -> None:
        """Whatever the address looks like: the server and Docker do not get the login."""
        other = estate.token_server()
        estate.realm = realm.format(port=other.port)
        estate.start()
        assert "it was not asked" in estate.digest("127.0.0.3")
        result = estate.check("127.0.0.3")
        assert (result.code, "it was not asked" in result.errors) == (1, True)
        assert "gitlab.external_url" in result.errors
        assert other.asked == []
        assert not (estate.docker.folder / "password").exists()
        assert LOGIN not in estate.sent() or not estate.sent()

    def test_a_registry_with_tls_has_a_token_server_with_tls(self, estate: Estate) -> None:
        """Otherwise the login would be readable on its way."""
        authority, other = Authority(), estate.token_server()
        estate.realm = f"{other.url}/token"
        estate.start(estate.secure(authority, "127.0.0.1"))
        path = estate.folder / f"certs.d/127.0.0.1:{estate.registry.port}/ca.crt"
        path.parent.mkdir()
        path.write_text(authority.certificate)
        assert "which is no address with TLS" in estate.digest("127.0.0.2")
        assert "which is no address with TLS" in estate.check("127.0.0.2").errors
        assert other.asked == []

    def test_a_token_cannot_configure_curl(self, estate: Estate) -> None:
        """A second line of the answer was an option of root's curl, such as a file to write."""
        target = estate.folder / "written-by-root"
        body = (
            f'{{"token":"x"}}\n{{"token":"y"}}\n"token":"\\"\noutput = {target}\n"token":"output = {target}"\n'.encode()
        )
        other = estate.token_server(body=body)
        estate.realm = f"{other.url}/token"
        estate.start()
        answer = estate.digest("127.0.0.2")
        assert list(estate.folder.glob("written*")) == []
        assert answer == "? the login is refused"

    def test_a_redirect_is_not_followed(self, estate: Estate, serve: Serve, reply: Any) -> None:
        """Not at the registry, and not at the token server."""
        other = estate.token_server()
        between = serve(lambda _: reply(307, b"", {"Location": other.url}), None, "127.0.0.3")
        estate.realm = f"{between.url}/token"
        estate.start()
        assert estate.digest("127.0.0.3") == "? the login is refused"
        assert (len(between.asked), other.asked) == (1, [])


class TestCertificates:
    """The registry's CA is trusted besides the system's, as Docker does."""

    @pytest.mark.parametrize("of_system", [True, False])
    def test_both(self, estate: Estate, of_system: bool) -> None:
        """A registry with a private CA, and a GitLab with a certificate of the system's roots or of the same CA."""
        private, public = Authority("private"), Authority("public")
        (estate.folder / "roots/public.pem").write_text(public.certificate)
        subprocess.run(["openssl", "rehash", estate.folder / "roots"], check=True)
        other = estate.token_server(estate.secure(public if of_system else private, "127.0.0.2"))
        estate.realm = f"{other.url}/jwt/auth"
        estate.start(estate.secure(private, "127.0.0.1"))
        path = estate.folder / f"certs.d/127.0.0.1:{estate.registry.port}/ca.crt"
        path.parent.mkdir()
        path.write_text(private.certificate)
        assert estate.digest("127.0.0.2") == DIGEST
        result = estate.check("127.0.0.2")
        assert (result.code, result.errors) == (0, "")


class TestProxy:
    """A proxy in the host's environment."""

    def test_the_own_registry_is_asked_directly(self, estate: Estate, proxy: HttpProxy) -> None:
        """The proxy gets no request, and that for the token is no exception."""
        other = estate.token_server()
        estate.realm = f"{other.url}/jwt/auth"
        estate.start()
        estate.environment |= proxy.environment
        assert estate.digest("127.0.0.2") == DIGEST
        result = estate.check("127.0.0.2")
        assert (result.code, result.errors) == (0, "")
        assert proxy.asked == []

    @one_shell
    def test_others_are_asked_through_it(self, estate: Estate, proxy: HttpProxy) -> None:
        """Docker Hub, from a network without another way."""
        estate.start()
        estate.environment |= proxy.environment
        assert estate.digest(direct="no").startswith("? ")
        assert proxy.asked[0].startswith(f"HEAD http://127.0.0.1:{estate.registry.port}/v2/")
