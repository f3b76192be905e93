"""The HTTP session of the API client: one server, its certificates, redirects and proxies.

A module of its own, because it imports requests: a run that does not ask GitLab must not wait for that.
"""

from __future__ import annotations

import datetime
import os
import ssl
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin, urlsplit, urlunsplit

from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies

from provision.errors import ApiFailed
from provision.url import Url, bracketed

_BUNDLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")  # in the order of requests


def session_for(url: Url, ca: Path | None, address: str = "") -> Session:
    """A session for requests to the origin of `url`, and to no other server.

    ca       a file with further CA certificates, or None
    address  to connect to instead of the URL's host; "" for the host itself, or the proxy of the environment

    Raises ApiFailed when a file with certificates cannot be used.
    """
    session = Session()
    # requests would send a login from ~/.netrc instead of the token. What else it reads from the environment is below.
    session.trust_env = False
    # A request without TLS never goes through a proxy: the proxy could read the token.
    if url.tls and not address:
        session.proxies.update(get_environ_proxies(url.origin))
    adapter = _OneServer(url, ca, address)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    session.hooks["response"].append(lambda answer, **_: _refuse_redirect(url, answer))
    return session


def days_left(answer: Response) -> int | None:
    """The days until the certificate of the server that gave this answer expires; None without TLS.

    The request must be sent with `stream=True`, and its body not read yet: until then, the answer keeps its connection.
    """
    from cryptography import x509

    sock = getattr(answer.raw.connection, "sock", None)
    if not isinstance(sock, ssl.SSLSocket):
        return None
    certificate = x509.load_der_x509_certificate(sock.getpeercert(binary_form=True) or b"")
    return (certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)).days


class _OneServer(HTTPAdapter):
    """Connects to the server of `url` only. With an `address` it connects to that, as an entry in /etc/hosts would have it.

    The certificate and the Host header are for the URL's host in both cases.
    """

    def __init__(self, url: Url, ca: Path | None, address: str) -> None:
        self._url, self._address = url, bracketed(address)
        self._tls: dict[str, Any] = {"ssl_context": _trust(ca, *_environment())} if url.tls else {}
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """Makes connections that trust our certificates and check the name instead of the address."""
        options |= self._tls
        if self._address:
            options |= {"server_hostname": self._url.host, "assert_hostname": self._url.host}
        super().init_poolmanager(*arguments, **options)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """Makes connections through a proxy that trust our certificates. The proxy sees the host's name, and no request."""
        return super().proxy_manager_for(proxy, **options, **self._tls)

    def cert_verify(self, conn: Any, *_: Any, **__: Any) -> None:
        """Requires a valid certificate. It does not add the roots of certifi, as requests itself does."""
        conn.cert_reqs = "CERT_REQUIRED"

    def send(self, request: PreparedRequest, *arguments: Any, **options: Any) -> Response:
        """Sends a request to the server, and no other."""
        target = request.url or ""
        if not _is_at(target, self._url):
            raise ApiFailed(f"GitLab at {self._url} named {_printable(target)}, another server: it was not contacted")
        if self._address:
            parts = urlsplit(target)
            port = f":{parts.port}" if parts.port else ""
            request.headers["Host"] = str(parts.netloc)
            request.url = urlunsplit(parts._replace(netloc=f"{self._address}{port}"))
        return super().send(request, *arguments, **options)


def _refuse_redirect(url: Url, answer: Response) -> None:
    """Raises ApiFailed for a redirect that would send the token to another server, or a body once more."""
    if not answer.is_redirect:
        return
    method = answer.request.method or ""
    path = urlsplit(answer.request.url or "").path
    try:
        target = urljoin(f"{url.origin}{path}", answer.headers["location"])
    except ValueError:  # it is not a URL
        target = answer.headers["location"]
    if method in ("GET", "HEAD") and _is_at(target, url):
        return
    where = f"GitLab at {url} redirects {method} {path} to {_printable(target)}"
    if _is_at(target, url):
        raise ApiFailed(
            f"{where}: only GET follows a redirect",
            hint="check gitlab.external_url, and the paths of projects and groups: they may have been renamed",
            status=answer.status_code,
        )
    raise ApiFailed(
        f"{where}, another server: the token was not sent there",
        hint="give gitlab.external_url (or the runner's url) the scheme, host and port that GitLab itself uses",
        status=answer.status_code,
    )


def _is_at(target: str, url: Url) -> bool:
    try:
        return Url.parse(target, request=True).origin == url.origin
    except ValueError:
        return False


def _printable(target: str) -> str:
    """A URL of a server for a message: without its query, which may be secret, and without control characters."""
    text = target.partition("?")[0].partition("#")[0]
    return "".join(one if one.isprintable() else "?" for one in text)[:200]


def _environment() -> tuple[str, ...]:
    """The settings of the environment about trusted certificates, which other programs follow too."""
    bundle = next((value for name in _BUNDLES if (value := os.environ.get(name))), "")
    return bundle, os.environ.get("SSL_CERT_FILE", ""), os.environ.get("SSL_CERT_DIR", "")


@cache
def _trust(ca: Path | None, bundle: str, file: str, folder: str) -> ssl.SSLContext:
    """The trusted certificates: those of REQUESTS_CA_BUNDLE, SSL_CERT_FILE or the system, and those in `ca`.

    One context for all requests, because reading a system's certificates takes 10 to 30 ms.
    """
    import truststore

    # OpenSSL reads SSL_CERT_FILE and SSL_CERT_DIR; the key chain of macOS and the store of Windows do not.
    own = bool(bundle or file or folder)
    make: type[ssl.SSLContext] = ssl.SSLContext if own else truststore.SSLContext
    context = make(ssl.PROTOCOL_TLS_CLIENT)
    if bundle:
        _add(context, Path(bundle), "REQUESTS_CA_BUNDLE")
    elif own:
        context.set_default_verify_paths()
    if ca is not None:
        _add(context, ca, "registry.certificate.ca")
    return context


def _add(context: ssl.SSLContext, path: Path, name: str) -> None:
    try:
        if path.is_dir():
            context.load_verify_locations(capath=path)
        else:
            context.load_verify_locations(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise ApiFailed(f"{name}: {path}: {error}", hint="name a file with certificates in PEM format") from error
