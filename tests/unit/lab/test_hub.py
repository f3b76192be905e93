"""The lab's Docker Hub: what its answers hold. That Docker pulls from it is shown on hosts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision_lab import hub
from provision_lab.container_images import HUB, ContainerImage

LAYER, TAR = f"sha256:{hashlib.sha256(b'layer').hexdigest()}", f"sha256:{hashlib.sha256(b'tar').hexdigest()}"


@pytest.fixture(autouse=True)
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ContainerImage]]:
    """The images that were built; every one has the same layer."""
    images: list[ContainerImage] = []
    tmp_path.joinpath("image.tar.gz").write_bytes(b"layer")
    tmp_path.joinpath("digests.json").write_text(json.dumps({"tar": TAR, "gz": LAYER}))

    def ensure(image: ContainerImage) -> Path:
        images.append(image)
        return tmp_path

    monkeypatch.setattr(ContainerImage, "ensure", ensure)
    hub._load.cache_clear()
    yield images
    hub._load.cache_clear()


def test_an_image_is_pulled(built: list[ContainerImage]) -> None:
    """By its tag, then by the digests in its manifest. Docker adds the registry's name to the query."""
    assert hub.answer("/v2/").status == 200
    tagged = hub.answer("/v2/library/node/manifests/24-slim?ns=docker.io")
    assert (tagged.status, tagged.digest) == (200, f"sha256:{hashlib.sha256(tagged.body).hexdigest()}")
    assert hub.answer(f"/v2/library/node/manifests/{tagged.digest}") == tagged
    manifest = json.loads(tagged.body)
    assert tagged.kind == manifest["mediaType"]
    (layer,) = manifest["layers"]
    assert (layer["digest"], layer["size"]) == (LAYER, 5)
    blob = hub.answer(f"/v2/library/node/blobs/{LAYER}")
    assert blob.file is not None
    assert blob.file.read_bytes() == b"layer"
    config = hub.answer(f"/v2/library/node/blobs/{manifest['config']['digest']}")
    assert json.loads(config.body)["rootfs"]["diff_ids"] == [TAR]
    assert json.loads(config.body)["config"] == {"Cmd": ["/bin/sh", "-c", "node"]}
    assert built == [HUB["node:24-slim"]]


@pytest.mark.parametrize(
    "path",
    [
        "library/node/manifests/22",
        "library/nothing/manifests/latest",
        f"library/node/blobs/{TAR}",
        "sammy/a/manifests/1",
    ],
)
def test_what_it_has_not(path: str) -> None:
    """A tag, an image, a blob, an image that is not Docker Hub's own."""
    answer = hub.answer(f"/v2/{path}")
    assert answer.status == 404
    assert json.loads(answer.body)["errors"][0]["message"]


def test_the_settings_of_each_image() -> None:
    """As Docker reads these lines of a Dockerfile. Another line is refused, not left out."""
    lines = ("ENV A=1", 'ENV B=""', "CMD run it", 'ENTRYPOINT ["/bin/x", "-v"]', "VOLUME /data", "WORKDIR /go")
    assert hub.settings_of(lines) == {
        "Env": ["A=1", "B="],
        "Cmd": ["/bin/sh", "-c", "run it"],
        "Entrypoint": ["/bin/x", "-v"],
        "Volumes": {"/data": {}},
        "WorkingDir": "/go",
    }
    for image in HUB.values():
        hub.settings_of(image.changes)
    with pytest.raises(ValueError, match="USER node"):
        hub.settings_of(["USER node"])
