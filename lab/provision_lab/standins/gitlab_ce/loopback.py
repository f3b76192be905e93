"""The stand-in's API in this process, on a loopback port: for tests of clients of GitLab."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from provision_lab.standins.gitlab_ce.host.api.server import make_server
from provision_lab.standins.gitlab_ce.host.layout import Paths, write_atomically
from provision_lab.standins.gitlab_ce.host.system import ensure_token_keys

ISSUER = "omnibus-gitlab-issuer"


@contextmanager
def serve(folder: Path, seed: dict[str, Any], *, version: str = "19.3.0") -> Iterator[str]:
    """Yields the API's address, such as `http://127.0.0.1:40001`. `folder` is `/` of the GitLab host.

    `seed` has api_token, users, project and more, see host/api/store.py. The switches are read from
    `folder/etc/gitlab-standin`, see host/layout.py. The database is in `folder` too.
    """
    paths = Paths(folder)
    paths.switches.mkdir(parents=True, exist_ok=True)
    (paths.switches / "seed.json").write_text(json.dumps(seed))
    for path, text in zip((paths.registry_cert, paths.registry_key), _pair(), strict=True):
        write_atomically(path, text, 0o600)
    settings = {
        "version": version,
        "external_url": "http://127.0.0.1",
        "registry_host": "127.0.0.1:5555",
        "registry_address": "127.0.0.1:5000",
        "issuer": ISSUER,
        "signing_key": str(paths.registry_key),
        "monitoring_whitelist": ["127.0.0.0/8", "::1/128"],
    }
    paths.api_settings.parent.mkdir(parents=True, exist_ok=True)
    paths.api_settings.write_text(json.dumps(settings))
    server = make_server(paths, ("127.0.0.1", 0))
    address = f"http://127.0.0.1:{server.server_address[1]}"
    server.application.settings["external_url"] = address
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@cache
def _pair() -> tuple[str, str]:
    """One certificate and key for all instances of this process: creating them takes a tenth of a second."""
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = Path(folder) / "crt", Path(folder) / "key"
        ensure_token_keys(certificate, key)
        return certificate.read_text(), key.read_text()
