"""How GitLab's registry chooses its metadata when it starts: by lock files in its storage, since GitLab 18.9.

`python -m gitlab_standin.lockfiles CONFIG FOLDER COMMAND…` chooses and runs the registry. CONFIG: its configuration, FOLDER:
where the database is. The environment has STANDIN_DATABASE, `registry['database']['enabled']`.

Sources: GitLab's container registry, registry/handlers/app.go and registry/storage/lockers.go (4.35 enforces the files, 4.40
prefers the database); GitLab's documentation, "Container registry metadata database", sections Prefer mode and
Troubleshooting. A registry that cannot read its storage does not start, therefore.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import json
import os
import re
import socket
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

from . import metadata
from .layout import Paths, Version, installed, parse_version

DATABASE, FILESYSTEM = "database-in-use", "filesystem-in-use"
_FOLDER = "docker/registry/lockfiles"
_REPOSITORIES = "docker/registry/v2/repositories"
_CONTENT = b'{"version":1}'
_DOCS = "https://docs.gitlab.com/ee/administration/packages/container_registry_metadata_database.html"
_MANAGED = (
    "this filesystem is managed by the metadata database, and offline garbage collection is no longer possible, if you are not "
    "using the database anymore, remove the file at the lock_path in this log message"
)
_METADATA_SERVICE = ("169.254.169.254", 80)
_LOOK_UP_SECONDS = 5


class NotStarted(Exception):
    """The registry does not start: the message."""


class Unreadable(Exception):
    """The storage refuses a request: the driver's message."""


class Storage(Protocol):
    """What the choice needs of a storage; paths are below its root directory."""

    def exists(self, path: str) -> bool:
        """Whether there is an object. Raises Unreadable."""

    def write(self, path: str, content: bytes) -> None:
        """Writes an object. Raises Unreadable."""

    def has_repositories(self) -> bool:
        """Whether there is a repository with a layer. Raises Unreadable."""


class Disk:
    """A folder of the host."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def exists(self, path: str) -> bool:
        """Whether there is a file."""
        return (self._folder / path).exists()

    def write(self, path: str, content: bytes) -> None:
        """Writes a file, with its folder."""
        try:
            (self._folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self._folder / path).write_bytes(content)
        except OSError as error:
            raise Unreadable(f"filesystem: {error}") from error

    def has_repositories(self) -> bool:
        """Whether a repository has a folder of layers."""
        return any((self._folder / _REPOSITORIES).rglob("_layers"))


class S3:
    """A bucket, by the parameters of the driver. Proxies and certificates are those of the environment."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self._region = str(parameters.get("region") or "us-east-1")
        self._keys = str(parameters.get("accesskey") or ""), str(parameters.get("secretkey") or "")
        endpoint = str(parameters.get("regionendpoint") or f"https://s3.{self._region}.amazonaws.com")
        parts, bucket = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}"), str(parameters["bucket"])
        in_path = parameters.get("pathstyle", bool(parameters.get("regionendpoint"))) is not False
        self._host = parts.netloc if in_path else f"{bucket}.{parts.netloc}"
        self._origin = f"{parts.scheme}://{self._host}"
        self._path = f"{parts.path.rstrip('/')}/{bucket}" if in_path else parts.path.rstrip("/")
        self._root = str(parameters.get("rootdirectory") or "").strip("/")
        handlers = []
        if parts.scheme == "https":
            handlers = [urllib.request.HTTPSHandler(context=_trusting(os.environ.get("SSL_CERT_DIR"), parameters))]
        self._opener = urllib.request.build_opener(*handlers)

    def exists(self, path: str) -> bool:
        """As the driver looks for an object: by a listing."""
        return self._key(path) in re.findall("<Key>(.*?)</Key>", self._list(path, 1))

    def write(self, path: str, content: bytes) -> None:
        """Puts an object."""
        self._ask("PutObject", "PUT", f"{self._path}/{quote(self._key(path))}", {}, content)

    def has_repositories(self) -> bool:
        """Whether one of the first thousand objects is a link to a layer."""
        return "/_layers/" in self._list(_REPOSITORIES, 1000)

    def _key(self, path: str) -> str:
        return f"{self._root}/{path}".lstrip("/")

    def _list(self, prefix: str, limit: int) -> str:
        query = {"list-type": "2", "max-keys": str(limit), "prefix": self._key(prefix)}
        return self._ask("ListObjectsV2", "GET", f"{self._path}/", query, b"")

    def _ask(self, operation: str, method: str, path: str, query: Mapping[str, str], content: bytes) -> str:
        if not all(self._keys):
            _look_for_a_role(operation)
        pairs = "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in sorted(query.items()))
        target = f"{self._origin}{path}{'?' if pairs else ''}{pairs}"
        headers = self._signed(method, path, pairs, hashlib.sha256(content).hexdigest())
        request = urllib.request.Request(target, content or None, headers, method=method)
        try:
            with self._opener.open(request, timeout=20) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            code = "".join(re.findall("<Code>(.*?)</Code>", text)[:1])
            message = "".join(re.findall("<Message>(.*?)</Message>", text)[:1])
            raise Unreadable(
                f"operation error S3: {operation}, https response error StatusCode: {error.code}, api error {code}: {message}"
            ) from error
        except OSError as error:
            raise Unreadable(
                f"operation error S3: {operation}, exceeded maximum number of attempts, request send failed, {error}"
            ) from error

    def _signed(self, method: str, path: str, query: str, body: str) -> dict[str, str]:
        """The headers of a request. Source: the AWS General Reference, "Create a signed AWS API request"."""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        headers = {"host": self._host, "x-amz-content-sha256": body, "x-amz-date": now}
        names = ";".join(headers)
        lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
        canonical = "\n".join((method, path, query, lines, names, body))
        scope = f"{now[:8]}/{self._region}/s3/aws4_request"
        text = "\n".join(("AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()))
        key = f"AWS4{self._keys[1]}".encode()
        for part in (*scope.split("/"), text):
            key = hmac.digest(key, part.encode(), "sha256")
        fields = f"Credential={self._keys[0]}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
        return {**headers, "Authorization": f"AWS4-HMAC-SHA256 {fields}"}


def _trusting(folder: str | None, parameters: Mapping[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context()
    for path in Path(folder).glob("*") if folder else ():
        if path.is_file():
            context.load_verify_locations(path)
    if parameters.get("skipverify"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _look_for_a_role(operation: str) -> None:
    """Without keys the driver asks the metadata service of a cloud for a role. The lab has none."""
    try:
        socket.create_connection(_METADATA_SERVICE, timeout=_LOOK_UP_SECONDS).close()
        reason = "no EC2 IMDS role found"
    except OSError as error:
        reason = f"no EC2 IMDS role found, operation error ec2imds: GetMetadata, {error}"
    raise Unreadable(f"operation error S3: {operation}, get identity: get credentials: {reason}")


def storage_of(storage: Mapping[str, Any]) -> Storage | None:
    """The storage of a configuration; None for a driver that the lab does not have."""
    if isinstance(storage.get("filesystem"), dict):
        return Disk(Path(str(storage["filesystem"].get("rootdirectory") or "/var/lib/registry")))
    return S3(storage["s3"]) if isinstance(storage.get("s3"), dict) else None


def uses_database(enabled: str, storage: Storage | None, version: Version) -> bool:
    """Whether the registry uses its database, by the lock files, which this writes. Raises NotStarted."""
    if version < (18, 9, 0) or storage is None:
        return enabled != "false"
    try:
        # Each mode looks for the other's file first.
        order = (DATABASE, FILESYSTEM) if enabled == "false" else (FILESYSTEM, DATABASE)
        locks = {name: _locked(storage, name) for name in order}
        database, filesystem = locks[DATABASE], locks[FILESYSTEM]
        if enabled == "prefer" and database and filesystem:
            raise NotStarted(f"both lockfiles exist, {DATABASE} and {FILESYSTEM}, see {_DOCS}")
        if enabled == "prefer" and filesystem:
            _log(
                "warning",
                "database prefer mode enabled, but found filesystem metadata: falling back to legacy metadata",
            )
            enabled = "false"
        if enabled == "false":
            if database:
                raise NotStarted(f"registry metadata database in use, please enable the database {_DOCS}")
            if storage.has_repositories():
                _lock(storage, FILESYSTEM)
            _log("info", "registry filesystem metadata in use")
            return False
        if filesystem:
            raise NotStarted(
                "registry filesystem metadata in use, please import data before enabling the database, "
                f"see {_DOCS}#existing-registries"
            )
    except Unreadable as error:  # of has_repositories
        raise NotStarted(f"could not enumerate repositories for filesystem lock check: {error}") from error
    _log("info", "using the metadata database")
    _lock(storage, DATABASE)
    return True


def _locked(storage: Storage, name: str) -> bool:
    try:
        return storage.exists(f"{_FOLDER}/{name}")
    except Unreadable as error:
        what = "filesystem" if name == FILESYSTEM else "database"
        _log("error", f"could not check if {what} metadata is locked, see {_DOCS}", str(error))
        raise NotStarted(str(error)) from error


def _lock(storage: Storage, name: str) -> None:
    try:
        if not storage.exists(f"{_FOLDER}/{name}"):
            storage.write(f"{_FOLDER}/{name}", _CONTENT)
    except Unreadable as error:
        what = (
            "filesystem only usage, continuing"
            if name == FILESYSTEM
            else f"filesystem for database only usage, see {_DOCS}"
        )
        _log("error", f"failed to mark {what}", str(error))
        raise NotStarted(str(error)) from error


def _log(level: str, message: str, error: str = "") -> None:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    more = f" error={json.dumps(error)}" if error else ""
    print(f'time="{now}" level={level} msg={json.dumps(message)}{more}', file=sys.stderr, flush=True)


def read_config(path: Path) -> tuple[dict[str, Any], str]:
    """The storage of a registry's configuration, and its address."""
    text = path.read_text()
    (storage,) = re.findall("^storage: (.*)$", text, re.MULTILINE)
    return json.loads(storage), re.findall("^ +addr: (.*)$", text, re.MULTILINE)[0]


def collect_garbage(config: Path, command: list[str]) -> str:
    """`registry garbage-collect`: its error, "" after a success."""
    storage = storage_of(read_config(config)[0])
    try:
        if storage and storage.exists(f"{_FOLDER}/{DATABASE}"):
            return f"{_MANAGED} lock_path=/{_FOLDER}/{DATABASE}"
    except Unreadable as error:
        return str(error)
    return "" if os.spawnvp(os.P_WAIT, command[0], command) == 0 else "failed to garbage collect"


def main(arguments: list[str]) -> int:
    """Chooses, and runs the registry."""
    (config, folder), command = arguments[:2], arguments[2:]
    storage, address = read_config(Path(config))
    version = parse_version(installed(Paths().opt))
    try:
        database = uses_database(os.environ["STANDIN_DATABASE"], storage_of(storage), version)
    except NotStarted as error:
        print(f"creating new registry instance: configuring application: {error}", file=sys.stderr, flush=True)
        return 1
    if not database:
        os.execv(command[0], command)
    return metadata.run(address, Path(folder), command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
