"""The check of a registry's storage, with real registries of two releases: refused within 15 s, accepted within 5 s."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.buckets import bucket, denying
from tests.support.registries import RELEASES, program_of, registry, s3_of

REFUSED_WITHIN, ACCEPTED_WITHIN = 15, 5  # seconds
WRITES = ("PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "CopyObject")


@pytest.fixture(scope="module", params=RELEASES)
def program(request: pytest.FixtureRequest) -> list[str]:
    """Debian 12's registry and Debian 13's."""
    return program_of(request.param)


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


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
    with bucket() as there, registry(program, tmp_path, s3_of(there)) as running:
        found, seconds = running.check(tmp_path)
    record_property("seconds", seconds)
    assert found == ""
    assert seconds < ACCEPTED_WITHIN
