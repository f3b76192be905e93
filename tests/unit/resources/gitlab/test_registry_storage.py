"""`RegistryStorage`: images are not left behind without a word."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from provision.errors import ProbeFailed, Refused
from provision.resources import RegistryStorage, Result
from provision.secret import Secret
from provision.shell import Command
from provision.testing import LocalSession, notes, observe, planned

WANTED = {
    "bucket": "registry",
    "region": "nyc3",
    "regionendpoint": "https://nyc3.example.com",
    "secretkey": Secret("xyz-key"),
}
S3 = "registry['storage'] = {{ 's3' => {{ 'bucket' => '{bucket}', 'regionendpoint' => '{endpoint}' }} }}\n"
SAME = S3.format(bucket="registry", endpoint="https://nyc3.example.com")
EMPTY = "/var/opt/gitlab/gitlab-rails/shared/registry\n"
FULL = f"{EMPTY}sammy\n"


def notes_of(text: str | None, folder: str = EMPTY, acknowledged: bool = False, **wanted: Any) -> list[str]:
    """The notes for a gitlab.rb; there are never changes."""
    resource = RegistryStorage({**WANTED, **wanted}, acknowledged)
    packed = b"" if text is None else gzip.compress(text.encode())
    seen = observe(resource, {"file": packed, "folder": folder})
    assert planned(resource, seen) == []
    return notes(resource, seen)


@pytest.mark.parametrize(
    ("text", "folder"),
    [
        (None, EMPTY),
        ("", EMPTY),
        ("external_url 'https://x'\n", EMPTY),
        (SAME, FULL),
        (SAME.replace("'s3'", "'s3_v2'"), FULL),
        (SAME.replace("'s3' =>", "s3:"), EMPTY),
        ("registry['storage'] = { 'filesystem' => { 'rootdirectory' => '/x' } }\n", EMPTY),
        ("registry['storage'] = {}\n", EMPTY),
    ],
    ids=[
        "no GitLab",
        "empty file",
        "no storage",
        "the same",
        "another name of the driver",
        "a symbol",
        "own disk, empty",
        "nothing",
    ],
)
def test_nothing_is_left_behind(text: str | None, folder: str) -> None:
    """No switch, or no image."""
    assert notes_of(text, folder) == []


@pytest.mark.parametrize(
    ("text", "folder", "left"),
    [
        ("", FULL, "images in /var/opt/gitlab/gitlab-rails/shared/registry would no longer be found (sammy is one)"),
        (S3.format(bucket="old", endpoint="https://nyc3.example.com"), EMPTY, "images in bucket old would"),
        (S3.format(bucket="registry", endpoint="https://ams3.example.com"), EMPTY, "images in bucket registry would"),
        ("registry['storage'] = { 'gcs' => { 'bucket' => 'g' } }\n", EMPTY, "images in its gcs storage would"),
        ("registry['storage'] = compute_it()\n", EMPTY, "the current storage is unknown, since gitlab.rb computes it"),
    ],
    ids=["own disk, with images", "another bucket", "another endpoint", "another driver", "computed"],
)
def test_a_switch_is_refused_until_it_is_meant(text: str, folder: str, left: str) -> None:
    """With a hint how to migrate the images, never to begin without them; when acknowledged, a note."""
    with pytest.raises(Refused) as caught:
        notes_of(text, folder)
    assert left in caught.value.text
    assert "registry.migrate=acknowledged" in caught.value.hint
    assert "copy them in any case" in caught.value.hint
    assert "start empty" not in caught.value.hint
    (note,) = notes_of(text, folder, acknowledged=True)
    assert note.startswith("the registry's storage changes, as acknowledged: ")
    assert left in note


def test_images_whose_names_only_the_metadata_database_has() -> None:
    """Their data is in the folder, without a repository."""
    with pytest.raises(Refused, match=r"would no longer be found \(their names are in the metadata database\)"):
        notes_of("", f"{EMPTY}blobs\nran\n")


def test_what_cannot_be_seen_is_reported() -> None:
    """A registry that ran may have images that only its database lists; one that never ran has none."""
    (note,) = notes_of("", f"{EMPTY}\nran\n")
    assert note.startswith("no images were found in /var/opt/gitlab/gitlab-rails/shared/registry, so ")
    assert "only its metadata database lists cannot be seen" in note
    assert notes_of("", f"{EMPTY}\n") == []
    assert notes_of(SAME, f"{EMPTY}\nran\n") == []


def test_another_folder_in_the_bucket_is_another_place() -> None:
    """rootdirectory counts; keys and region do not."""
    with pytest.raises(Refused):
        notes_of(SAME, rootdirectory="/elsewhere")
    assert notes_of(SAME, region="other", secretkey=Secret("new-key")) == []


def test_broken() -> None:
    """gitlab.rb cannot be read."""
    resource = RegistryStorage(WANTED)
    with pytest.raises(ProbeFailed):
        planned(resource, observe(resource, {"file": Result(b"", b"gzip: denied", 1), "folder": EMPTY}))


@pytest.mark.parametrize(
    ("config", "answer"),
    [
        (None, "{default}\n\n"),
        ('storage: {"s3":{"bucket":"b"}}\n', "{default}\n\nran\n"),
        (
            'version: 0.1\nstorage: {"filesystem":{"rootdirectory":"FOLDER"},"delete":{"enabled":true}}\n',
            "{folder}\nsammy\nran\n",
        ),
    ],
)
def test_the_hosts_own_disk_is_asked_where_it_is(tmp_path: Path, config: str | None, answer: str) -> None:
    """By the registry's own configuration; with a real sh."""
    folder, default = tmp_path / "images", tmp_path / "default"
    (folder / "docker/registry/v2/repositories/sammy").mkdir(parents=True)
    if config is not None:
        (tmp_path / "config.yml").write_text(config.replace("FOLDER", str(folder)))
    session = LocalSession(
        {"/var/opt/gitlab/registry": tmp_path, "/var/opt/gitlab/gitlab-rails/shared/registry": default}
    )
    question = RegistryStorage(WANTED).probe()["folder"]
    assert isinstance(question, Command)
    (result,) = session.ask([question], deadline=10)
    assert result.text == answer.format(default=default, folder=folder)
    if "sammy" in answer:
        (folder / "docker/registry/v2/repositories/sammy").rmdir()
        (folder / "docker/registry/v2/blobs/sha256/ab").mkdir(parents=True)
        (result,) = session.ask([question], deadline=10)
        assert result.text == f"{folder}\nblobs\nran\n"
        (folder / "docker/registry/v2/blobs/sha256/ab").rmdir()
        (result,) = session.ask([question], deadline=10)
        assert result.text == f"{folder}\n\nran\n"
