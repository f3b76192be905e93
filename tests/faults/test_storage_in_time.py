"""The check of a registry's storage, with real registries of two releases: refused within 15 s, accepted within 5 s."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from provision.host.scripts import body
from provision.resources.gitlab import gitlab_rb
from provision.shell import Command, sh
from provision.testing import LocalSession
from provision_lab.image import Image
from provision_lab.standins.gitlab_ce.host import configs, settings, system
from tests.support.buckets import ACCESS_KEY, SECRET_KEY, Bucket, bucket, denying
from tests.support.waiting import wait_for

REFUSED_WITHIN, ACCEPTED_WITHIN = 15, 5  # seconds
VERSION = (19, 3, 0)
WRITES = ("PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "CopyObject")


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def program(request: pytest.FixtureRequest) -> list[str]:
    """Debian 12's registry 2.8.2 and Debian 13's 2.8.3, each with the libraries of its release."""
    root = replace(Image(), suite=request.param).ensure() / "root"
    (loader,) = root.glob("usr/lib*/ld-linux-*.so.*") if not list(root.glob("lib64")) else root.glob("lib64/ld-linux-*")
    libraries = ":".join(str(one) for one in root.glob("usr/lib/*-linux-gnu"))
    command = [str(loader), "--library-path", libraries, str(root / "usr/bin/docker-registry")]
    version = subprocess.run([*command, "--version"], check=True, capture_output=True, text=True).stdout
    assert {"bookworm": " 2.8.2", "trixie": " 2.8.3"}[request.param] in version
    return command


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@dataclass(frozen=True)
class Registry:
    """A running registry: its configuration, and the file that names the key of its tokens."""

    config: Path
    rails: Path
    log: Path

    def check(self, folder: Path) -> tuple[str, float]:
        """What the check prints, and the seconds that it took."""
        text = f"{body('lib/services')}\n{body('lib/registry_storage')}\n"
        call = sh("storage_problem %s %s %s", str(self.config), str(self.rails), gitlab_rb._STORAGE_SECONDS)
        (folder / "run").mkdir()
        started = time.monotonic()
        done = LocalSession({"/run": folder / "run"}).run(Command(text + call.script), deadline=60)
        seconds = time.monotonic() - started
        assert (done.code, done.errors, list((folder / "run").iterdir())) == (0, "", [])
        return done.text, seconds


@contextmanager
def registry(program: list[str], folder: Path, s3: Mapping[str, Any], env: Mapping[str, str]) -> Iterator[Registry]:
    """A registry with this storage, as the stand-in configures it; it answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    own = {"storage": {"s3": dict(s3)}, "registry_http_addr": f"127.0.0.1:{port}"}
    tables = {"external_url": "http://gitlab.test", "registry_external_url": "http://gitlab.test:5555", "registry": own}
    wanted = settings.derive(tables, VERSION).registry
    assert wanted is not None
    key, certificate = folder / "registry.key", folder / "registry.crt"
    system.ensure_token_keys(certificate, key)
    values = {"realm": "http://gitlab.test", "secret": "x", "bundle": str(certificate), "issuer": system.ISSUER}
    running = Registry(folder / "config.yml", folder / "gitlab.yml", folder / "log")
    running.config.write_text(configs.render_registry_to_run(wanted, VERSION, **values))
    running.rails.write_text(f"production:\n  registry:\n    key: {key}\n")
    with running.log.open("w") as log:
        process = subprocess.Popen([*program, "serve", str(running.config)], stdout=log, stderr=log, env=dict(env))
    try:
        wait_for(lambda: "listening on" in running.log.read_text(), "the registry listens")
        yield running
    finally:
        process.kill()
        process.wait()


def s3_of(there: Bucket, **changes: Any) -> dict[str, Any]:
    """The driver's parameters for this storage; None removes one."""
    table = {
        "bucket": "registry",
        "region": "us-east-1",
        "regionendpoint": there.url,
        "accesskey": ACCESS_KEY,
        "secretkey": SECRET_KEY,
        **changes,
    }
    return {key: value for key, value in table.items() if value is not None}


@dataclass(frozen=True)
class Fault:
    """What is wrong with the storage, and the step that fails."""

    name: str
    step: str
    changes: Mapping[str, Any] | None = None
    denied: tuple[str, ...] = ()


FAULTS = [
    Fault("wrong secret", "an upload cannot be started", {"secretkey": "another"}),
    Fault("unknown key", "an upload cannot be started", {"accesskey": "AKIAUNKNOWN"}),
    Fault("no bucket", "an upload cannot be started", {"bucket": "nowhere"}),
    Fault("no role, slow metadata", "an upload cannot be started", {"accesskey": None, "secretkey": None}),
    Fault("may not write", "an upload cannot be started", denied=WRITES),
    Fault("may not read", "an upload cannot be written", denied=("GetObject", "HeadObject")),
    Fault("may not delete", "what was deleted can still be read", denied=("DeleteObject", "DeleteObjects")),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.name))
def test_storage_that_cannot_be_used_is_refused_in_time(
    program: list[str], fault: Fault, tmp_path: Path, silent: str, record_property: Callable[..., None]
) -> None:
    """The check names the step that fails, and the registry's log has the driver's own error."""
    env = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": silent}
    with (
        bucket(denying(*fault.denied)) as there,
        registry(program, tmp_path, s3_of(there, **(fault.changes or {})), env) as running,
    ):
        found, seconds = running.check(tmp_path)
    record_property("seconds", seconds)
    assert found.startswith(f"{fault.step}: "), found
    assert seconds < REFUSED_WITHIN


def test_storage_that_works_is_accepted_in_time(
    program: list[str], tmp_path: Path, record_property: Callable[..., None]
) -> None:
    """Nothing is found."""
    with bucket() as there, registry(program, tmp_path, s3_of(there), {}) as running:
        found, seconds = running.check(tmp_path)
    record_property("seconds", seconds)
    assert found == ""
    assert seconds < ACCEPTED_WITHIN
