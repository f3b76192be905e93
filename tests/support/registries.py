"""Registries of Debian's releases on loopback, configured as the lab's GitLab does, for tests with real ones."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copyfile
from typing import Any

from provision.host.scripts import body, script
from provision.resources.gitlab import gitlab_rb
from provision.shell import Command, sh
from provision.testing import LocalSession
from provision_lab import Lab
from provision_lab.image import Image
from provision_lab.standins.gitlab_ce.host import configs, metadata, settings, system
from provision_lab.standins.gitlab_ce.host.api.registry import signed
from tests.support.buckets import ACCESS_KEY, SECRET_KEY, Bucket
from tests.support.waiting import wait_for

VERSION = (19, 3, 0)
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
RELEASES = {"bookworm": " 2.8.2", "trixie": " 2.8.3"}  # Debian 12 and 13, with the version of docker-registry


def program_of(suite: str) -> list[str]:
    """The command of a release's registry, with the libraries of that release."""
    root = replace(Image(), suite=suite).ensure() / "root"
    (loader,) = root.glob("usr/lib*/ld-linux-*.so.*") if not list(root.glob("lib64")) else root.glob("lib64/ld-linux-*")
    libraries = ":".join(str(one) for one in root.glob("usr/lib/*-linux-gnu"))
    command = [str(loader), "--library-path", libraries, str(root / "usr/bin/docker-registry")]
    version = subprocess.run([*command, "--version"], check=True, capture_output=True, text=True).stdout
    assert RELEASES[suite] in version
    return command


@dataclass(frozen=True)
class Registry:
    """A running registry: its configuration, the file that names the key of its tokens, and its log."""

    folder: Path
    address: str
    config: Path
    rails: Path
    log: Path

    def image_for(self, bucket: str, endpoint: str = "", folder: str = "") -> str:
        """What find_image.sh prints when the registry is to have that storage."""
        work = self.folder / "run"
        work.mkdir(exist_ok=True)
        command = script("find_image", str(self.config), str(self.rails), bucket, endpoint, folder)
        done = LocalSession({"/run": work}).run(command, deadline=60)
        assert (done.code, done.errors, list(work.iterdir())) == (0, "", [])
        return done.text.strip()

    def earlier_image_problem(self, name: str) -> str:
        """What the function of lib/registry.sh prints for a repository."""
        access = [{"type": "repository", "name": name, "actions": ["pull"]}]
        token = signed(str(self.folder / "registry.key"), system.ISSUER, "root", access)
        setup = sh(
            "use_registry %s /nonexistent '' yes; earlier_image_problem %s %s %s",
            f"http://{self.address}",
            name,
            token,
            str(self.folder),
        )
        done = LocalSession({}).run(Command(f"{body('lib/registry')}\n{setup.script}"), deadline=60)
        assert (done.code, done.errors) == (1 if done.text else 0, "")
        return done.text.strip()

    def connection(self) -> http.client.HTTPConnection:
        """A new connection to it."""
        return http.client.HTTPConnection(self.address, timeout=30)

    def ask(self, method: str, path: str, content: bytes = b"", kind: str = "") -> tuple[int, dict[str, str], bytes]:
        """A request with a token for all: status, headers in lower case, body."""
        names = [
            path.split("/v2/")[-1].split(f"/{part}/")[0]
            for part in ("blobs", "manifests", "tags")
            if f"/{part}/" in path
        ]
        access = [{"type": "repository", "name": one, "actions": ["pull", "push", "delete", "*"]} for one in names]
        if "from=" in path:
            access.append({"type": "repository", "name": path.split("from=")[-1], "actions": ["pull"]})
        access.append({"type": "registry", "name": "catalog", "actions": ["*"]})
        token = signed(str(self.folder / "registry.key"), system.ISSUER, "root", access)
        # Without `Accept` the registry converts the manifest for clients of long ago, and refuses some.
        headers = {"Authorization": f"Bearer {token}", "Accept": f"{MANIFEST}, */*"}
        if kind:
            headers["Content-Type"] = kind
        connection = self.connection()
        connection.request(method, path, content or None, headers)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, text

    def upload(self, name: str, content: bytes) -> str:
        """Uploads a blob as Docker does, the content in chunks: its digest."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        status, headers, text = self.ask("POST", f"/v2/{name}/blobs/uploads/")
        assert status == 202, text
        path = "/v2/" + headers["location"].partition("/v2/")[2]
        status, _, text = self.ask("PUT", f"{path}{'&' if '?' in path else '?'}digest={digest}", content)
        assert status == 201, text
        return digest

    def push(self, name: str, tag: str, layer: bytes = b"a layer", *, uploaded: bool = False) -> int:
        """Pushes an image of one layer, which may be in the repository already: the status of its manifest."""
        config = f'{{"name":"{name}:{tag}"}}'.encode()
        digests = [self.upload(name, config)]
        digests.append(f"sha256:{hashlib.sha256(layer).hexdigest()}" if uploaded else self.upload(name, layer))
        kinds = ["application/vnd.docker.container.image.v1+json", "application/vnd.docker.image.rootfs.diff.tar.gzip"]
        parts = [
            {"mediaType": one, "size": size, "digest": digest}
            for one, size, digest in zip(kinds, (len(config), len(layer)), digests, strict=True)
        ]
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": parts[0], "layers": parts[1:]}
        return self.ask("PUT", f"/v2/{name}/manifests/{tag}", json.dumps(manifest).encode(), MANIFEST)[0]

    def pulled(self, name: str, tag: str) -> list[int]:
        """The status of the manifest, and of each blob that it lists."""
        status, _, text = self.ask("GET", f"/v2/{name}/manifests/{tag}")
        digests = [part.partition(b'"')[0].decode() for part in text.split(b'"digest": "')[1:]]
        return [status, *(self.ask("HEAD", f"/v2/{name}/blobs/{one}")[0] for one in digests)]

    def check(self, folder: Path) -> tuple[str, float]:
        """What the check prints, and the seconds that it took."""
        text = f"{body('lib/services')}\n{body('lib/registry_storage')}\n"
        call = sh("storage_problem %s %s %s", str(self.config), str(self.rails), gitlab_rb._STORAGE_SECONDS)
        (folder / "run").mkdir(exist_ok=True)
        started = time.monotonic()
        done = LocalSession({"/run": folder / "run"}).run(Command(text + call.script), deadline=60)
        seconds = time.monotonic() - started
        assert (done.code, done.errors, list((folder / "run").iterdir())) == (0, "", [])
        return done.text, seconds


@dataclass(frozen=True)
class HostRegistry(Registry):
    """The registry of a lab's GitLab host, asked through its nginx."""

    lab: Lab

    @classmethod
    def of(cls, lab: Lab, folder: Path) -> HostRegistry:
        """Copies the key of its tokens to a folder. No script is run with its files."""
        keys = lab.machine("gitlab").root / "var/opt/gitlab/gitlab-rails/etc/gitlab-registry.key"
        copyfile(keys, folder / "registry.key")
        return cls(folder, lab.machine("gitlab").host.address, *[Path("/nonexistent")] * 3, lab)

    def connection(self) -> http.client.HTTPSConnection:
        """A new connection, with the lab's authority."""
        context = ssl.create_default_context(cafile=str(self.lab.ca))
        return http.client.HTTPSConnection(self.address, 5555, timeout=30, context=context)


@contextmanager
def registry(
    program: list[str],
    folder: Path,
    storage: Mapping[str, Any],
    env: Mapping[str, str] | None = None,
    database: str | None = None,
) -> Iterator[Registry]:
    """A registry with this storage, as the stand-in configures it; it answers. `database`: where it has one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    address = f"127.0.0.1:{port}"
    own: dict[str, Any] = {"storage": dict(storage), "registry_http_addr": address}
    own["database"] = {"enabled": database or "false"}
    tables = {"external_url": "http://gitlab.test", "registry_external_url": "http://gitlab.test:5555", "registry": own}
    wanted = settings.derive(tables, VERSION).registry
    assert wanted is not None
    key, certificate = folder / "registry.key", folder / "registry.crt"
    system.ensure_token_keys(certificate, key)
    values = {"realm": "http://gitlab.test", "secret": "x", "bundle": str(certificate), "issuer": system.ISSUER}
    running = Registry(folder, address, folder / "config.yml", folder / "gitlab.yml", folder / "log")
    running.config.write_text(configs.render_registry(wanted, **values))
    own_config, socket_file = folder / "registry.yml", folder / "behind"
    own_config.write_text(configs.render_registry_to_run(wanted, VERSION, **values))
    running.rails.write_text(f"production:\n  registry:\n    key: {key}\n")
    with running.log.open("w") as log:
        command = [*program, "serve", str(own_config)]
        more = metadata.listens_at(socket_file) if database else {}
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**(env or {}), **more})
    front = (
        metadata.make_server(("127.0.0.1", port), folder / "registry.sqlite3", str(socket_file)) if database else None
    )
    if front:
        threading.Thread(target=front.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        wait_for(lambda: "listening on" in running.log.read_text(), "the registry listens")
        yield running
    finally:
        if front:
            front.shutdown()
            front.server_close()
        process.kill()
        process.wait()


def s3_of(there: Bucket, **changes: Any) -> dict[str, Any]:
    """registry['storage'] for this storage; None removes a parameter."""
    table = {
        "bucket": "registry",
        "region": "us-east-1",
        "regionendpoint": there.url,
        "accesskey": ACCESS_KEY,
        "secretkey": SECRET_KEY,
        **changes,
    }
    return {"s3": {key: value for key, value in table.items() if value is not None}}
