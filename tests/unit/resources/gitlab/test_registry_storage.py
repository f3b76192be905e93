"""`RegistryStorage`: images are not left behind without a word."""

from __future__ import annotations

import gzip
from typing import Any

import pytest

from provision.errors import ProbeFailed, Refused
from provision.resources import RegistryStorage, Result
from provision.secret import Secret
from provision.shell import Command
from provision.testing import notes, observe, planned

WANTED = {
    "bucket": "registry",
    "region": "nyc3",
    "regionendpoint": "https://nyc3.example.com",
    "secretkey": Secret("xyz-key"),
}
S3 = "registry['storage'] = {{ 's3' => {{ 'bucket' => '{bucket}', 'regionendpoint' => '{endpoint}' }} }}\n"
SAME = S3.format(bucket="registry", endpoint="https://nyc3.example.com")
ONE = "image sammy/hello\n"
DISK = "external_url 'https://x'\n"


def notes_of(text: str | None, images: str | Result, acknowledged: bool = False, **wanted: Any) -> list[str]:
    """The notes for a gitlab.rb and what the registry has; there are never changes."""
    resource = RegistryStorage({**WANTED, **wanted}, acknowledged)
    packed = b"" if text is None else gzip.compress(text.encode())
    seen = observe(resource, {"file": packed, "images": images})
    assert planned(resource, seen) == []
    return notes(resource, seen)


@pytest.mark.parametrize(
    ("text", "images"),
    [
        (None, ONE),
        (SAME, ONE),
        (SAME.replace("'s3'", "'s3_v2'"), ONE),
        (SAME.replace("'s3' =>", "s3:"), "unknown why\n"),
        (DISK, "none\n"),
        (DISK, "never\n"),
        (S3.format(bucket="old", endpoint="https://nyc3.example.com"), "none\n"),
        (S3.format(bucket="old", endpoint="https://nyc3.example.com"), "same\n"),
        ("registry['storage'] = compute_it()\n", "none\n"),
    ],
    ids=[
        "no GitLab",
        "the same",
        "another name of the driver",
        "a symbol",
        "own disk, empty",
        "never configured",
        "another bucket, empty",
        "not in force yet",
        "computed, empty",
    ],
)
def test_nothing_is_left_behind(text: str | None, images: str) -> None:
    """No switch, or no image."""
    assert notes_of(text, images) == []


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (DISK, "images on the host's disk would no longer be found (sammy/hello is one)"),
        ("registry['storage'] = {}\n", "images on the host's disk would"),
        ("registry['storage'] = { 'filesystem' => { 'rootdirectory' => '/x' } }\n", "images on the host's disk would"),
        (S3.format(bucket="old", endpoint="https://nyc3.example.com"), "images in bucket old would"),
        (S3.format(bucket="registry", endpoint="https://ams3.example.com"), "images in bucket registry would"),
        ("registry['storage'] = { 'gcs' => { 'bucket' => 'g' } }\n", "images in its gcs storage would"),
        ("registry['storage'] = compute_it()\n", "images in the current storage, which gitlab.rb computes, would"),
    ],
    ids=["own disk", "an empty table", "a folder", "another bucket", "another endpoint", "another driver", "computed"],
)
def test_a_switch_is_refused_until_it_is_meant(text: str, left: str) -> None:
    """With a hint how to migrate the images, never to begin without them; when acknowledged, a note."""
    with pytest.raises(Refused) as caught:
        notes_of(text, ONE)
    assert left in caught.value.text
    assert "registry.migrate=acknowledged" in caught.value.hint
    assert "copy them in any case" in caught.value.hint
    assert "start empty" not in caught.value.hint
    (note,) = notes_of(text, ONE, acknowledged=True)
    assert note.startswith("the registry's storage changes, as acknowledged: ")
    assert left in note


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        ("unknown the registry does not answer: no\n", "the registry does not answer: no"),
        (Result(b"", b"sh: broken\n", 2), "sh: broken"),
    ],
)
def test_a_registry_that_cannot_be_asked(images: str | Result, reason: str) -> None:
    """It may have images: refused, with the reason, until it is acknowledged."""
    with pytest.raises(Refused, match="would no longer be found, if there are any: ") as caught:
        notes_of(DISK, images)
    assert caught.value.text.endswith(reason)
    assert len(notes_of(DISK, images, acknowledged=True)) == 1


def test_another_folder_in_the_bucket_is_another_place() -> None:
    """rootdirectory counts; keys and region do not."""
    with pytest.raises(Refused):
        notes_of(SAME, ONE, rootdirectory="/elsewhere")
    assert notes_of(SAME, ONE, region="other", secretkey=Secret("new-key")) == []


def test_the_registry_is_asked_with_the_wanted_place() -> None:
    """No secret is an argument."""
    question = RegistryStorage(WANTED).probe()["images"]
    assert isinstance(question, Command)
    assert " registry https://nyc3.example.com ''\n" in question.script
    assert "xyz-key" not in question.script


def test_broken() -> None:
    """gitlab.rb cannot be read."""
    resource = RegistryStorage(WANTED)
    with pytest.raises(ProbeFailed):
        planned(resource, observe(resource, {"file": Result(b"", b"gzip: denied", 1), "images": ONE}))
