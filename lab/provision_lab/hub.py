"""The lab's Docker Hub: base images over the registry protocol, for hosts whose Docker has it as a registry mirror.

Its images are those of `container_images.HUB`. Each one is built when it is first pulled, unless it is in the cache.
Nothing can be pushed. Sources: the OCI distribution specification, "Pull", and image specification; Docker asks a mirror
before Docker Hub, for images of Docker Hub only (dockerd's reference, `registry-mirrors`).
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from provision_lab.container_images import HUB
from provision_lab.run import LabError

_PATH: Final = re.compile(r"/v2/library/([a-z0-9._/-]+)/(manifests|blobs)/([A-Za-z0-9._:-]+)")
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
# By gzip, as most images on Docker Hub are. With the containerd store, Docker 26.1 pushed an image that it had built on a layer
# by zstd, and could not pull it: "number of layers and diffIDs don't match".
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


class Reply(NamedTuple):
    """An answer: its body, or the file that is sent as the body, and its digest as the registry names it."""

    status: int
    kind: str = "application/json"
    body: bytes = b""
    file: Path | None = None
    digest: str = ""


class _Image(NamedTuple):
    """The parts of an image that are asked for: its manifest and configuration, and the file of its only layer."""

    manifest: bytes
    config: bytes
    layer: Path
    layer_digest: str


def answer(target: str) -> Reply:
    """The answer to GET or HEAD of a path below /v2/, with its query."""
    path = urlsplit(target).path
    if path == "/v2/":
        return Reply(200, body=b"{}")
    found = _PATH.fullmatch(path)
    if found is None:
        return _refusal(404, "UNSUPPORTED", f"this is not a request to pull an image of Docker Hub's own: {path}")
    repository, kind, reference = found.groups()
    try:
        images = [
            _load(name)
            for name in HUB
            if name.partition(":")[0] == repository and (":" in reference or name == f"{repository}:{reference}")
        ]
    except LabError as error:
        print(f"{path}: {error}", flush=True)
        return _refusal(500, "UNKNOWN", str(error))
    for image in images:
        reply = _manifest(image, reference) if kind == "manifests" else _blob(image, reference)
        if reply is not None:
            return reply
    known = ", ".join(sorted(HUB))
    return _refusal(404, "MANIFEST_UNKNOWN", f"the lab's Docker Hub has no {repository}:{reference}, only {known}")


def _manifest(image: _Image, reference: str) -> Reply | None:
    digest = _digest(image.manifest)
    if ":" in reference and reference != digest:
        return None
    return Reply(200, _MANIFEST, image.manifest, digest=digest)


def _blob(image: _Image, digest: str) -> Reply | None:
    if digest == image.layer_digest:
        return Reply(200, "application/octet-stream", file=image.layer, digest=digest)
    if digest == _digest(image.config):
        return Reply(200, "application/octet-stream", image.config, digest=digest)
    return None


def _refusal(status: int, code: str, text: str) -> Reply:
    return Reply(status, body=json.dumps({"errors": [{"code": code, "message": text}]}).encode())


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@cache
def _load(name: str) -> _Image:
    """The image of this name. Raises LabError when it cannot be built."""
    base = HUB[name]
    folder = base.ensure()
    digests = json.loads((folder / "digests.json").read_text())
    config = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": settings_of(base.changes),
        "rootfs": {"type": "layers", "diff_ids": [digests["tar"]]},
        "history": [{"created_by": "provision lab"}],
    }
    layer = folder / "image.tar.gz"
    text = json.dumps(config).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": {"mediaType": _CONFIG, "digest": _digest(text), "size": len(text)},
        "layers": [{"mediaType": _LAYER, "digest": digests["gz"], "size": layer.stat().st_size}],
    }
    return _Image(json.dumps(manifest).encode(), text, layer, digests["gz"])


def settings_of(changes: Sequence[str]) -> dict[str, Any]:
    """The settings of an image that lines of a Dockerfile make. Raises ValueError for other lines than the lab's images have."""
    settings: dict[str, Any] = {}
    for line in changes:
        word, _, rest = line.partition(" ")
        match word:
            case "ENV":
                settings.setdefault("Env", []).append(rest.replace('"', ""))
            case "CMD" | "ENTRYPOINT":
                settings[word.capitalize()] = json.loads(rest) if rest.startswith("[") else ["/bin/sh", "-c", rest]
            case "VOLUME":
                settings.setdefault("Volumes", {})[rest] = {}
            case "WORKDIR":
                settings["WorkingDir"] = rest
            case _:
                raise ValueError(f"not a line of an image's settings that is known here: {line}")
    return settings
