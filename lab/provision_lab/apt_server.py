"""Serves the lab's apt repository over HTTP:  python -m provision_lab.apt_server ADDRESS PORT REPOSITORY LAB-FOLDER

The last argument is not read: it says in the process list whose server this is.
"""

from __future__ import annotations

import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # apt keeps its connection
    timeout = 60

    def log_message(self, format: str, *args: object) -> None:
        print(self.address_string(), format % args, flush=True)


def main(address: str, port: str, repository: str) -> None:
    """Serves until it is ended."""
    server = ThreadingHTTPServer((address, int(port)), partial(_Handler, directory=repository))
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:4])
