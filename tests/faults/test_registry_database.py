"""The lab's registry with a metadata database, and what the product asks a registry: with Debian's own registry and S3."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from provision.host.scripts import body
from provision.shell import Command
from provision.testing import LocalSession
from provision_lab.standins.gitlab_ce.host.system import ensure_token_keys
from tests.support.buckets import bucket
from tests.support.registries import program_of, registry, s3_of

IMAGE = "group/project"


@pytest.fixture(scope="module")
def program() -> list[str]:
    """Debian 13's registry."""
    return program_of("trixie")


def on_disk(folder: Path) -> dict[str, Any]:
    """registry['storage'] in a folder of this machine."""
    return {"filesystem": {"rootdirectory": str(folder)}}


class TestDatabase:
    """What the stand-in does with it, as GitLab's registry: sources in the module `metadata`."""

    def test_as_without_it_while_the_bucket_is_the_same(self, program: list[str], tmp_path: Path) -> None:
        """Push, pull, tags, catalog, deletion; wrong tokens are refused by the registry behind."""
        with bucket() as there, registry(program, tmp_path, s3_of(there), database="prefer") as running:
            assert running.ask("GET", "/v2/_catalog")[2] == b'{"repositories": []}'
            assert running.ask("GET", f"/v2/{IMAGE}/tags/list")[0] == 404
            assert running.push(IMAGE, "one") == 201
            assert running.pulled(IMAGE, "one") == [200, 307, 307]
            assert running.ask("GET", f"/v2/{IMAGE}/tags/list")[2] == b'{"name": "group/project", "tags": ["one"]}'
            assert running.ask("GET", "/v2/_catalog")[2] == b'{"repositories": ["group/project"]}'
            digest = running.ask("HEAD", f"/v2/{IMAGE}/manifests/one")[1]["docker-content-digest"]
            assert running.ask("DELETE", f"/v2/{IMAGE}/manifests/{digest}")[0] == 202
            assert running.ask("GET", f"/v2/{IMAGE}/manifests/one")[0] == 404
            (running.folder / "registry.key").unlink()
            (running.folder / "registry.crt").rename(running.folder / "registry.crt.old")
            ensure_token_keys(running.folder / "other.crt", running.folder / "registry.key")
            for path in ("_catalog", f"{IMAGE}/tags/list", f"{IMAGE}/manifests/one"):
                assert running.ask("GET", f"/v2/{path}")[0] == 401, path

    def test_after_a_change_of_the_bucket(self, program: list[str], tmp_path: Path) -> None:
        """Images are listed and cannot be pulled; layers of another repository are mounted unseen; others are pushed again."""
        layer = b"a layer of another project"
        with bucket() as there, registry(program, tmp_path, s3_of(there), database="prefer") as running:
            assert (running.push(IMAGE, "old"), running.push("group/other", "old", layer)) == (201, 201)
        with bucket() as there, registry(program, tmp_path, s3_of(there), database="prefer") as running:
            assert running.ask("GET", f"/v2/{IMAGE}/tags/list")[2].endswith(b'"tags": ["old"]}')
            assert running.pulled(IMAGE, "old") == [200, 404, 404]
            digest = f"sha256:{hashlib.sha256(layer).hexdigest()}"
            mount = f"/v2/{IMAGE}/blobs/uploads/?mount={digest}&from=group/other"
            assert running.ask("POST", mount)[0] == 201
            assert running.push(IMAGE, "new", layer, uploaded=True) == 201
            assert running.pulled(IMAGE, "new") == [200, 307, 404]
            assert running.push(IMAGE, "newer", b"another layer") == 201
            assert running.pulled(IMAGE, "newer") == [200, 307, 307]

    def test_without_it_the_bucket_has_all(self, program: list[str], tmp_path: Path) -> None:
        """After a change of the bucket nothing is listed."""
        with bucket() as there, registry(program, tmp_path, s3_of(there)) as running:
            assert running.push(IMAGE, "old") == 201
        with bucket() as there, registry(program, tmp_path, s3_of(there)) as running:
            assert running.pulled(IMAGE, "old") == [404]

    def test_the_storage_is_checked_through_it(self, program: list[str], tmp_path: Path) -> None:
        """Nothing is found, and no repository is listed afterwards."""
        with bucket() as there, registry(program, tmp_path, s3_of(there), database="prefer") as running:
            assert running.check(tmp_path)[0] == ""
            assert running.image_for("another") == "none"


class TestFoundImages:
    """find_image.sh: the registry is asked, wherever it keeps the names of images."""

    @pytest.mark.parametrize("database", [None, "prefer"])
    def test_a_bucket(self, program: list[str], tmp_path: Path, database: str | None) -> None:
        """None at first, and one after a push; a repository without a tag is none; the same bucket needs no question."""
        with bucket() as there, registry(program, tmp_path, s3_of(there), database=database) as running:
            assert running.image_for("another", there.url) == "none"
            running.upload("provision-storage-check", b"x")
            running.upload("group/empty", b"x")
            assert running.image_for("another", there.url) == "none"
            assert running.push(IMAGE, "one") == 201
            assert running.image_for("another", there.url) == f"image {IMAGE}"
            assert running.image_for("registry", "http://elsewhere") == f"image {IMAGE}"
            assert running.image_for("registry", there.url, "/folder") == f"image {IMAGE}"
            del there.asked[:]
            assert running.image_for("registry", there.url) == "same"
            assert [one for one in there.asked if one != "ListObjects"] == []

    @pytest.mark.parametrize("database", [None, "prefer"])
    def test_the_hosts_disk(self, program: list[str], tmp_path: Path, database: str | None) -> None:
        """The same with a folder."""
        with registry(program, tmp_path, on_disk(tmp_path / "images"), database=database) as running:
            assert running.image_for("registry") == "none"
            assert running.push(IMAGE, "one") == 201
            assert running.image_for("registry") == f"image {IMAGE}"

    def test_names_that_only_the_database_has(self, program: list[str], tmp_path: Path) -> None:
        """The bucket was changed: its layout shows nothing, and the registry lists an image."""
        with bucket() as there, registry(program, tmp_path, s3_of(there), database="prefer") as running:
            assert running.push(IMAGE, "old") == 201
        with bucket() as there, registry(program, tmp_path, s3_of(there), database="prefer") as running:
            assert there.objects() == []
            assert running.image_for("another", there.url) == f"image {IMAGE}"

    def test_what_cannot_be_asked(self, program: list[str], tmp_path: Path) -> None:
        """A registry that does not run, or cannot read its storage: unknown, and why."""
        with bucket() as there:
            with registry(program, tmp_path, s3_of(there, secretkey="another")) as running:
                assert running.image_for("another").startswith(
                    "unknown the registry answers /v2/_catalog?n=100 with HTTP 5"
                )
            assert running.image_for("another").startswith("unknown the registry does not answer: curl: (7)")
        running.config.unlink()
        assert running.image_for("another") == "never"


LOGGED = [
    # lines of the registry's log, and what is reported of them
    ("time=x level=info msg=fine\n", ""),
    (
        "2026-02-27_18:35:07.40191 creating new registry instance: configuring application: registry metadata database in use\n"
        "2026-02-27_18:35:08.41234 creating new registry instance: configuring application: registry metadata database in use\n",
        "2026-02-27_18:35:07.40191 creating new registry instance: configuring application: registry metadata database in use",
    ),
    (
        "2026-02-27_18:35:07.40191 panic: StorageDriver not registered: x\n",
        "2026-02-27_18:35:07.40191 panic: StorageDriver not registered: x",
    ),
    ("configuration error: invalid loglevel x\n  panic: of a user's text\n", "configuration error: invalid loglevel x"),
    ('{"level":"error","msg":"storage"}\n' * 5, '{"level":"error","msg":"storage"}'),
    (
        "".join(f"t level=error msg={number}\n" for number in range(5)),
        "".join(f"t level=error msg={number}\n" for number in (2, 3, 4)).strip(),
    ),
]


@pytest.mark.parametrize(("log", "reported"), LOGGED)
def test_the_registrys_own_errors(log: str, reported: str) -> None:
    """lib/registry_storage.sh, with and without the times that svlogd puts before the lines."""
    text = f"{body('lib/registry_storage')}\nregistry_errors"
    done = LocalSession({}).run(Command(text, stdin=log.encode()), deadline=30)
    assert (done.text.strip(), done.errors) == (reported, "")


class TestEarlierImage:
    """What `verify` asks after its own push and pull: lib/registry.sh."""

    def test_an_image_whose_data_stayed_in_the_old_bucket(self, program: list[str], tmp_path: Path) -> None:
        """Nothing is wrong before the change of the bucket; afterwards image and layer are named."""
        with bucket() as there, registry(program, tmp_path, s3_of(there), database="prefer") as running:
            assert running.earlier_image_problem(IMAGE) == ""
            assert running.push(IMAGE, "old") == 201
            assert running.earlier_image_problem(IMAGE) == ""
        with bucket() as there, registry(program, tmp_path, s3_of(there), database="prefer") as running:
            assert running.earlier_image_problem(IMAGE).startswith(f"{IMAGE}:old is listed, and sha256:")
            assert running.earlier_image_problem(IMAGE).endswith(" of it is answered with HTTP 404")
