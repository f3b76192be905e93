"""A registry with a metadata database: in front of the registry that runs here, which has none.

GitLab's registry keeps in PostgreSQL which repositories, manifests and tags exist, and which blobs belong to a repository.
Its storage has the blobs alone. Here the same is in a file of SQLite that stays when the bucket changes; the registry behind
checks every token, and stores blobs. Source: GitLab's container registry, registry/handlers (manifests.go, blob.go,
blobupload.go, catalog.go):

- manifests, tags and the catalog are read from the database alone;
- a blob is served if the database links it to the repository and the storage has it;
- a blob of another repository is mounted if the database has it there: the storage is not asked;
- a manifest is taken if the database has its layers. Only the image's configuration is read from the storage.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

_NAME = r"(?P<name>[a-z0-9][a-z0-9._/-]*)"
_ROUTES = {
    "catalog": re.compile(r"/v2/_catalog"),
    "tags": re.compile(rf"/v2/{_NAME}/tags/list"),
    "uploads": re.compile(rf"/v2/{_NAME}/blobs/uploads/(?P<reference>.*)"),
    "blobs": re.compile(rf"/v2/{_NAME}/blobs/(?P<reference>sha256:[0-9a-f]{{64}})"),
    "manifests": re.compile(rf"/v2/{_NAME}/manifests/(?P<reference>[^/]+)"),
}
_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "content-length"}
_LARGEST_MANIFEST = 4 << 20
_PIECE = 1 << 16
_TABLES = """
create table if not exists links (repository text, digest text, primary key (repository, digest));
create table if not exists manifests (repository text, digest text, type text, payload blob, primary key (repository, digest));
create table if not exists tags (repository text, name text, digest text, primary key (repository, name));
"""


class Database:
    """What the registry knows besides its storage."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._lock = threading.Lock()
        self._connection.executescript(_TABLES)

    def ask(self, query: str, *values: object) -> list[Any]:
        """The rows of a query, or of a change."""
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def has(self, table: str, repository: str, digest: str) -> bool:
        """Whether a repository has this link or manifest."""
        return bool(self.ask(f"select 1 from {table} where repository = ? and digest = ?", repository, digest))

    def link(self, repository: str, digest: str) -> None:
        """A blob belongs to the repository."""
        self.ask("insert or ignore into links values (?, ?)", repository, digest)


class Unix(http.client.HTTPConnection):
    """A connection to the registry behind."""

    def __init__(self, path: str) -> None:
        super().__init__("registry", timeout=300)
        self._path = path

    def connect(self) -> None:
        """Connects to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Handler(BaseHTTPRequestHandler):
    """Answers one client. `database` and `behind`, the socket of the registry behind, are set by `make_server`."""

    protocol_version = "HTTP/1.1"
    database: Database
    behind: str

    def log_message(self, *_: object) -> None:
        """Logs nothing: the registry behind has the requests."""

    def handle_any(self) -> None:
        """Chooses by the address."""
        path, _, query = self.path.partition("?")
        for kind, pattern in _ROUTES.items():
            if found := pattern.fullmatch(path):
                getattr(self, f"_{kind}")(**found.groupdict(), query=parse_qs(query))
                return
        answer, connection = self._forward()
        more = {"Gitlab-Container-Registry-Database-Enabled": "true"} if (path, answer.status) == ("/v2/", 200) else {}
        self._relay(answer, connection, **more)

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = handle_any

    def _body(self) -> Iterator[bytes]:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                left = size
                while left:
                    piece = self.rfile.read(min(left, _PIECE))
                    left -= len(piece)
                    yield piece
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            piece = self.rfile.read(min(left, _PIECE))
            if not piece:
                raise ConnectionError("the client went away")
            left -= len(piece)
            yield piece

    def _forward(self, body: bytes | None = None) -> tuple[http.client.HTTPResponse, http.client.HTTPConnection]:
        connection = Unix(self.behind)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        length = self.headers.get("Content-Length")
        if length is not None:
            headers["Content-Length"] = length
        chunked = "chunked" in self.headers.get("Transfer-Encoding", "")
        if chunked:
            headers["Transfer-Encoding"] = "chunked"
        connection.request(
            self.command, self.path, self._body() if body is None else body, headers, encode_chunked=chunked
        )
        return connection.getresponse(), connection

    def _relay(self, answer: http.client.HTTPResponse, connection: http.client.HTTPConnection, **more: str) -> None:
        length = answer.getheader("Content-Length")
        self.send_response_only(answer.status)
        for name, value in more.items():
            self.send_header(name, value)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP:
                self.send_header(name, value)
        chunked = length is None and answer.status not in (204, 304)
        if chunked or length is not None:
            self.send_header(*(("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(length))))
        self.end_headers()
        while self.command != "HEAD" and (piece := answer.read(_PIECE)):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        if chunked and self.command != "HEAD":
            self.wfile.write(b"0\r\n\r\n")
        connection.close()

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response_only(status)
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _error(self, status: int, code: str, detail: object = None) -> None:
        error = {"errors": [{"code": code, "message": code.lower().replace("_", " "), "detail": detail}]}
        self._answer(status, json.dumps(error).encode(), Content_Type="application/json")

    def _refused(self) -> bool:
        """Whether the registry behind refuses the token, or the method; its answer is sent then."""
        answer, connection = self._forward()
        if answer.status in (401, 403, 405):
            self._relay(answer, connection)
            return True
        answer.read()
        connection.close()
        return False

    def _catalog(self, query: dict[str, list[str]]) -> None:
        if self._refused():
            return
        limit = int(query.get("n", ["100"])[0])
        rows = self.database.ask("select distinct repository from manifests order by repository limit ?", limit)
        self._answer(
            200, json.dumps({"repositories": [row[0] for row in rows]}).encode(), Content_Type="application/json"
        )

    def _tags(self, name: str, query: object) -> None:
        del query
        if self._refused():
            return
        if not self.database.ask("select 1 from links where repository = ?", name):
            self._error(404, "NAME_UNKNOWN", {"name": name})
            return
        rows = self.database.ask("select name from tags where repository = ? order by name", name)
        body = json.dumps({"name": name, "tags": [row[0] for row in rows]}).encode()
        self._answer(200, body, Content_Type="application/json")

    def _uploads(self, name: str, reference: str, query: dict[str, list[str]]) -> None:
        del reference
        answer, connection = self._forward()
        mount, source = query.get("mount", [""])[0], query.get("from", [""])[0]
        if answer.status == 202 and mount and source and self.database.has("links", source, mount):
            answer.read()
            connection.close()
            self.database.link(name, mount)
            self._answer(201, b"", Location=f"/v2/{name}/blobs/{mount}", Docker_Content_Digest=mount)
            return
        if answer.status == 201:
            self.database.link(name, mount or query.get("digest", [""])[0])
        self._relay(answer, connection)

    def _blobs(self, name: str, reference: str, query: object) -> None:
        del query
        linked = self.database.has("links", name, reference)
        if self.command != "DELETE" and linked:
            self._relay(*self._forward())
        elif not self._refused():
            if linked:
                self.database.ask("delete from links where repository = ? and digest = ?", name, reference)
                self._answer(202, b"")
            else:
                self._error(404, "BLOB_UNKNOWN", reference)

    def _manifests(self, name: str, reference: str, query: object) -> None:
        del query
        if self.command == "PUT":
            self._put_manifest(name, reference)
        elif not self._refused():
            digest = reference
            if ":" not in reference:
                rows = self.database.ask("select digest from tags where repository = ? and name = ?", name, reference)
                digest = rows[0][0] if rows else ""
            found = self.database.ask(
                "select type, payload from manifests where repository = ? and digest = ?", name, digest
            )
            if not found:
                self._error(404, "MANIFEST_UNKNOWN", {"Name": name, "Tag": reference})
            elif self.command == "DELETE":
                for table in ("manifests", "tags"):
                    self.database.ask(f"delete from {table} where repository = ? and digest = ?", name, digest)
                self._answer(202, b"")
            else:
                kind, payload = found[0]
                self._answer(200, payload, Content_Type=kind, Docker_Content_Digest=digest, Etag=f'"{digest}"')

    def _put_manifest(self, name: str, reference: str) -> None:
        payload = b"".join(self._body())
        if len(payload) > _LARGEST_MANIFEST:
            self._error(400, "MANIFEST_INVALID")
            return
        answer, connection = self._forward(payload)
        digest = f"sha256:{hashlib.sha256(payload).hexdigest()}"
        taken = answer.status == 201
        if answer.status == 400:
            text = answer.read()
            taken = self._has_all_layers(name, payload, text)
            if not taken:
                self._answer(400, text, Content_Type="application/json")
        if not taken:
            if answer.status != 400:
                self._relay(answer, connection)
            return
        connection.close()
        kind = self.headers.get("Content-Type", "")
        self.database.ask("insert or replace into manifests values (?, ?, ?, ?)", name, digest, kind, payload)
        if ":" not in reference:
            self.database.ask("insert or replace into tags values (?, ?, ?)", name, reference, digest)
        self._answer(201, b"", Location=f"/v2/{name}/manifests/{digest}", Docker_Content_Digest=digest)

    def _has_all_layers(self, name: str, payload: bytes, refusal: bytes) -> bool:
        """Whether the database has what the registry behind does not find; the configuration must be in the storage."""
        try:
            errors, manifest = json.loads(refusal)["errors"], json.loads(payload)
            missing = {one["detail"]["digest"] if isinstance(one["detail"], dict) else one["detail"] for one in errors}
        except (KeyError, TypeError, ValueError):
            return False
        config = manifest.get("config", {}).get("digest")
        parts = [one["digest"] for one in manifest.get("manifests", [])]
        known = (self.database.has("manifests" if one in parts else "links", name, one) for one in missing)
        return bool(missing) and config not in missing and all(known)


def make_server(address: tuple[str, int], database: Path, behind: str) -> ThreadingHTTPServer:
    """A server that listens but does not serve yet."""
    handler = type("BoundHandler", (Handler,), {"database": Database(database), "behind": behind})
    server = ThreadingHTTPServer(address, handler)
    server.daemon_threads = True
    return server


def run(address: str, folder: Path, command: list[str]) -> int:
    """Runs the registry behind, on a socket in the folder of the database, and serves from its start to its end."""
    host, _, port = address.rpartition(":")
    behind = folder / "behind"
    behind.unlink(missing_ok=True)
    with subprocess.Popen(command, env={**os.environ, **listens_at(behind)}) as registry:
        while not behind.exists():  # a registry that cannot start must not seem to listen
            if registry.poll() is not None:
                return registry.returncode
            time.sleep(0.02)
        server = make_server((host.strip("[]"), int(port)), folder / "registry.sqlite3", str(behind))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return registry.wait()


def listens_at(path: Path) -> dict[str, str]:
    """The environment with which the registry behind listens on a socket. Source: distribution, configuration/parser.go."""
    return {"REGISTRY_HTTP_NET": "unix", "REGISTRY_HTTP_ADDR": str(path)}
