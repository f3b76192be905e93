"""The services beside a lab's hosts, each a process of its own:

    python -m provision_lab.services apt ADDRESS PORT REPOSITORY LAB-FOLDER    the apt repository, over HTTP; Docker Hub, over TLS
    python -m provision_lab.services s3 ADDRESS PORT BUCKET LAB-FOLDER         S3, with an empty bucket
    python -m provision_lab.services keeper LAB-FOLDER                         takes the lab down when its owner ends

The last argument shows in the process list which lab the service belongs to.

S3 is moto, in memory. In front of it, the signature of every request is checked against the key pair in the lab's
folder, as real S3 does, so that wrong keys are refused. Source: the AWS General Reference, "Create a signed AWS API
request".
"""

from __future__ import annotations

import hashlib
import hmac
import shutil
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterable
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote

from provision.url import bracketed
from provision_lab.state import HUB_PORT

if TYPE_CHECKING:
    from provision_lab.hub import Reply

_REFUSAL = '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{}</Code><Message>{}</Message></Error>'
_ALGORITHM = "AWS4-HMAC-SHA256"


class _RepositoryHandler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # apt reuses its connection
    timeout = 60

    def log_message(self, format: str, *args: object) -> None:
        print(self.address_string(), format % args, flush=True)


class _HubHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        """Answers with the body."""
        reply = self._answer()
        if reply.file is None:
            self.wfile.write(reply.body)
            return
        with reply.file.open("rb") as opened:
            shutil.copyfileobj(opened, self.wfile, 1 << 20)

    def do_HEAD(self) -> None:
        """Answers without the body."""
        self._answer()

    def _answer(self) -> Reply:
        from provision_lab.hub import answer  # few labs pull images

        reply = answer(self.path)
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.kind)
        self.send_header("Content-Length", str(reply.file.stat().st_size if reply.file else len(reply.body)))
        if reply.digest:
            self.send_header("Docker-Content-Digest", reply.digest)
        self.end_headers()
        return reply

    def log_message(self, format: str, *args: object) -> None:
        print("Docker Hub:", self.address_string(), format % args, flush=True)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: Callable[..., BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)


class _TlsServer(_Server):
    """Each connection does its handshake in its own thread, at its first request."""

    def __init__(self, address: tuple[str, int], handler: Callable[..., BaseHTTPRequestHandler], folder: Path) -> None:
        super().__init__(address, handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "hub.pem", folder / "hub.key")
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)


def serve_apt(address: str, port: str, repository: str, folder: str) -> None:
    """Serves the repository and Docker Hub until the process is ended."""
    hub = _TlsServer((address, HUB_PORT), _HubHandler, Path(folder))
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    server = _Server((address, int(port)), partial(_RepositoryHandler, directory=repository))
    server.serve_forever()


def serve_s3(address: str, port: str, bucket: str, folder: str) -> None:
    """Serves S3 until the process is ended.

    moto is imported with the first request: that takes 0.6 s of processor time, and most labs of tests never use S3.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, int(port)), family=family, backlog=128) as listener:
        connection, client = _first_request(listener)
        server = _s3_server(listener, bucket, folder)
        server.process_request(connection, client)
        server.serve_forever()


def _first_request(listener: socket.socket) -> tuple[socket.socket, Any]:
    """The first connection that is not closed at once, as that of a check whether the port answers."""
    while True:
        connection, client = listener.accept()
        connection.settimeout(1)
        try:
            closed = not connection.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            closed = False
        except ConnectionError:
            closed = True
        if not closed:
            connection.settimeout(None)
            return connection, client
        connection.close()


def _s3_server(listener: socket.socket, bucket: str, folder: str) -> Any:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server
    from werkzeug.test import Client

    class Handler(MotoRequestHandler):
        protocol_version = "HTTP/1.1"

    storage = DomainDispatcherApplication(create_backend_app)
    address, port = listener.getsockname()[:2]
    created = Client(storage).put(f"/{bucket}", base_url=f"http://{bracketed(address)}:{port}")
    if created.status_code != 200:
        raise SystemExit(f"cannot create the bucket {bucket}: {created.status}: {created.text}")
    access_key, secret_key = (Path(folder, name).read_text() for name in ("s3_access_key", "s3_secret_key"))
    application = SignatureCheck(storage, access_key, secret_key)
    return make_server(address, port, application, threaded=True, request_handler=Handler, fd=listener.fileno())


def keep(folder: str) -> None:
    """Waits for the owner's end, then takes the lab down.

    Standard input is a pipe whose other end only the owner has. The end of file comes when the owner ends, also by
    kill -9.
    """
    sys.stdin.buffer.read()
    from provision_lab.lab import Lab

    if lab := Lab.find(Path(folder).name):
        lab.down()


class SignatureCheck:
    """A WSGI application in front of `inside`: it answers 403 unless a request is signed with the pair's secret."""

    def __init__(self, inside: Callable[..., Iterable[bytes]], access_key: str, secret_key: str) -> None:
        self._inside, self._pair = inside, (access_key, secret_key)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answers with S3's own error, or passes the request on."""
        try:
            verify(environ, *self._pair)
        except BadSignature as refused:
            body = _REFUSAL.format(refused.code, refused).encode()
            start_response(refused.status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
        return self._inside(environ, start_response)


class BadSignature(Exception):
    """The request is not signed by the holder of the secret key; `code` is S3's error code."""

    def __init__(self, code: str, text: str, status: str = "403 Forbidden") -> None:
        super().__init__(text)
        self.code, self.status = code, status


def verify(environ: dict[str, Any], access_key: str, secret_key: str) -> None:
    """Raises BadSignature unless the WSGI request is signed with this pair, in its header or its query."""
    query = parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    fields = {"Date": environ.get("HTTP_X_AMZ_DATE", "")} | _fields(environ.get("HTTP_AUTHORIZATION", ""), dict(query))
    credential, _, scope = fields["Credential"].partition("/")
    if credential != access_key:
        raise BadSignature("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
    names = fields["SignedHeaders"].split(";")
    headers = "".join(f"{name}:{_header(environ, name)}\n" for name in names)
    path = quote(unquote(environ.get("REQUEST_URI", environ.get("RAW_URI", "/")).partition("?")[0]), safe="/-_.~")
    signed = sorted((_escape(k), _escape(v)) for k, v in query if k != "X-Amz-Signature")
    pairs = "&".join(f"{key}={value}" for key, value in signed)
    payload = _payload(environ)
    request = "\n".join((environ["REQUEST_METHOD"], path, pairs, headers, ";".join(names), payload))
    hashed = hashlib.sha256(request.encode()).hexdigest()
    text = "\n".join((_ALGORITHM, fields["Date"], scope, hashed))
    key = f"AWS4{secret_key}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.digest(key, part.encode(), "sha256")
    if not hmac.compare_digest(key.hex(), fields["Signature"]):
        text = "The request signature we calculated does not match the signature you provided. Check your key and signing method."
        raise BadSignature("SignatureDoesNotMatch", text)


def _payload(environ: dict[str, Any]) -> str:
    """The signed request's word for its body. S3 requires the header unless the query holds the signature."""
    given = environ.get("HTTP_X_AMZ_CONTENT_SHA256")
    if given is None and environ.get("HTTP_AUTHORIZATION"):
        text = "Missing required header for this request: x-amz-content-sha256"
        raise BadSignature("InvalidRequest", text, "400 Bad Request")
    return given or "UNSIGNED-PAYLOAD"


def _fields(authorization: str, query: dict[str, str]) -> dict[str, str]:
    if "X-Amz-Signature" in query:
        names = ("Credential", "SignedHeaders", "Signature", "Date")
        return {name: query.get(f"X-Amz-{name}", "") for name in names}
    algorithm, _, rest = authorization.partition(" ")
    fields = dict(part.strip().split("=", 1) for part in rest.split(",") if "=" in part)
    if algorithm != _ALGORITHM or not fields.keys() >= {"Credential", "SignedHeaders", "Signature"}:
        raise BadSignature("AccessDenied", "Access Denied")
    return fields


def _header(environ: dict[str, Any], name: str) -> str:
    key = name.upper().replace("-", "_")
    value = environ.get(key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}", "")
    return " ".join(str(value).split())


def _escape(text: str) -> str:
    return quote(text, safe="-_.~")


def main(service: str, *arguments: str) -> None:
    """Runs one service."""
    match service, arguments:
        case "apt", (address, port, repository, folder):
            serve_apt(address, port, repository, folder)
        case "s3", (address, port, bucket, folder):
            serve_s3(address, port, bucket, folder)
        case "keeper", (folder,):
            keep(folder)
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:])
