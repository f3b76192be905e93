"""Where the API client sends its token and what it trusts, against real servers on loopback."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from provision.errors import ApiFailed
from provision.gitlab.api import Api
from provision.gitlab.session import days_left, session_for
from provision.secret import Secret
from provision.url import Url
from provision_lab.certificates import Authority
from tests.support.http_proxy import HttpProxy
from tests.support.web import tls

Serve = Callable[..., Any]
TOKEN = Secret("glpat-the-api-token")
VARIABLES = (
    *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without settings of this machine."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


class TestRedirects:
    """A redirect is followed only for GET, and only to the same scheme, host and port."""

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    @pytest.mark.parametrize("method", ["get", "post", "put", "delete"])
    def test_another_server_gets_nothing(self, serve: Serve, reply: Any, status: int, method: str) -> None:
        """It gets no token and no data. The message names the other server, without the query."""
        other = serve(lambda _: reply(200, {"id": 1}))
        web = serve(lambda _: reply(status, {}, {"Location": f"{other.url}/somewhere?code=1"}))
        send = getattr(Api(Url.parse(web.url), TOKEN), method)
        with pytest.raises(ApiFailed) as caught:
            send("/projects/1", *([{"value": "canary"}] if method in ("post", "put") else []))
        assert other.asked == []
        path = "/api/v4/projects/1"
        assert caught.value.text == (
            f"GitLab at {web.url} redirects {method.upper()} {path} to {other.url}/somewhere, another server: "
            "the token was not sent there"
        )
        assert "external_url" in caught.value.hint

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    @pytest.mark.parametrize("method", ["post", "put", "delete"])
    def test_data_is_not_sent_again(self, serve: Serve, reply: Any, status: int, method: str) -> None:
        """Not to another path of the same server either."""
        web = serve(lambda _: reply(status, {}, {"Location": "/elsewhere"}))
        send = getattr(Api(Url.parse(web.url), TOKEN), method)
        with pytest.raises(ApiFailed, match=f"to {web.url}/elsewhere: only GET follows a redirect"):
            send("/projects/1", *([{"value": "canary"}] if method in ("post", "put") else []))
        assert len(web.asked) == 1

    def test_get_follows_on_the_same_server(self, serve: Serve, reply: Any) -> None:
        """GitLab redirects the old path of a renamed project."""
        web = serve(
            lambda asked: (
                reply(200, {"id": 3})
                if asked.path.endswith("/3")
                else reply(301, {}, {"Location": f"{web.url}/api/v4/projects/3"})
            )
        )
        assert Api(Url.parse(web.url), TOKEN).get("/projects/old") == {"id": 3}
        assert [one.headers["private-token"] for one in web.asked] == ["glpat-the-api-token"] * 2

    @pytest.mark.parametrize("target", ["http://[", "file:///etc/passwd", "//{other}/x", "https://{own}/x"])
    def test_other_schemes_and_odd_targets(self, serve: Serve, reply: Any, target: str) -> None:
        """They count as another server."""
        other = serve(lambda _: reply(200, {}))
        web = serve(
            lambda _: reply(
                302, {}, {"Location": target.format(other=f"127.0.0.1:{other.port}", own=f"127.0.0.1:{web.port}")}
            )
        )
        with pytest.raises(ApiFailed):
            Api(Url.parse(web.url), TOKEN).get("/metadata")
        assert (len(web.asked), len(other.asked)) == (1, 0)

    def test_a_further_page_is_asked_at_our_server(self, serve: Serve, reply: Any) -> None:
        """The server names the address of the next page; the token does not follow it."""
        other = serve(lambda _: reply(200, [{"id": "stolen"}]))

        def answer(asked: Any) -> Any:
            page = int(parse_qs(urlsplit(asked.path).query).get("page", ["1"])[0])
            link = f'<{other.url}/api/v4/runners?page={page + 1}>; rel="next"'
            return reply(200, [{"id": page}], {"Link": link} if page < 3 else {})

        web = serve(answer)
        assert [one["id"] for one in Api(Url.parse(web.url), TOKEN).get_list("/runners", {})] == [1, 2, 3]
        assert other.asked == []


class TestCertificates:
    """The inventory's CA is trusted besides the system's certificates."""

    @pytest.fixture
    def system(self) -> Authority:
        """The authority that the environment trusts."""
        return Authority("system")

    @pytest.fixture
    def private(self) -> Authority:
        """The authority that the inventory names."""
        return Authority("private")

    @pytest.fixture
    def secure(self, serve: Serve, reply: Any, tmp_path: Path) -> Callable[[Authority], Url]:
        """Starts a server with a certificate of an authority; its URL."""

        def start(authority: Authority) -> Url:
            context = tls(authority.issue(["localhost"], ["127.0.0.1"]), tmp_path)
            return Url.parse(serve(lambda _: reply(200, {"ok": True}), context).url)

        return start

    @pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"])
    def test_both_are_trusted(
        self,
        system: Authority,
        private: Authority,
        secure: Callable[[Authority], Url],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        variable: str,
    ) -> None:
        """A GitLab with a public certificate works when the registry has a private CA, and the other way round."""
        ca, folder = tmp_path / "ca.pem", tmp_path / "roots"
        folder.mkdir()
        ca.write_text(private.certificate)
        roots = folder / "system.pem"
        roots.write_text(system.certificate)
        subprocess.run(["openssl", "rehash", folder], check=True)
        monkeypatch.setenv(variable, str(folder if variable == "SSL_CERT_DIR" else roots))
        for authority in (system, private):
            assert Api(secure(authority), TOKEN, ca).get("/metadata") == {"ok": True}
        assert Api(secure(system), TOKEN).get("/metadata") == {"ok": True}
        with pytest.raises(ApiFailed, match="certificate verify failed"):
            Api(secure(private), TOKEN).get("/metadata")

    def test_neither_is_trusted_without_being_named(
        self, private: Authority, secure: Callable[[Authority], Url]
    ) -> None:
        """A certificate that nothing vouches for."""
        with pytest.raises(ApiFailed, match="certificate verify failed"):
            Api(secure(private), TOKEN).get("/metadata")

    def test_the_roots_of_the_system_count(self) -> None:
        """Those of OpenSSL and its configuration, not a list that a Python package brings."""
        from provision.gitlab.session import _trust

        context = _trust(None, "", "", "")
        assert type(context).__module__.startswith("truststore")

    @pytest.mark.parametrize("variable", ["", "REQUESTS_CA_BUNDLE"])
    def test_a_file_without_certificates(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
        """The message names the setting and the file."""
        empty = tmp_path / "empty.pem"
        empty.write_text("")
        if variable:
            monkeypatch.setenv(variable, str(empty))
        with pytest.raises(ApiFailed, match=rf"^{variable or 'registry.certificate.ca'}: {empty}: "):
            Api(Url.parse("https://127.0.0.1:9"), TOKEN, None if variable else empty).get("/metadata")


class TestProxies:
    """HTTPS_PROXY and NO_PROXY are honoured; no proxy reads the token."""

    @pytest.fixture
    def secure(self, serve: Serve, reply: Any, tmp_path: Path) -> tuple[Any, Path]:
        """A server with TLS, and the file of its CA."""
        authority = Authority()
        ca = tmp_path / "ca.pem"
        ca.write_text(authority.certificate)
        context = tls(authority.issue(["localhost"], ["127.0.0.1"]), tmp_path)
        return serve(lambda _: reply(200, {"ok": True}), context), ca

    @pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
    def test_https_goes_through_a_tunnel(
        self, proxy: HttpProxy, secure: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        """The proxy sees the host and the port."""
        web, ca = secure
        monkeypatch.setenv(name, proxy.url)
        assert Api(Url.parse(web.url), TOKEN, ca).get("/metadata") == {"ok": True}
        assert proxy.asked == [f"CONNECT 127.0.0.1:{web.port} HTTP/1.0"] or proxy.asked == [
            f"CONNECT 127.0.0.1:{web.port} HTTP/1.1"
        ]
        assert b"glpat" not in proxy.received
        assert web.asked[0].headers["private-token"] == "glpat-the-api-token"

    @pytest.mark.parametrize("through", [False, True])
    def test_the_days_of_the_certificate(
        self, proxy: HttpProxy, secure: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch, through: bool
    ) -> None:
        """They are those of the server, also through a proxy; it is valid for 90 days."""
        web, ca = secure
        if through:
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with session_for(Url.parse(web.url), ca) as session:
            assert days_left(session.get(f"{web.url}/", stream=True)) == 89
        assert len(proxy.asked) == int(through)

    def test_no_proxy(self, proxy: HttpProxy, secure: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch) -> None:
        """The exceptions of the environment."""
        web, ca = secure
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "example.com,127.0.0.0/8")
        assert Api(Url.parse(web.url), TOKEN, ca).get("/metadata") == {"ok": True}
        assert proxy.asked == []

    def test_plain_http_goes_to_the_server(
        self, proxy: HttpProxy, serve: Serve, reply: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A proxy could read the token."""
        for name, value in proxy.environment.items():
            monkeypatch.setenv(name, value)
        web = serve(lambda _: reply(200, {"ok": True}))
        assert Api(Url.parse(web.url), TOKEN).get("/metadata") == {"ok": True}
        assert (proxy.asked, len(web.asked)) == ([], 1)

    def test_a_name_that_is_not_resolved_here(
        self, proxy: HttpProxy, secure: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The request goes to the host of the inventory: the proxy might resolve the name to another server."""
        web, ca = secure
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        url = Url.parse(f"https://gitlab.internal.invalid:{web.port}")
        with pytest.raises(ApiFailed, match="doesn't match"):  # the server's certificate is for localhost
            Api(url, TOKEN, ca, "127.0.0.1").get("/metadata")
        assert proxy.asked == []

    def test_a_proxy_that_refuses(self, secure: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch) -> None:
        """The message does not contain the proxy's password."""
        web, ca = secure
        monkeypatch.setenv("HTTPS_PROXY", "http://user:proxy-password@127.0.0.1:9")
        with pytest.raises(ApiFailed, match="cannot be reached") as caught:
            Api(Url.parse(web.url), TOKEN, ca).get("/metadata")
        assert "proxy-password" not in str(caught.value)
