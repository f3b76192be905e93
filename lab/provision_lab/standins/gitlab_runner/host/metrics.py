"""The metrics server: its address is read at the start only, which is why it alone needs a restart."""

from __future__ import annotations

import http.server
import threading
from typing import TYPE_CHECKING

from . import logs
from .version import VERSION

if TYPE_CHECKING:
    from .daemon import Daemon


def serve(address: str, daemon: Daemon) -> None:
    """Answers GET /metrics at `host:port`, or says that nobody does."""
    if not address:
        logs.info("listen_address not defined, metrics & debug endpoints disabled")
        return
    host, _, port = address.rpartition(":")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = f'gitlab_runner_version_info{{version="{VERSION}"}} 1\n'
            text += f"gitlab_runner_concurrent {daemon.data['concurrent']}\n"
            text += f"gitlab_runner_jobs {len(daemon.jobs.running)}\n"
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Says nothing of requests."""

    try:
        server = http.server.ThreadingHTTPServer((host.strip("[]") or "0.0.0.0", int(port or 9252)), Handler)
    except (OSError, ValueError):
        logs.fatal("Failed to create listener for metrics server")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    logs.info("Metrics server listening", address=address)
