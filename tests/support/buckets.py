"""S3 on loopback for tests: moto behind a check of every signature, with the refusals that a test wants."""

from __future__ import annotations

import re
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server
from werkzeug.test import Client

from provision_lab.services import SignatureCheck

ACCESS_KEY, SECRET_KEY = "AKIATESTACCESSKEY", "the-test-secret-key"
Refusal = tuple[int, str]  # status and error code, or the whole answer
Rule = Callable[[dict[str, Any]], Refusal | None]

_ERROR = "<?xml version='1.0' encoding='UTF-8'?>\n<Error><Code>{}</Code><Message>refused by the test</Message></Error>"
_KEPT = (
    "<?xml version='1.0' encoding='UTF-8'?>\n<DeleteResult><Error><Key>x</Key><Code>AccessDenied</Code>"
    "<Message>Access Denied</Message></Error></DeleteResult>"
)


class Handler(MotoRequestHandler):
    """moto's own, which keeps connections open and logs nothing."""

    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:
        """Logs nothing."""


class Bucket:
    """A running S3 with the bucket `registry`. `rule` may refuse a request; `asked` has their operations."""

    def __init__(self, rule: Rule, address: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> None:
        self._storage = DomainDispatcherApplication(create_backend_app)
        self._inside = SignatureCheck(self._answer, ACCESS_KEY, SECRET_KEY)
        self.rule = rule
        self.asked: list[str] = []
        self.server = make_server(address, 0, self._inside, threaded=True, request_handler=Handler, ssl_context=context)
        self.url = f"http{'s' * bool(context)}://{address}:{self.server.server_port}"
        Client(self._storage).post("/moto-api/reset", base_url=self.url)
        assert Client(self._storage).put("/registry", base_url=self.url).status_code == 200

    def objects(self) -> list[str]:
        """The names of the bucket's objects."""
        text = Client(self._storage).get("/registry?list-type=2", base_url=self.url).text
        return re.findall(r"<Key>(.*?)</Key>", text)

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        self.asked.append(operation(environ))
        # All of it, for the rule too: otherwise the connection is reset while the client still sends.
        environ["wsgi.input"] = BytesIO(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
        refused = self.rule(environ)
        if refused is None:
            return self._storage(environ, start_response)  # type: ignore[no-any-return]
        status, code = refused
        body = (code if "<" in code else _KEPT if status == 200 else _ERROR.format(code)).encode()
        headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
        start_response(f"{status} Refused", headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def operation(environ: dict[str, Any]) -> str:
    """The name of the request's operation in S3's API."""
    method = environ["REQUEST_METHOD"]
    query = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    is_object = environ["PATH_INFO"].strip("/").count("/") > 0
    match method:
        case "POST" if "delete" in query:
            return "DeleteObjects"
        case "POST":
            return "CreateMultipartUpload" if "uploads" in query else "CompleteMultipartUpload"
        case "PUT" if "partNumber" in query:
            return "UploadPart"
        case "PUT":
            return "CopyObject" if environ.get("HTTP_X_AMZ_COPY_SOURCE") else "PutObject"
        case "DELETE":
            return "AbortMultipartUpload" if "uploadId" in query else "DeleteObject"
        case "GET" if not is_object:
            return "ListMultipartUploads" if "uploads" in query else "ListObjects"
        case "GET" if "uploadId" in query:
            return "ListParts"
    return f"{method.capitalize()}Object"


def denying(*operations: str) -> Rule:
    """Refuses these operations as AWS does without a permission: a deletion of several answers 200, with an error for each."""

    def rule(environ: dict[str, Any]) -> Refusal | None:
        name = operation(environ)
        if name not in operations:
            return None
        return (200, "OK") if name == "DeleteObjects" else (403, "AccessDenied")

    return rule


@contextmanager
def bucket(rule: Rule | None = None, **options: Any) -> Iterator[Bucket]:
    """S3 on loopback, or at another `address`, until the end of the block."""
    running = Bucket(rule or denying(), **options)
    thread = threading.Thread(target=running.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield running
    running.server.shutdown()
    thread.join()
    running.server.server_close()
