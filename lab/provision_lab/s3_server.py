"""S3 for the lab:  python -m provision_lab.s3_server ADDRESS PORT BUCKET LAB-FOLDER

moto does the storing, in memory; in front of it every request's signature is checked against the one
key pair in the lab's folder, as real S3 does, so that wrong keys are refused. The bucket is there
from the start.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from provision_lab.signature import BadSignature, verify

_REFUSAL = '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{}</Code><Message>{}</Message></Error>'


class Gate:
    """WSGI in front of `inside`: only requests signed with the pair's secret pass."""

    def __init__(self, inside: Callable[..., Iterable[bytes]], access_key: str, secret_key: str) -> None:
        self._inside, self._pair = inside, (access_key, secret_key)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answers 403 with S3's own error, or hands on."""
        try:
            verify(environ, *self._pair)
        except BadSignature as refused:
            body = _REFUSAL.format(refused.code, refused).encode()
            start_response(refused.status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
        return self._inside(environ, start_response)


def main(address: str, port: str, bucket: str, folder: str) -> None:
    """Serves until it is ended."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server
    from werkzeug.test import Client

    class Handler(MotoRequestHandler):
        protocol_version = "HTTP/1.1"

    storage = DomainDispatcherApplication(create_backend_app)
    made = Client(storage).put(f"/{bucket}", base_url=f"http://{address}:{port}")
    if made.status_code != 200:
        raise SystemExit(f"the bucket {bucket} could not be made: {made.status}: {made.text}")
    pair = (Path(folder, name).read_text() for name in ("s3_access_key", "s3_secret_key"))
    make_server(address, int(port), Gate(storage, *pair), threaded=True, request_handler=Handler).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:5])
