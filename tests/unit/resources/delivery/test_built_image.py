"""An image: built and pushed when it must be, and not when it is on record or stands in the registry."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from provision.errors import Refused
from provision.formats.build_context import Context
from provision.host.docker import RegistryAccess
from provision.image_name import parse
from provision.resources import ApiAction, BuiltImage, Change
from provision.resources.base import KEEP
from provision.secret import Secret
from provision.testing import observe, planned

DIGEST = "sha256:" + "1" * 64
OTHER = "sha256:" + "2" * 64
BUILD = "build and push r.example.com/sammy/hello:1.0, latest"
VERIFY = "verify that the registry has r.example.com/sammy/hello:1.0, latest as it was built"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A context."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    return tmp_path


def image(folder: Path, **more: Any) -> BuiltImage:
    """The image under test."""
    context = Context(folder)
    registry = RegistryAccess("https://r.example.com", "sammy", Secret("the-push-password"))
    name, tags = parse("r.example.com/sammy/hello"), ("1.0", "latest")
    return BuiltImage(name, tags, context, context.digest(), registry, **more)


def made(wanted: BuiltImage) -> str:
    """The fingerprint that the probe is asked about."""
    return wanted.fingerprint


def summaries(wanted: BuiltImage, image: str, record: Any, due: bool = False) -> list[str]:
    """What is left to do."""
    filled = image.replace("PRINT", made(wanted))
    recorded = json.loads(json.dumps(record).replace("PRINT", made(wanted)))
    return [one.summary for one in planned(wanted, observe(wanted, {"image": filled}, record=recorded, due=due))]


LOCAL = f"local PRINT sha256:9 r.example.com/sammy/hello@{DIGEST}\n" * 2
THERE = f"tag 1.0 {DIGEST}\ntag latest {DIGEST}\n"
RECORD = {"made": "PRINT", "digest": DIGEST}

CASES = [
    # bare: no Docker yet, no image yet
    ("docker is not installed\n", None, False, [BUILD]),
    ("", None, False, [BUILD, VERIFY]),
    # half done: built and not pushed, one tag pushed, pushed and not on record
    (f"local PRINT sha256:9\n{'tag 1.0 absent'}\ntag latest absent\n", None, False, [BUILD, VERIFY]),
    (LOCAL + f"tag 1.0 {DIGEST}\ntag latest absent\n", None, False, [BUILD, VERIFY]),
    (LOCAL + f"tag 1.0 {DIGEST}\ntag latest {OTHER}\n", None, False, [BUILD, VERIFY]),
    (LOCAL + THERE, None, False, [VERIFY]),
    # converged: on record; asked again
    ("", RECORD, False, []),
    (LOCAL + THERE, RECORD, True, []),
    (THERE, RECORD, True, []),
    # something else is wanted now
    (f"local old sha256:9 r.example.com/sammy/hello@{OTHER}\n", {"made": "old", "digest": OTHER}, False, [BUILD, VERIFY]),
    # another image was pushed, or the tag was deleted
    (LOCAL + f"tag 1.0 {OTHER}\ntag latest {OTHER}\n", RECORD, True, [BUILD, VERIFY]),
    ("tag 1.0 absent\ntag latest absent\n", RECORD, True, [BUILD, VERIFY]),
    # the registry cannot be asked: nothing is built for that
    ("tag 1.0 ? refused\ntag latest ? refused\n", RECORD, True, ["ask the registry for r.example.com/sammy/hello"]),
    ("tag 1.0 ? refused\ntag latest ? refused\n", None, True, [BUILD, VERIFY]),
]  # fmt: skip


@pytest.mark.parametrize(("seen", "record", "due", "wanted"), CASES)
def test_plan(folder: Path, seen: str, record: Any, due: bool, wanted: list[str]) -> None:
    """What is left to do, given what was seen."""
    assert summaries(image(folder), seen, record, due) == wanted


LOCAL_ONLY = [("", ["build r.example.com/sammy/hello:1.0, latest"]), (LOCAL, []), (LOCAL[: len(LOCAL) // 2], ["build r.example.com/sammy/hello:1.0, latest"])]  # fmt: skip


@pytest.mark.parametrize(("seen", "wanted"), LOCAL_ONLY)
def test_an_image_that_is_not_pushed(folder: Path, seen: str, wanted: list[str]) -> None:
    """It is looked for on the host itself, under all of its tags."""
    assert summaries(image(folder, push=False), seen, None) == wanted


def test_without_docker_it_waits_for_it(folder: Path) -> None:
    """Check mode predicts it on a bare host."""
    wanted = image(folder)
    (change,) = planned(wanted, observe(wanted, {"image": "docker is not installed\n"}))
    assert change.requires == "docker"


def test_what_is_sent(folder: Path) -> None:
    """The password's line, then the context; the password is in no argument."""
    wanted = image(folder, arguments={"VERSION": "1 0"}, target="release")
    build = build_of(wanted)
    assert isinstance(build.run, ApiAction)
    outcome = build.run.make()
    assert outcome is not None
    command = outcome.run
    password, _, stream = command.stdin.partition(b"\n")
    assert password == b"the-push-password"
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(stream))) as tar:
        assert tar.getnames() == ["Dockerfile"]
    assert "the-push-password" not in command.script
    assert "--build-arg 'VERSION=1 0' --target release\n" in command.script
    assert "-t r.example.com/sammy/hello:1.0 -t r.example.com/sammy/hello:latest" in command.script
    assert (outcome.record, build.record) == (KEEP, KEEP), "it is recorded once the registry showed it"


def build_of(wanted: BuiltImage) -> Change:
    """The change that builds it."""
    return planned(wanted, observe(wanted, {"image": ""}))[0]


def test_a_context_that_changes_meanwhile(folder: Path) -> None:
    """What was planned is what is built, or nothing."""
    build = build_of(image(folder))
    (folder / "more").write_text("x")
    assert isinstance(build.run, ApiAction)
    with pytest.raises(Refused, match="was changed during this run"):
        build.run.make()


def test_all_that_decides_what_is_built_is_in_its_name(folder: Path) -> None:
    """Context, arguments, target, tags."""
    seen = {made(image(folder)), made(image(folder, arguments={"A": "b"})), made(image(folder, target="x"))}
    (folder / "more").write_text("x")
    assert len(seen | {made(image(folder))}) == 4


def test_fingerprint_is_that_of_version_0_1_0(folder: Path) -> None:
    """Another one would build every image of the estate again."""
    image = parse("r.example.com/a")
    wanted = BuiltImage(image, ("1", "l"), Context(folder), "digest", RegistryAccess(), True, {"V": "1"}, "t")
    assert wanted.fingerprint == "5a31bd324ef21f32dbf259c4609616d9"


def test_the_diff_shows_no_hash(folder: Path) -> None:
    """Build arguments are part of the fingerprint."""
    one = image(folder)
    for record in (None, {"made": "a0" * 16, "digest": OTHER}):
        change = planned(one, observe(one, {"image": "tag 1.0 absent\ntag latest absent\n"}, record=record))[0]
        assert one.fingerprint not in change.diff
        assert "a0a0" not in change.diff
        assert "-content and arguments: " in change.diff
